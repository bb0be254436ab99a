"""timm's networks by name: weights as timm itself loads them, pictures as asked, or a sentence why not."""

import copy
import logging
import re
import time
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import group_parameters

from hms_ray.core.errors import ConfigError
from hms_ray.core.params import parse
from hms_ray.core.specs import InputSpec
from hms_ray.models import timm_image
from hms_ray.training import dry_run, optim

ARCH = "mobilenetv3_small_050"
STEM, HEAD = "conv_stem.weight", "classifier."
State = dict[str, torch.Tensor]

# What search spaces name, at the sizes that they are used at.
USED = {
    "tf_efficientnet_b0.ns_jft_in1k": (400, 300),
    "tf_efficientnet_b2.ns_jft_in1k": (400, 300),
    "tf_efficientnet_b5.ns_jft_in1k": (512, 512),
    "mixnet_l": (400, 300),
    "mixnet_xl": (400, 300),
    "resnet34d": (400, 300),
    "resnet50": (400, 300),
    "densenet121": (400, 300),
    "convnext_tiny": (400, 300),
    "convnext_atto": (400, 300),
    "convnext_base": (400, 300),
    "maxvit_tiny_rw_224": (448, 320),
    "tiny_vit_21m_384.dist_in22k_ft_in1k": (384, 384),
    "caformer_s18.sail_in1k_384": (384, 384),
    "hgnetv2_b4.ssld_stage2_ft_in1k": (400, 300),
    "inception_next_tiny": (400, 300),
    "swinv2_tiny_window16_256": (512, 512),
    "vit_small_patch14_reg4_dinov2.lvd142m": (518, 518),
}


def _spec(channels: int = 1, size: tuple[int, int] = (64, 48), spans: tuple[int, ...] = ()) -> InputSpec:
    return InputSpec("image", (channels, *size), 0.5, spans=spans)


def _params(**params: object) -> timm_image.Params:
    return parse(timm_image.Params, {"arch": ARCH, "pretrained": False, **params}, "model")


def _build(spec: InputSpec | None = None, weights: State | None = None, **params: object) -> torch.nn.Module:
    return timm_image.build(spec or _spec(), 6, _params(**params), weights)


def _published(arch: str) -> State:
    """Random weights of a network as timm publishes it: 3 channels, all classes, and nothing left at 0 or 1."""
    torch.manual_seed(5)
    state = timm.create_model(arch).state_dict()
    return {key: x + 0.1 * torch.rand_like(x) if x.is_floating_point() else x for key, x in state.items()}


@pytest.fixture(scope="module")
def weights() -> State:
    return _published(ARCH)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, empty and without a network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def _put(cache: Path, repository: str, state: State) -> Path:
    folder, commit = cache / f"models--{repository.replace('/', '--')}", "0" * 40
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    save_file(state, folder / "snapshots" / commit / "model.safetensors")
    return folder / "snapshots" / commit / "model.safetensors"


@pytest.mark.parametrize("channels", [1, 4])
def test_random_weights_take_any_number_of_channels(channels: int) -> None:
    model = _build(_spec(channels))
    assert model.get_parameter(STEM).shape[1] == channels
    assert model(torch.randn(2, channels, 64, 48)).shape == (2, 6)


