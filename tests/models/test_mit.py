"""SegFormer's encoder against transformers' own classifier, with weights as they are published."""

from typing import get_args

import pytest
import torch
from safetensors.torch import load_file
from timm.models import group_parameters
from transformers import SegformerConfig, SegformerForImageClassification

from hms_ray.core.errors import ConfigError
from hms_ray.core.params import parse
from hms_ray.core.specs import InputSpec
from hms_ray.models import mit

State = dict[str, torch.Tensor]
CONV = "body.net.stages.0.patch_embeddings.proj.weight"


def _build(shape: tuple[int, ...] = (3, 64, 48), weights: State | None = None, **params: object) -> torch.nn.Module:
    parsed = parse(mit.Params, {"pretrained": False, **params}, "model")
    return mit.build(InputSpec("image", shape, 0.5), 6, parsed, weights)


@pytest.fixture(scope="module")
def reference() -> SegformerForImageClassification:
    """mit-b0 as it is published: the library's defaults are its sizes."""
    torch.manual_seed(5)
    model = SegformerForImageClassification(SegformerConfig(num_labels=1000)).eval()
    for p in model.parameters():
        p.data += 0.02 * torch.randn_like(p)  # so that nothing is left at 0 or 1
    return model


@pytest.fixture(scope="module")
def weights(reference: SegformerForImageClassification, tmp_path_factory: pytest.TempPathFactory) -> State:
    """Its file, in which tensors have the names of the hub."""
    folder = tmp_path_factory.mktemp("mit-b0")
    reference.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def test_the_hubs_names_are_not_the_librarys(weights: State) -> None:
    assert "segformer.encoder.block.0.0.attention.self.query.weight" in weights and "classifier.weight" in weights


def test_published_weights_give_the_librarys_features(
    reference: SegformerForImageClassification, weights: State
) -> None:
    model, x = _build(weights=weights).eval(), torch.randn(2, 3, 64, 48)
    wanted = reference.segformer.state_dict()
    assert all(torch.equal(p, wanted[key]) for key, p in model.body.net.state_dict().items())
    with torch.no_grad():
        assert torch.equal(reference.classifier(model.body(x)), reference(x).logits)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_the_first_layer_is_fitted_to_the_channels(weights: State, channels: int) -> None:
    published = weights["segformer.encoder.patch_embeddings.0.proj.weight"]
    conv = _build((channels, 64, 48), weights).get_parameter(CONV)
    if channels == 1:
        torch.testing.assert_close(conv, published.sum(1, keepdim=True))
    else:
        torch.testing.assert_close(conv, published[:, [0, 1, 2, 0][:channels]] * 3 / channels)


def test_loading_is_silent_and_leaves_the_weights_alone(weights: State, capfd: pytest.CaptureFixture[str]) -> None:
    before = {key: x.clone() for key, x in weights.items()}
    _build(weights=weights)
    assert capfd.readouterr() == ("", "")
    assert weights.keys() == before.keys() and all(torch.equal(weights[key], before[key]) for key in before)


def test_weights_of_another_network_are_refused(weights: State) -> None:
    with pytest.raises(ConfigError, match=r"model\.pretrained: the weights nvidia/mit-b1 do not fit mit b1: "):
        _build(weights=weights, arch="b1", pretrained=True)
    with pytest.raises(ConfigError, match=r"the weights hf-hub:a/b do not fit mit b2: "):
        _build(weights=weights, arch="b2", pretrained="hf-hub:a/b")
    with pytest.raises(ConfigError, match=r"the file has 0 of the network's \d+ tensors"):
        _build(weights={"encoder.weight": torch.zeros(3)})
    less = {key: x for key, x in weights.items() if not key.endswith("block.1.0.mlp.dense1.bias")}
    with pytest.raises(ConfigError, match=r"the file has 191 of the network's 192 tensors"):
        _build(weights=less)


def test_weights_of_a_deeper_network_are_refused(weights: State) -> None:
    old, new = "segformer.encoder.block.0.1.", "segformer.encoder.block.0.2."
    deeper = weights | {key.replace(old, new): x for key, x in weights.items() if key.startswith(old)}
    cause = r"the file has besides 'stages\.0\.blocks\.2\..*' and \d+ more"
    with pytest.raises(ConfigError, match=f"the weights hf-hub:a/b do not fit mit b0: {cause}"):
        _build(weights=deeper, pretrained="hf-hub:a/b")


@pytest.mark.parametrize(
    ("arch", "millions"), [("b0", 3.4), ("b1", 13.1), ("b2", 24.2), ("b3", 44.0), ("b4", 60.8), ("b5", 81.4)]
)
def test_sizes_are_those_of_the_paper(arch: str, millions: float) -> None:
    """Table 6 of Xie et al. counts the encoder's parameters."""
    with torch.device("meta"):
        model = _build((4, 400, 300), arch=arch).eval()
        assert model(torch.empty(2, 4, 400, 300)).shape == (2, 6)
    assert sum(p.numel() for p in model.body.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


def test_published_places() -> None:
    archs = get_args(mit.Params.model_fields["arch"].annotation)
    assert list(archs) == list(mit.SIZES)
    assert [mit.source(mit.Params(arch=arch)).key for arch in archs] == [f"hf-hub:nvidia/mit-{arch}" for arch in archs]


def test_layers_are_in_the_order_of_the_stages() -> None:
    with torch.device("meta"):
        model = _build()
    layers = group_parameters(model, model.group_matcher(), reverse=True)
    assert layers[CONV] == 0
    for stage in range(4):
        first, second = (layers[f"body.net.stages.{stage}.blocks.{block}.mlp.fc1.weight"] for block in (0, 1))
        assert second == first + 1 == layers[f"body.net.stages.{stage}.layer_norm.weight"]
        assert stage == 0 or layers[f"body.net.stages.{stage}.patch_embeddings.proj.weight"] == first - 1
    assert layers["head.weight"] == second + 1


def test_images_are_resized_and_small_ones_enlarged() -> None:
    torch.manual_seed(0)
    model, x = _build((1, 64, 100), resize=[40, 50]).eval(), torch.randn(2, 1, 64, 100)
    smaller = torch.nn.functional.interpolate(x, (40, 50), mode="bilinear", antialias=True)
    assert torch.equal(model(x), model(smaller))
    assert _build((1, 5, 100))(torch.randn(2, 1, 5, 100)).shape == (2, 6)


def test_rates_are_passed_on() -> None:
    model = _build(drop_rate=0.3, drop_path_rate=0.2)
    assert model.drop.p == 0.3
    assert max(getattr(layer, "drop_prob", 0.0) for layer in model.modules()) == pytest.approx(0.2)
