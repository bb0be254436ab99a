"""Stripes: whole, bounded in width and in count, on both axes, and nothing else is touched."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from hms_ray.augment import xy_mask
from hms_ray.augment._compose import Batch
from hms_ray.core import seeds


def _runs(line: np.ndarray) -> list[int]:
    """Return the lengths of the runs of true."""
    edges = np.flatnonzero(np.diff(np.r_[False, line, False].astype(int)))
    return (edges[1::2] - edges[::2]).tolist()


def _blank(batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what is 0, and the frequencies and the times that are 0 throughout, each (B, ...)."""
    zero = (batch.x == 0).numpy()
    return zero, zero.all((1, 3)), zero.all((1, 2))


@pytest.mark.parametrize("arrange", ["stack", "channels"])
def test_what_is_blank_is_stripes_of_frequency_and_time(make_batch: Callable[..., Batch], arrange: str) -> None:
    batch = make_batch(arrange, rows=200)
    masked = xy_mask.apply(batch, seeds.stream(0), xy_mask.Params(p=1, stripes=3, width=0.125))
    zero, low, time = _blank(masked)
    np.testing.assert_array_equal(zero, np.broadcast_to(low[:, None, :, None] | time[:, None, None, :], zero.shape))
    assert low.any(1).all() and time.any(1).all(), "each row has a stripe on each axis"
    assert torch.equal(masked.x[masked.x != 0], batch.x[masked.x != 0])
    assert masked.y is batch.y and masked.weight is batch.weight


@pytest.mark.parametrize(("stripes", "width"), [(1, 0.125), (3, 0.125), (5, 0.05), (2, 0.5)])
def test_stripes_are_bounded_in_count_and_width(make_batch: Callable[..., Batch], stripes: int, width: float) -> None:
    batch = make_batch("stack", rows=300)
    masked = xy_mask.apply(batch, seeds.stream(0), xy_mask.Params(p=1, stripes=stripes, width=width))
    for lines in _blank(masked)[1:]:
        largest = max(1, round(width * lines.shape[1]))
        runs = [_runs(line) for line in lines]
        assert max(map(len, runs)) <= stripes and max(map(sum, runs)) <= stripes * largest
        if stripes == 1:  # stripes that touch look like a wider one
            assert {n for run in runs for n in run} == set(range(1, largest + 1))
        else:
            assert max(map(len, runs)) > 1 and min(map(len, runs)) == 1, "1 to `stripes` of them"


def test_every_place_can_be_masked(make_batch: Callable[..., Batch]) -> None:
    masked = xy_mask.apply(make_batch("channels", rows=1000), seeds.stream(0), xy_mask.Params(p=1, stripes=1))
    _, low, time = _blank(masked)
    assert low.any(0).all() and time.any(0).all()


def test_a_stripe_is_never_narrower_than_a_pixel(make_batch: Callable[..., Batch]) -> None:
    masked = xy_mask.apply(make_batch(rows=100), seeds.stream(0), xy_mask.Params(p=1, stripes=1, width=1e-6))
    _, low, time = _blank(masked)
    assert (low.sum(1) == 1).all() and (time.sum(1) == 1).all()


def test_waves_are_masked_in_time(make_batch: Callable[..., Batch]) -> None:
    masked = xy_mask.apply(make_batch("wave"), seeds.stream(0), xy_mask.Params(p=1))
    zero = (masked.x == 0).numpy()
    np.testing.assert_array_equal(zero, np.broadcast_to(zero.all(1, keepdims=True), zero.shape))
    assert zero.any((1, 2)).all() and not zero.all((1, 2)).any()


def test_about_p_of_the_rows(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch("wave", rows=2000)
    masked = xy_mask.apply(batch, seeds.stream(0), xy_mask.Params(p=0.3))
    assert (masked.x == 0).flatten(1).any(1).float().mean().item() == pytest.approx(0.3, abs=0.05)


def test_a_stripe_holds_what_means_no_signal_in_each_picture(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch(rows=40)
    batch = replace(batch, spec=replace(batch.spec, spans=(20, 10), empty=(-1.0, None)))
    masked = xy_mask.apply(batch, seeds.stream(0), xy_mask.Params(p=1, stripes=1)).x
    changed, expected = masked != batch.x, torch.full_like(batch.x, -1)
    expected[..., 20:] = batch.x[..., 20:].amin((1, 2, 3), keepdim=True)
    assert torch.equal(masked[changed], expected[changed])
    assert changed[..., :20].any() and changed[..., 20:].any() and not changed.all()