@pytest.mark.parametrize("arch", [ARCH, "test_resnet", "test_convnext", "test_vit", "test_efficientnet.r160_in1k"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_weights_of_the_hub_are_what_timm_makes_of_them(cache: Path, arch: str, channels: int) -> None:
    _put(cache, timm.models.get_pretrained_cfg(arch).hf_hub_id, _published(arch))
    params = _params(arch=arch, pretrained=True)
    ours = timm_image.build(_spec(channels, (160, 160)), 6, params, timm_image.source(params).load()).eval()
    timms = timm.create_model(arch, pretrained=True, num_classes=6, in_chans=channels).eval()
    head = {id(p) for p in ours.get_classifier().parameters()}
    wanted = timms.state_dict()
    same = [name for name, p in ours.state_dict(keep_vars=True).items() if id(p) not in head]
    assert ours.state_dict().keys() == wanted.keys() and len(same) == len(wanted) - 2
    assert all(torch.equal(ours.state_dict()[name], wanted[name]) for name in same)
    x = torch.randn(2, channels, 160, 160)
    assert torch.equal(ours.forward_features(x), timms.forward_features(x))


def test_a_file_and_the_hub_give_the_same(cache: Path, weights: State) -> None:
    path = _put(cache, "somebody/network", weights)
    for pretrained in (str(path), str(path.parent), "hf-hub:somebody/network"):
        found = timm_image.source(_params(pretrained=pretrained)).load()
        assert found.keys() == weights.keys() and all(torch.equal(found[key], weights[key]) for key in found)


def test_weights_that_are_given_stay_as_they_are(weights: State) -> None:
    before = {key: x.clone() for key, x in weights.items()}
    model = _build(weights=weights)
    assert weights.keys() == before.keys() and all(torch.equal(weights[key], before[key]) for key in before)
    assert "state_dict" not in model.pretrained_cfg, "they are not held twice"


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_the_first_layer_is_fitted_to_the_channels(weights: State, channels: int) -> None:
    published, stem = weights[STEM], _build(_spec(channels), weights).get_parameter(STEM)
    if channels == 1:
        torch.testing.assert_close(stem, published.sum(1, keepdim=True))
    else:  # an image that is the same in all channels is seen as before
        torch.testing.assert_close(stem, published[:, [0, 1, 2, 0][:channels]] * 3 / channels)


def test_where_weights_are_published() -> None:
    assert timm_image.source(_params()) is None
    assert timm_image.source(_params(pretrained=True)).key == "hf-hub:timm/mobilenetv3_small_050.lamb_in1k"
    assert timm_image.source(_params(arch="gcvit_tiny", pretrained=True)).key.startswith("https://github.com/")


def test_a_relative_file_is_found_from_anywhere(
    weights: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    save_file(weights, tmp_path / "mobilenet.safetensors")
    monkeypatch.chdir(tmp_path)
    params = _params(pretrained="mobilenet.safetensors")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert timm_image.Params.model_validate(params.model_dump()) == params


def test_weights_that_are_nowhere_are_said_to_be(cache: Path) -> None:
    started = time.monotonic()
    sentence = (
        r"model\.pretrained: hf-hub:timm/resnet10t\.c3_in1k is not in the hub's local cache and cannot be fetched"
    )
    with pytest.raises(ConfigError, match=sentence):
        timm_image.source(_params(arch="resnet10t", pretrained=True)).load()
    assert time.monotonic() - started < 20, "no waiting for a network"


def test_a_download_that_was_cut_short_is_named(cache: Path, weights: State) -> None:
    path = _put(cache, "timm/mobilenetv3_small_050.lamb_in1k", weights)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ConfigError, match=r"hf-hub:timm/mobilenetv3_small_050\.lamb_in1k is broken: "):
        timm_image.source(_params(pretrained=True)).load()


def _unpublished() -> str:
    published = {name.split(".")[0] for name in timm.list_pretrained()}
    return next(name for name in timm.list_models() if name not in published)


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"arch": "mobilenetv3_smal_050"}, "model.arch: timm .* has no network of that name; near it are mobilenetv3"),
        ({"arch": ""}, "has no network of that name; near it are none"),
        ({"arch": f"{ARCH}.nosuch"}, f"model.arch: .* has no weights of that tag; there are {ARCH}.lamb_in1k"),
        (
            {"arch": _unpublished(), "pretrained": True},
            "there are no published weights of .* use pretrained: false, or",
        ),
        ({"pretrained": "nowhere.safetensors"}, "pretrained must be true, false, hf-hub:owner/name, or the path of a"),
        ({"pretrained": "weights.bin"}, "there is no such file"),
        ({"drop_rate": 1.0}, "model.drop_rate: Input should be less than 1"),
        ({"pool": "max"}, "model.pool: Input should be 'native' or 'gem'"),
        ({"resize": [0, 10]}, r"model.resize.0: Input should be greater than or equal to 1"),
        ({"resize": [10]}, r"model.resize.1: missing"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_built(params: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        _params(**params)


def test_a_network_without_published_weights_can_be_trained_from_none() -> None:
    assert _params(arch=_unpublished()).pretrained is False


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"drop_path_rate": 0.1}, r"model\.arch 'vgg11' does not take these options: .*drop_path_rate"),
        ({"grad_checkpointing": True}, r"model\.grad_checkpointing: 'vgg11' does not support it: use false"),
    ],
)
def test_a_network_that_does_not_take_an_option_is_named(params: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence), torch.device("meta"):
        _build(arch="vgg11", **params)


