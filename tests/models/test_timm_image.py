"""timm's networks by name, with weights from a file or the hub, and a sentence where there are none."""

import time
from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import save_file

from hms_ray.errors import ConfigError
from hms_ray.models import timm_image
from hms_ray.params import parse
from hms_ray.specs import InputSpec

ARCH = "mobilenetv3_small_050"
STEM, HEAD = "conv_stem.weight", "classifier."


def _spec(channels: int) -> InputSpec:
    return InputSpec("image", (channels, 64, 48), 0.5)


def _build(channels: int = 1, **params: object) -> torch.nn.Module:
    return timm_image.build(_spec(channels), 6, parse(timm_image.Params, {"arch": ARCH, **params}, "model"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random weights of the network as timm publishes it: 3 channels, 1000 classes."""
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("weights") / "mobilenet.safetensors"
    save_file(timm.create_model(ARCH, num_classes=1000).state_dict(), path)
    return path


@pytest.mark.parametrize("channels", [1, 4])
def test_random_weights_take_any_number_of_channels(channels: int) -> None:
    model = _build(channels, pretrained=False)
    assert model.get_parameter(STEM).shape[1] == channels
    assert model(torch.randn(2, channels, 64, 48)).shape == (2, 6)


def test_a_file_gives_its_weights(weights: Path) -> None:
    published = timm.create_model(ARCH, num_classes=1000, checkpoint_path=str(weights)).state_dict()
    model = _build(3, pretrained=str(weights)).state_dict()
    same = [name for name in published if not name.startswith(HEAD)]
    assert all(torch.equal(model[name], published[name]) for name in same) and len(same) > 200
    assert model[HEAD + "weight"].shape[0] == 6


@pytest.mark.parametrize("channels", [1, 4])
def test_a_files_first_layer_is_fitted_to_the_channels(weights: Path, channels: int) -> None:
    published = timm.create_model(ARCH, checkpoint_path=str(weights)).get_parameter(STEM)
    stem = _build(channels, pretrained=str(weights)).get_parameter(STEM)
    if channels == 1:
        torch.testing.assert_close(stem, published.sum(1, keepdim=True))
    else:  # an image that is the same in all channels is seen as before
        torch.testing.assert_close(stem.sum(1), published[:, [0, 1, 2, 0]].sum(1) * 3 / 4)


def test_a_relative_file_is_found_from_anywhere(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(weights.parent)
    params = parse(timm_image.Params, {"arch": ARCH, "pretrained": weights.name}, "model")
    monkeypatch.chdir(tmp_path)
    assert timm_image.Params.model_validate(params.model_dump()) == params


def test_weights_that_are_nowhere_are_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    started = time.monotonic()
    with pytest.raises(ConfigError, match=r"model\.pretrained: the weights of 'resnet10t' are neither in the hub's"):
        _build(arch="resnet10t", pretrained=True)
    assert time.monotonic() - started < 20, "no waiting for a network"


def _unpublished() -> str:
    published = {name.split(".")[0] for name in timm.list_pretrained()}
    return next(name for name in timm.list_models() if name not in published)


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"arch": "mobilenetv3_smal_050"}, "model.arch: timm .* has no network of that name; near it are mobilenetv3"),
        ({"arch": ""}, "has no network of that name; near it are none"),
        ({"arch": f"{ARCH}.nosuch"}, f"model.arch: .* has no weights of that tag; there are {ARCH}.lamb_in1k"),
        ({"arch": _unpublished()}, "nobody has published weights of .* say pretrained: false, or name a file"),
        ({"pretrained": "nowhere.safetensors"}, "pretrained must be true, false or the path of an existing"),
        ({"pretrained": "weights.bin"}, "pretrained must be true, false or the path of an existing"),
        ({"drop_rate": 1.0}, "model.drop_rate: Input should be less than 1"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_built(params: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse(timm_image.Params, {"arch": ARCH, **params}, "model")


def test_a_network_without_published_weights_can_be_trained_from_none() -> None:
    assert timm_image.Params(arch=_unpublished(), pretrained=False).pretrained is False


def test_a_network_that_does_not_take_an_option_is_named() -> None:
    with pytest.raises(ConfigError, match=r"model\.arch 'vgg11' does not take these options: .*drop_path_rate"):
        _build(arch="vgg11", pretrained=False, drop_path_rate=0.1)


@pytest.mark.parametrize("content", [b"", b"hello world, this is not it", "truncated"])
def test_a_broken_file_is_named(weights: Path, tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(weights.read_bytes()[:-1000] if content == "truncated" else content)
    with pytest.raises(ConfigError, match=f"model.pretrained: the weights {path} do not fit '{ARCH}': "):
        _build(pretrained=str(path))


@pytest.mark.parametrize("arch", ["mobilenetv3_small_075", "resnet10t", "test_vit"])
def test_weights_of_another_network_are_refused(weights: Path, arch: str) -> None:
    with pytest.raises(ConfigError, match=f"model.pretrained: the weights {weights} do not fit '{arch}': "):
        _build(arch=arch, pretrained=str(weights))


def test_a_file_of_other_tensors_is_refused(tmp_path: Path) -> None:
    save_file({"encoder.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match="the file has 0 of the network's"):
        _build(pretrained=str(tmp_path / "other.safetensors"))


def test_dropout_and_stochastic_depth_are_passed_on() -> None:
    model = _build(arch="resnet10t", pretrained=False, drop_rate=0.3, drop_path_rate=0.2)
    assert model.drop_rate == 0.3
    rates = {layer.drop_prob for layer in model.modules() if type(layer).__name__ == "DropPath"}
    assert max(rates) == pytest.approx(0.2)
