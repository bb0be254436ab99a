"""Networks for waves: any length, any rate, no example sees another, and each learns."""

import pytest
import torch
from torch import nn

from hms_ray.core.errors import ConfigError
from hms_ray.core.params import parse
from hms_ray.core.specs import InputSpec
from hms_ray.models import eeg_1d
from hms_ray.models._strides import strides

ARCHS = ["resnet_gru", "squeezeformer", "eegnet"]
each_arch = pytest.mark.parametrize("arch", ARCHS)


def _build(arch: str, shape: tuple[int, int] = (4, 400), rate_hz: float = 40.0, **params: object) -> nn.Module:
    torch.manual_seed(0)
    small = {"width": 16, "depth": 2, **params}
    return eeg_1d.build(InputSpec("wave", shape, rate_hz), 3, parse(eeg_1d.Params, {"arch": arch, **small}, "model"))


@pytest.mark.parametrize(
    ("steps", "layers", "limit", "expected"),
    [(10_000, 3, 320, [4, 4, 2]), (2000, 3, 320, [2, 2, 2]), (10_000, 1, 160, [64]), (100, 3, 160, [1, 1, 1])],
)
def test_layers_share_what_shortens_a_wave(steps: int, layers: int, limit: int, expected: list[int]) -> None:
    assert strides(steps, layers, limit) == expected


@pytest.mark.parametrize(
    ("shape", "rate_hz"), [((16, 10_000), 200.0), ((18, 2000), 40.0), ((1, 50), 0.5), ((3, 1), 10.0)]
)
@each_arch
def test_any_length_and_rate(arch: str, shape: tuple[int, int], rate_hz: float) -> None:
    assert torch.isfinite(_build(arch, shape, rate_hz).eval()(torch.randn(2, *shape))).all()


@pytest.mark.parametrize("steps", [2000, 10_000])
@pytest.mark.parametrize("depth", [1, 2, 8])
@pytest.mark.parametrize(("arch", "kind", "most"), [("resnet_gru", nn.GRU, 160), ("squeezeformer", nn.LayerNorm, 320)])
def test_what_is_slow_sees_few_steps(arch: str, kind: type[nn.Module], most: int, depth: int, steps: int) -> None:
    model, seen = _build(arch, (2, steps), 200.0, depth=depth).eval(), []
    layer = next(layer for layer in model.modules() if isinstance(layer, kind))
    layer.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[1]))
    model(torch.randn(1, 2, steps))
    assert most / 2 <= seen[0] <= most


@each_arch
def test_an_example_does_not_see_its_neighbours_in_training_either(arch: str) -> None:
    """Batch norm apart, which is meant to: the public ResNet and GRU let its recurrence run over the batch."""
    model, x = _build(arch, drop_rate=0.0).train(), torch.randn(4, 4, 400)
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()
    torch.testing.assert_close(model(x)[:2], model(x[:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("arch", "least", "most"),
    [("resnet_gru", 0.5e6, 3e6), ("squeezeformer", 0.5e6, 3e6), ("eegnet", 2e3, 5e3)],
)
def test_size(arch: str, least: float, most: float) -> None:
    model = eeg_1d.build(InputSpec("wave", (16, 10_000), 200.0), 6, eeg_1d.Params(arch=arch))
    assert least < sum(p.numel() for p in model.parameters()) < most


@each_arch
def test_width_and_depth_are_kept(arch: str) -> None:
    sizes = {(w, d): len(list(_build(arch, width=w, depth=d).body.parameters())) for w in (8, 16) for d in (1, 3)}
    assert sizes[8, 1] == sizes[16, 1] < sizes[8, 3] == sizes[16, 3]


@each_arch
def test_dropout_acts_in_training_only(arch: str) -> None:
    model, x = _build(arch, drop_rate=0.5), torch.randn(4, 4, 400)
    assert not torch.equal(model.train()(x), model(x))
    assert torch.equal(model.eval()(x), model(x))


@pytest.mark.parametrize("arch", ["resnet_gru", "squeezeformer"])
def test_stochastic_depth_grows_to_its_rate(arch: str) -> None:
    model = _build(arch, depth=4, drop_path_rate=0.2)
    rates = [layer.drop_prob for layer in model.modules() if type(layer).__name__ == "DropPath"]
    assert sorted(rates) == rates and rates[0] == pytest.approx(0.05) and rates[-1] == pytest.approx(0.2)


def test_eegnet_has_nothing_to_drop() -> None:
    with pytest.raises(ConfigError, match=r"eegnet has no residual paths that could be dropped: drop_path_rate=0\.1"):
        _build("eegnet", drop_path_rate=0.1)


def test_no_filter_of_eegnet_on_the_scalp_is_longer_than_one() -> None:
    """Weights that grow a thousandfold beyond the limit change nothing."""
    model, x = _build("eegnet").eval(), torch.randn(2, 4, 400)
    weight = model.get_parameter("body.spatial.0.weight")
    weight.data *= 10 / weight.data.flatten(1).norm(dim=1).min()
    expected = model(x)
    weight.data *= 1000
    torch.testing.assert_close(model(x), expected)
    weight.data *= 1e-6
    assert not torch.allclose(model(x), expected, rtol=0.1)


def test_eegnets_kernels_last_half_a_second() -> None:
    kernels = {
        rate: _build("eegnet", (2, 1000), rate).get_parameter("body.temporal.0.weight").shape[-1] for rate in (40, 200)
    }
    assert kernels == {40: 21, 200: 101}


@each_arch
def test_it_learns_the_frequency(arch: str) -> None:
    torch.manual_seed(0)
    label = torch.arange(24) % 3
    time_s, phase = torch.arange(400) / 40, torch.rand(24, 4, 1) * 6.28
    x = torch.sin(6.28 * (2 + 3 * label)[:, None, None] * time_s + phase) + 0.3 * torch.randn(24, 4, 400)
    model = _build(arch, drop_rate=0.0)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(40):
        loss = nn.functional.cross_entropy(model(x), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3, "chance is 1.1"