@pytest.mark.parametrize("arch", ["mobilenetv3_small_075", "resnet10t", "test_vit", "beit_base_patch16_224"])
def test_weights_of_another_network_are_refused(weights: State, arch: str) -> None:
    with pytest.raises(ConfigError, match=f"model.pretrained: the weights hf-hub:a/b do not fit '{arch}': "):
        _build(weights=weights, arch=arch, pretrained="hf-hub:a/b")


def test_weights_of_a_shallower_sibling_are_refused() -> None:
    """All its tensors fit; half of the deeper network would stay random."""
    with pytest.raises(ConfigError, match=r"fit 'resnet34': the file has 122 of the network's 218 tensors"):
        _build(weights=timm.create_model("resnet18").state_dict(), arch="resnet34", pretrained="hf-hub:a/b")


def test_weights_of_a_deeper_sibling_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    """The network is full, but with the first half of another; one sentence says so, not timm's list of names."""
    caplog.set_level(logging.WARNING)  # whatever an earlier test has set
    cause = r"the file has besides 'layer1\.2\.bn1\.bias' and \d+ more"
    with pytest.raises(ConfigError, match=rf"the weights hf-hub:a/b do not fit 'resnet18': {cause}$"):
        _build(weights=timm.create_model("resnet34").state_dict(), arch="resnet18", pretrained="hf-hub:a/b")
    assert caplog.messages == []


def test_a_deeper_sibling_is_known_under_its_authors_names_and_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    theirs = {_authors(key): x for key, x in _published("convnext_atto").items()}
    deeper = theirs | {key.replace("stages.2.0", "stages.2.17"): x for key, x in theirs.items() if "stages.2.0" in key}
    with (
        caplog.at_level(logging.CRITICAL, "timm"),
        pytest.raises(ConfigError, match=r"the file has besides 'stages\.2\.blocks\.17\..* and \d+ more"),
    ):
        _build(_spec(3), deeper, arch="convnext_atto")


def test_heads_and_parts_that_the_network_does_not_have_may_be_left_over(weights: State) -> None:
    more = {"classifier.extra.weight": torch.ones(3, 3), "decoder.weight": torch.ones(3)}
    assert torch.equal(_build(weights=weights | more).state_dict()["bn1.weight"], weights["bn1.weight"])


@pytest.mark.parametrize("fuse", ["none", "features"])
@pytest.mark.parametrize(
    "arch", ["levit_128s", "caformer_s18", "efficientvit_b0", "tiny_vit_5m_224", "vit_tiny_patch16_224"]
)
def test_what_the_heads_bring_is_no_other_network(arch: str, fuse: str) -> None:
    spec = _spec(3, (224, 448), (224, 224)) if fuse == "features" else _spec(3, (224, 224))
    state = _published(arch)
    _build(spec, state, arch=arch, fuse=fuse)


