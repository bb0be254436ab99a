"""The spectrogram transformer against transformers' own, with weights as they are published."""

import pytest
import torch
from safetensors.torch import load_file
from timm.models import group_parameters
from transformers import ASTConfig, ASTForAudioClassification

from hms_ray.core.errors import ConfigError
from hms_ray.core.params import parse
from hms_ray.core.specs import InputSpec
from hms_ray.models import ast

State = dict[str, torch.Tensor]
PUBLISHED = (1, 128, 1024)
TOKENS, GRID = 2, (12, 101)


def _build(shape: tuple[int, ...] = PUBLISHED, weights: State | None = None, **params: object) -> torch.nn.Module:
    parsed = parse(ast.Params, {"pretrained": False, "size": "tiny", "depth": 3, **params}, "model")
    return ast.build(InputSpec("image", shape, 0.5), 6, parsed, weights)


@pytest.fixture(scope="module")
def reference() -> ASTForAudioClassification:
    """As it is published, but tiny."""
    torch.manual_seed(5)
    config = ASTConfig(hidden_size=192, num_attention_heads=3, intermediate_size=768, num_hidden_layers=3)
    model = ASTForAudioClassification(config).eval()
    for p in model.parameters():
        p.data += 0.02 * torch.randn_like(p)  # so that nothing is left at 0 or 1
    return model


@pytest.fixture(scope="module")
def weights(reference: ASTForAudioClassification, tmp_path_factory: pytest.TempPathFactory) -> State:
    """Its file, in which tensors have the names of the hub."""
    folder = tmp_path_factory.mktemp("ast")
    reference.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def test_published_weights_give_the_librarys_features(reference: ASTForAudioClassification, weights: State) -> None:
    assert "audio_spectrogram_transformer.encoder.layer.0.attention.attention.query.weight" in weights
    model, x = _build(weights=weights).eval(), torch.randn(2, *PUBLISHED)
    wanted = reference.audio_spectrogram_transformer
    assert all(torch.equal(p, wanted.state_dict()[key]) for key, p in model.body.net.state_dict().items())
    with torch.no_grad():
        sound = x[:, 0].transpose(1, 2)  # the library wants (B, T, F)
        torch.testing.assert_close(model.body(x), wanted(sound).pooler_output)


def test_a_shallower_network_keeps_the_first_layers(weights: State) -> None:
    full, cut = _build(weights=weights), _build(weights=weights, depth=2)
    assert len(cut.body.net.layers) == 2
    for key, p in cut.body.state_dict().items():
        assert torch.equal(p, full.body.state_dict()[key])


