"""Time is stretched or squeezed about the centre of each picture; what was not recorded is 0."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from hms_ray.augment import zoom_time
from hms_ray.augment._compose import Batch
from hms_ray.core import seeds
from hms_ray.core.specs import InputSpec


def _zoomed(line: torch.Tensor, factor: float, spans: tuple[int, ...] = ()) -> torch.Tensor:
    spec = InputSpec("wave", (1, len(line)), 1.0, spans=spans)
    return zoom_time.zoomed(line.view(1, 1, -1), spec, torch.tensor([factor]))[0, 0]


def _spike(place: int, steps: int) -> torch.Tensor:
    return torch.zeros(steps).index_fill(0, torch.tensor(place), 1.0)


@pytest.mark.parametrize(("factor", "place"), [(1.25, 75), (0.75, 65), (0.5, 60), (1.5, 80), (1.0, 70)])
def test_a_spike_moves_away_from_the_centre_by_the_factor(factor: float, place: int) -> None:
    line = _zoomed(_spike(70, 101), factor)  # 20 steps behind the centre, 50
    assert line.argmax() == place and line[place] == pytest.approx(1, abs=1e-4)
    assert (line[[i for i in range(101) if abs(i - place) > 2]] == 0).all()


def test_what_lies_between_two_steps_is_linear() -> None:
    ramp = torch.arange(101.0)
    torch.testing.assert_close(_zoomed(ramp, 1.25), 50 + (ramp - 50) / 1.25)
    squeezed = _zoomed(ramp, 0.8)
    torch.testing.assert_close(squeezed[10:91], 50 + (ramp[10:91] - 50) / 0.8, rtol=0, atol=1e-4)
    assert (squeezed[:10] == 0).all() and (squeezed[91:] == 0).all(), "nothing was recorded there"


@pytest.mark.parametrize("steps", [1, 2, 299, 300, 10_000])
def test_a_factor_of_1_is_the_same(steps: int) -> None:
    line = torch.rand(steps) + 1
    torch.testing.assert_close(_zoomed(line, 1.0), line, rtol=0, atol=0)


def test_each_picture_has_a_centre_of_its_own_and_takes_nothing_from_its_neighbour() -> None:
    line = torch.cat([_spike(14, 21), 5 + torch.zeros(11)])  # centres at 10 and 26
    stretched, squeezed = (_zoomed(line, factor, (21, 11)) for factor in (1.5, 0.5))
    assert stretched[:21].argmax() == 16 and squeezed[:21].argmax() == 12
    assert (stretched[21:] == 5).all() and (stretched[:21] <= 1).all()
    assert squeezed[21:].tolist() == [0] * 3 + [5] * 5 + [0] * 3


def test_every_channel_and_frequency_of_a_row_is_zoomed_alike() -> None:
    line, spec = torch.rand(40), InputSpec("image", (2, 3, 40), 1.0)
    done = zoom_time.zoomed(line.expand(2, 2, 3, 40), spec, torch.tensor([0.8, 1.2]))
    for row, factor in zip(done, (0.8, 1.2), strict=True):
        torch.testing.assert_close(row, _zoomed(line, factor).expand(2, 3, 40))


def test_factors_are_drawn_for_each_row_up_to_most() -> None:
    spec = InputSpec("wave", (1, 2001), 1.0)
    batch = Batch(_spike(1500, 2001).expand(500, 1, -1), torch.ones(500, 6), torch.ones(500), spec)
    line = zoom_time.apply(batch, seeds.stream(0), zoom_time.Params(p=1, most=0.2)).x[:, 0]
    factor = (line.argmax(1) - 1000) / 500
    assert factor.min().item() == pytest.approx(0.8, abs=0.01) and factor.max().item() == pytest.approx(1.2, abs=0.01)
    assert factor.mean().item() == pytest.approx(1, abs=0.03)


def test_about_p_of_the_rows(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch("wave", rows=2000)
    done = zoom_time.apply(batch, seeds.stream(0), zoom_time.Params(p=0.3))
    assert (done.x != batch.x).flatten(1).any(1).float().mean().item() == pytest.approx(0.3, abs=0.05)
    assert done.y is batch.y and done.weight is batch.weight


def test_where_nothing_was_there_is_nothing(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch("stack", rows=8)
    spec = replace(batch.spec, empty=(-1.0,))
    done = zoom_time.zoomed(batch.x, spec, torch.full((8,), 0.8))
    assert (done[..., :2] == -1).all() and (done[..., -2:] == -1).all() and (done[..., 5:-5] > 0).all()