def test_a_network_that_cannot_be_without_its_head_is_not_fused() -> None:
    with pytest.raises(ConfigError, match=r"model\.fuse: timm's 'efficientvit_m0' cannot do without its head: use"):
        _build(_spec(3, (224, 448), (224, 224)), arch="efficientvit_m0", fuse="features")


def test_other_tensors_are_refused() -> None:
    with pytest.raises(ConfigError, match="the file has 0 of the network's"):
        _build(weights={"encoder.weight": torch.zeros(3)}, pretrained=True)


def test_weights_under_their_authors_names_are_known() -> None:
    """timm renames what others have published: a count of names would refuse it."""
    arch = "convnext_atto"
    ours = _published(arch)
    theirs = {_authors(key): x for key, x in ours.items()}
    assert len(theirs.keys() & ours.keys()) < len(ours) / 2
    model = _build(_spec(3), theirs, arch=arch).state_dict()
    body = [key for key in ours if not key.startswith("head.fc")]
    assert all(torch.equal(model[key], ours[key].view_as(model[key])) for key in body)


def _authors(key: str) -> str:
    """The names of Facebook's ConvNeXt."""
    key = re.sub(r"^stem\.(\d)", r"downsample_layers.0.\1", key)
    key = re.sub(r"stages\.(\d)\.downsample", r"downsample_layers.\1", key)
    key = re.sub(r"stages\.(\d)\.blocks", r"stages.\1", key)
    key = key.replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")
    return key.replace("head.norm.", "norm.").replace("head.fc.", "head.")


def test_dropout_and_stochastic_depth_are_passed_on() -> None:
    model = _build(arch="resnet10t", drop_rate=0.3, drop_path_rate=0.2)
    assert model.drop_rate == 0.3
    rates = {layer.drop_prob for layer in model.modules() if type(layer).__name__ == "DropPath"}
    assert max(rates) == pytest.approx(0.2)


def test_checkpointing_changes_no_gradient() -> None:
    x = torch.randn(3, 1, 64, 48)
    gradients = []
    for on in (False, True):
        torch.manual_seed(0)
        model = _build(arch="test_resnet", grad_checkpointing=on).train()
        model(x).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(checkpointed, plain)


@pytest.mark.parametrize("arch", USED)
def test_what_search_spaces_name_runs(arch: str) -> None:
    """From another size, picture by picture, and with all its layers found. In one image they run in
    tests/contracts/test_search_spaces.py."""
    spec = _spec(4, (100, 300), (150, 150))
    with torch.device("meta"), dry_run._Unfilled(), dry_run._Shapes():
        model = _build(spec, arch=arch, resize=list(USED[arch]), fuse="features").eval()
        assert model(torch.empty(2, *spec.shape)).shape == (2, 6)
    layers = group_parameters(model, model.group_matcher(), reverse=True)
    last, head = max(layers.values()), {id(p) for p in model.get_classifier().parameters()}
    assert last > 3 and all(layers[key] == last for key, p in model.named_parameters() if id(p) in head)


@pytest.mark.parametrize("arch", ["levit_128s", "deit_tiny_distilled_patch16_224"])
def test_two_heads_are_one_to_the_optimiser(arch: str) -> None:
    with torch.device("meta"):
        model = _build(_spec(3, (224, 224)), arch=arch)
        copied = copy.deepcopy(model)
    for each in (model, copied):
        layers = group_parameters(each, each.group_matcher(), reverse=True)
        head = {id(p) for p in each.get_classifier().parameters()}
        names = [key for key, p in each.named_parameters() if id(p) in head]
        assert len(names) >= 4 and all(layers[key] == max(layers.values()) for key in names)


