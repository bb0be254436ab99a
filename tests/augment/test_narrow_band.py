"""What lies inside the band stays as it is, what lies outside goes, and the edges are soft."""

import math

import pytest
import torch

from hms_ray.augment import narrow_band
from hms_ray.augment._compose import Batch
from hms_ray.core import seeds
from hms_ray.core.errors import ConfigError
from hms_ray.core.params import parse
from hms_ray.core.specs import InputSpec

RATE = 200.0
SECONDS = 10
ALWAYS = narrow_band.Params(p=1, low_to_hz=1.0)


def _sines(*hz: float, rows: int = 50, spans: tuple[int, ...] = ()) -> Batch:
    """One channel a frequency, at full height, each with a phase of its own."""
    time = torch.arange(RATE * SECONDS) / RATE
    x = torch.stack([torch.sin(2 * math.pi * f * time + f) for f in hz]).expand(rows, -1, -1)
    spec = InputSpec("wave", (len(hz), len(time)), RATE, spans=spans)
    return Batch(x.contiguous(), torch.ones(rows, 6) / 6, torch.ones(rows), spec)


def _gain(batch: Batch, low: float, high: float) -> torch.Tensor:
    """Return what is left of each channel (B, C), 1 for all."""
    edges = (torch.full((len(batch.x), 1, 1), edge) for edge in (low, high))
    done = narrow_band.band(batch.x, batch.spec, *edges)
    return (done * batch.x).mean(-1) / batch.x.square().mean(-1)


def test_a_3_hz_sine_survives_and_a_60_hz_one_and_a_shift_do_not() -> None:
    batch = _sines(3, 60)
    done = narrow_band.apply(Batch(batch.x + 5, batch.y, batch.weight, batch.spec), seeds.stream(0), ALWAYS)
    torch.testing.assert_close(done.x[:, 0], batch.x[:, 0], rtol=0, atol=1e-4)
    assert done.x[:, 1].abs().max() < 1e-3  # the sine itself is rounded
    assert done.y is batch.y and done.weight is batch.weight


def test_an_edge_is_half_way_down_and_half_an_octave_soft_on_either_side() -> None:
    gain = _gain(_sines(1.4, 2, 2.8, 7, 10, 14.2, rows=1), 2.0, 10.0)[0]
    torch.testing.assert_close(gain, torch.tensor([0, 0.5, 1, 1, 0.5, 0]), rtol=0, atol=2e-3)


def test_the_edges_are_drawn_for_each_row_between_their_bounds() -> None:
    batch = _sines(0.3, 0.7, 1.5, 4.5, 5.5, 10, 14, 29, rows=400)
    done = narrow_band.apply(batch, seeds.stream(0), narrow_band.Params(p=1)).x.square().mean(-1) * 2
    assert (done[:, [0, 7]] < 1e-4).all() and (done[:, [3, 4]] > 0.999).all(), "outside and inside whatever is drawn"
    for column in (1, 2, 5, 6):
        assert done[:, column].min() < 0.01 and done[:, column].max() > 0.99, "between the bounds: some rows only"


def test_each_picture_is_filtered_by_itself() -> None:
    batch = _sines(3, 60, rows=4, spans=(1200, 800))
    batch.x[..., 1200:] = 0  # nothing may leak into the second
    done = narrow_band.apply(batch, seeds.stream(0), ALWAYS)
    torch.testing.assert_close(done.x[:, 0], batch.x[:, 0], rtol=0, atol=1e-4)
    assert (done.x[..., 1200:] == 0).all() and done.x[:, 1].abs().max() < 1e-3


def test_an_odd_number_of_steps_passes() -> None:
    batch = Batch(torch.rand(3, 2, 201), torch.ones(3, 6), torch.ones(3), InputSpec("wave", (2, 201), RATE))
    assert narrow_band.apply(batch, seeds.stream(0), ALWAYS).x.shape == batch.x.shape


def test_about_p_of_the_rows() -> None:
    batch = _sines(60, rows=1000)
    done = narrow_band.apply(batch, seeds.stream(0), narrow_band.Params(p=0.3))
    changed = (done.x != batch.x).flatten(1).any(1)
    assert changed.float().mean().item() == pytest.approx(0.3, abs=0.07)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_images_and_edges_above_half_the_rate_are_refused(p: float) -> None:
    image = Batch(torch.ones(2, 1, 8, 8), torch.ones(2, 6), torch.ones(2), InputSpec("image", (1, 8, 8), RATE))
    with pytest.raises(ConfigError, match=r"augment\.narrow_band needs waves"):
        narrow_band.apply(image, seeds.stream(0), narrow_band.Params(p=p))
    for rate, fits in ((39.0, False), (40.0, True)):
        slow = Batch(torch.ones(2, 1, 80), torch.ones(2, 6), torch.ones(2), InputSpec("wave", (1, 80), rate))
        if fits:
            narrow_band.apply(slow, seeds.stream(0), narrow_band.Params(p=p))
            continue
        with pytest.raises(ConfigError, match="needs 40 steps a second to filter at 20 Hz; this feature has 39"):
            narrow_band.apply(slow, seeds.stream(0), narrow_band.Params(p=p))


@pytest.mark.parametrize("values", [{"low_from_hz": 4.0}, {"low_to_hz": 8.0}, {"high_to_hz": 7.0}])
def test_edges_out_of_order_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"augment\.narrow_band: low_from_hz <= low_to_hz < high_from_hz"):
        parse(narrow_band.Params, values, "augment.narrow_band")