@pytest.mark.parametrize("channels", [2, 4])
def test_the_first_layer_is_fitted_to_the_channels(weights: State, channels: int) -> None:
    """An image that is the same in all channels is seen as before."""
    one, many = _build(weights=weights).eval(), _build((channels, *PUBLISHED[1:]), weights).eval()
    x = torch.randn(1, *PUBLISHED)
    with torch.no_grad():
        torch.testing.assert_close(many.body(x.expand(-1, channels, -1, -1)), one.body(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("shape", "stride", "grid"), [((1, 100, 75), 10, (9, 6)), ((1, 128, 1024), 16, (8, 64))])
def test_places_are_interpolated(weights: State, shape: tuple[int, ...], stride: int, grid: tuple[int, int]) -> None:
    places = weights["audio_spectrogram_transformer.embeddings.position_embeddings"]
    found = _build(shape, weights, stride=stride).body.net.embeddings.position_embeddings
    assert found.shape == (1, TOKENS + grid[0] * grid[1], 192)
    assert torch.equal(found[:, :TOKENS], places[:, :TOKENS])
    image = places[:, TOKENS:].view(1, *GRID, 192).permute(0, 3, 1, 2)
    wanted = torch.nn.functional.interpolate(image, grid, mode="bicubic", antialias=True)
    torch.testing.assert_close(found[:, TOKENS:], wanted.flatten(2).transpose(1, 2))


def test_places_know_frequency_from_time(weights: State) -> None:
    """Embeddings that count the rows still do on another grid."""
    rows = torch.arange(12.0).view(1, 12, 1, 1).expand(1, 12, 101, 192).reshape(1, -1, 192)
    key = "audio_spectrogram_transformer.embeddings.position_embeddings"
    given = weights | {key: torch.cat([weights[key][:, :TOKENS], rows], 1)}
    found = _build((1, 66, 316), given).body.net.embeddings.position_embeddings[0, TOKENS:].view(6, 31, 192)
    assert (found.diff(dim=0) > 1).all() and found.std(1).max() < 1e-4


def test_weights_of_another_network_are_refused(weights: State, capfd: pytest.CaptureFixture[str]) -> None:
    _build(weights=weights)
    assert capfd.readouterr() == ("", ""), "nothing is said where they fit"
    with pytest.raises(ConfigError, match=r"model\.pretrained: the weights MIT/ast-\S+ do not fit ast base: "):
        _build(weights=weights, size="base", pretrained=True)
    with pytest.raises(ConfigError, match=r"the file has \d+ of the network's \d+ tensors"):
        _build(weights=weights, depth=4)
    with pytest.raises(ConfigError, match=r"the file has 0 of the network's \d+ tensors"):
        _build(weights={"encoder.weight": torch.zeros(3)})


def test_the_base_is_the_published_size() -> None:
    """The hub counts 86.6 million parameters with the head over 527 classes."""
    with torch.device("meta"):
        model = _build(size="base", depth=12)
    head = 527 * 769 + 2 * 768
    assert sum(p.numel() for p in model.body.parameters()) + head == pytest.approx(86.6e6, abs=5e4)


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_the_sizes_run(size: str) -> None:
    with torch.device("meta"):
        model = _build((4, 400, 300), size=size, resize=[128, 256]).eval()
        assert model(torch.empty(2, 4, 400, 300)).shape == (2, 6)


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"size": "tiny", "pretrained": True}, "there are no published weights of ast tiny: use pretrained: false, or"),
        ({"stride": 17}, "model.stride: Input should be less than or equal to 16"),
        ({"depth": 13}, "model.depth: Input should be less than or equal to 12"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_built(params: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse(ast.Params, params, "model")


def test_images_smaller_than_a_patch_are_refused() -> None:
    with pytest.raises(ConfigError, match="model: images of 128 x 15 are smaller than a patch of 16: use resize"):
        _build((1, 128, 15))
    assert _build((1, 128, 15), resize=[128, 32])(torch.randn(2, 1, 128, 15)).shape == (2, 6)


def test_layers_are_in_order() -> None:
    with torch.device("meta"):
        model = _build()
    layers = group_parameters(model, model.group_matcher(), reverse=True)
    blocks = [layers[f"body.net.layers.{i}.mlp.fc1.weight"] for i in range(3)]
    assert blocks == [1, 2, 3] and layers["body.net.layernorm.weight"] == 3 and layers["head.weight"] == 4
    assert all(layers[key] == 0 for key in layers if key.startswith("body.net.embeddings"))


def test_tokens_and_places_are_not_decayed() -> None:
    model = _build()
    fixed = model.no_weight_decay()
    assert fixed == {f"body.net.embeddings.{key}" for key in ("cls_token", "distillation_token", "position_embeddings")}
    assert fixed <= {key for key, _ in model.named_parameters()}


def test_only_layers_may_be_left_over(weights: State) -> None:
    prefix = "audio_spectrogram_transformer"
    _build(weights=weights, depth=1)
    with pytest.raises(ConfigError, match=r"the file has besides 'embeddings\.gate'$"):
        _build(weights=weights | {f"{prefix}.embeddings.gate": torch.zeros(3)}, depth=1)