@pytest.mark.parametrize("arch", ["test_resnet", "caformer_s18", "test_convnext"])
def test_layers_keep_their_order_behind_a_resize(arch: str) -> None:
    with torch.device("meta"):
        plain, resized = _build(arch=arch), _build(arch=arch, resize=[64, 64])
    wanted = group_parameters(plain, plain.group_matcher(), reverse=True)
    found = group_parameters(resized, resized.group_matcher(), reverse=True)
    assert found == {f"net.{key}": layer for key, layer in wanted.items()}


@pytest.mark.parametrize("options", [{"resize": [64, 64]}, {"fuse": "features"}])
@pytest.mark.parametrize("arch", ["test_vit", "swin_tiny_patch4_window7_224", "test_resnet"])
def test_what_the_network_exempts_from_weight_decay_is_exempt_behind_a_wrapper(
    arch: str, options: dict[str, object]
) -> None:
    with torch.device("meta"):
        model = _build(_spec(1, (64, 128), (64, 64)), arch=arch, **options)
    wanted = {f"net.{key}" for key in getattr(model.net, "no_weight_decay", set)()}
    assert model.no_weight_decay() == wanted and bool(wanted) == (arch != "test_resnet")
    fixed = {id(p) for key, p in model.named_parameters() if key in wanted}
    for layer_decay in (1.0, 0.9):
        groups = optim.parameter_groups(model, optim.Params(layer_decay=layer_decay))
        free = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
        assert fixed <= free


def test_a_resized_image_is_the_network_on_a_smaller_one() -> None:
    torch.manual_seed(0)
    model = _build(arch="test_resnet", resize=[32, 40]).eval()
    x = torch.randn(2, 1, 64, 48)
    smaller = torch.nn.functional.interpolate(x, (32, 40), mode="bilinear", antialias=True)
    assert torch.equal(model(x), model.net(smaller))


@pytest.mark.parametrize("size", [(224, 448), (256, 192)])
@pytest.mark.parametrize("arch", ["swinv2_tiny_window8_256", "test_vit", "maxvit_pico_rw_256"])
def test_windows_and_places_are_fitted_to_the_size_without_losing_weights(arch: str, size: tuple[int, int]) -> None:
    published = _published(arch)
    size = (256, 256) if "maxvit" in arch and size == (224, 448) else size
    model = _build(_spec(3, size), published, arch=arch)
    head = {id(p) for p in model.get_classifier().parameters()}
    found = {key: p for key, p in model.named_parameters() if id(p) not in head}
    assert all(published[key].shape != p.shape or torch.equal(published[key], p) for key, p in found.items())
    resized = [p for key, p in found.items() if published[key].shape != p.shape]
    assert all(p.min() < p.max() and p.mean() > 0.01 for p in resized), "interpolated, not random around 0"
    with torch.no_grad():
        assert model.eval()(torch.randn(1, 3, *size)).shape == (1, 6)


def test_fused_pictures_are_seen_by_one_network() -> None:
    """Each picture's features stand in the head's input where the picture stands in the image."""
    torch.manual_seed(0)
    model = _build(_spec(1, (64, 96), (48, 48)), arch="test_resnet", fuse="features").eval()
    left, right = torch.randn(2, 2, 1, 64, 48)
    features = torch.cat([model.net(left), model.net(right)], 1)
    torch.testing.assert_close(model(torch.cat([left, right], -1)), model.head(features))
    swapped = model(torch.cat([right, left], -1))
    model.head.weight.data = model.head.weight.data.roll(model.head.in_features // 2, 1)
    torch.testing.assert_close(model(torch.cat([left, right], -1)), swapped)


def test_fused_pictures_may_differ_in_width() -> None:
    torch.manual_seed(0)
    model = _build(_spec(1, (64, 96), (36, 60)), arch="test_resnet", fuse="features").eval()
    x = torch.randn(2, 1, 64, 96)
    features = torch.cat([model.net(x[..., :36]), model.net(x[..., 36:])], 1)
    torch.testing.assert_close(model(x), model.head(features))


def test_fused_pictures_begin_with_the_weights(weights: State) -> None:
    model = _build(_spec(3, (64, 96), (48, 48)), weights, fuse="features").state_dict()
    body = [key for key in weights if not key.startswith(HEAD)]
    assert all(torch.equal(model[f"net.{key}"], weights[key]) for key in body)


@pytest.mark.parametrize(
    ("arch", "spans", "sentence"),
    [
        ("test_resnet", (), "model.fuse: the feature makes one picture, there is nothing to fuse: use none"),
        ("test_vit", (32, 64), "model.fuse: pictures are 32 and 64 steps wide, and 'test_vit' sees .*: use resize"),
    ],
)
def test_what_cannot_be_fused_is_said(arch: str, spans: tuple[int, ...], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        _build(_spec(1, (64, 96), spans), arch=arch, fuse="features")
    _build(_spec(1, (64, 96), (32, 64)), arch="test_vit", fuse="features", resize=[64, 64])


@pytest.mark.parametrize("arch", ["test_resnet", "test_convnext", "mobilenetv3_small_050", "swinv2_tiny_window8_256"])
def test_gem_of_power_one_is_the_mean(arch: str, weights: State) -> None:
    size = (256, 256) if "swin" in arch else (64, 48)
    logits = []
    for pool in ("native", "gem"):
        torch.manual_seed(0)
        model = _build(_spec(1, size), arch=arch, pool=pool).eval()
        for name, p in model.named_parameters():
            if name.endswith("global_pool.p"):
                p.data.fill_(1.0)
        for layer in model.modules():  # what is pooled is positive, so that nothing is cut off
            if type(layer).__name__ in ("SelectAdaptivePool2d", "GeM"):
                layer.register_forward_pre_hook(lambda _, args: (args[0].abs() + 0.01,))
        with torch.no_grad():
            logits.append(model(torch.randn(2, 1, *size, generator=torch.Generator().manual_seed(1))))
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-4, atol=1e-5)


def test_gem_needs_feature_maps() -> None:
    with pytest.raises(ConfigError, match=r"model\.pool: 'test_vit' does not pool feature maps .*: use native"):
        _build(arch="test_vit", pool="gem")


@pytest.mark.parametrize("options", [{}, {"resize": [64, 64]}, {"pool": "gem"}, {"grad_checkpointing": True}])
def test_numbers_beside_an_image_go_to_the_head(weights: State, options: dict[str, object]) -> None:
    """What the network finds in the image is what it finds without them."""
    spec = replace(_spec(3), covariates=("age", "smoker"))
    plain, model = (_build(s, weights, **options).eval() for s in (_spec(3), spec))
    seen = []
    plain.get_classifier().register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    x, covariates = torch.randn(2, 3, 64, 48), torch.tensor([[40.0, 1.0], [torch.nan, 0.0]])
    plain(x)
    expected = model.head(torch.cat([seen[0], covariates.nan_to_num()], 1))
    torch.testing.assert_close(model(x, covariates), expected, rtol=1e-4, atol=1e-5)
    assert model.head.in_features == plain.get_classifier().in_features + 2


def test_without_numbers_beside_it_timms_own_module_stays() -> None:
    assert type(_build()).__module__.startswith("timm.")


def test_numbers_go_beside_fused_pictures_too() -> None:
    spec = replace(_spec(1, (64, 96), (48, 48)), covariates=("age",))
    model = _build(spec, arch="test_resnet", fuse="features").eval()
    assert model(torch.randn(2, 1, 64, 96), torch.zeros(2, 1)).shape == (2, 6)
    assert model.head.in_features % 2 == 1


def test_a_network_that_cannot_be_without_its_head_takes_nothing_beside() -> None:
    sentence = r"input\.covariates: timm's 'efficientvit_m0' cannot do without its head: leave it out"
    with pytest.raises(ConfigError, match=sentence):
        _build(replace(_spec(3, (224, 224)), covariates=("age",)), arch="efficientvit_m0")
