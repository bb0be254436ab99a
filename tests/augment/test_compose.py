"""Augmentations one after another, from one stream of numbers."""

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import torch

from hms_ray.augment import flip_frequency, mirror_sides, mixup, time_reverse, xy_mask, zoom_time
from hms_ray.augment._compose import Batch, apply_all, change_some, need, put
from hms_ray.core import seeds
from hms_ray.core.errors import ConfigError
from hms_ray.features import raw_image

RECIPE = ((mirror_sides, mirror_sides.Params()), (xy_mask, xy_mask.Params()), (mixup, mixup.Params()))


def test_nothing_to_apply_is_the_batch_itself(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch()
    assert apply_all(batch, seeds.stream(0), ()) is batch


def test_the_order_is_kept(make_batch: Callable[..., Batch]) -> None:
    batch, rng = make_batch(), seeds.stream(0)
    by_hand = batch
    for module, params in RECIPE:
        by_hand = module.apply(by_hand, rng, params)
    assert torch.equal(apply_all(batch, seeds.stream(0), RECIPE).x, by_hand.x)
    assert not torch.equal(apply_all(batch, seeds.stream(0), RECIPE[::-1]).x, by_hand.x)


def test_torchs_own_generator_is_neither_used_nor_moved(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch()
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        before = torch.get_rng_state()
        results.append(apply_all(batch, seeds.stream(0), RECIPE).x)
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*results)


def test_only_the_chosen_rows_are_computed_and_changed(make_batch: Callable[..., Batch]) -> None:
    batch, seen = make_batch("wave", rows=2000), []

    def negated(x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return -x

    done = change_some(batch, seeds.stream(0), 0.3, negated)
    changed = (done.x == -batch.x).flatten(1).all(1)
    assert seen == [changed.sum()] and changed.float().mean().item() == pytest.approx(0.3, abs=0.05)
    assert torch.equal(done.x[~changed], batch.x[~changed])
    assert done.y is batch.y and done.weight is batch.weight


def test_a_batch_without_chosen_rows_is_not_copied(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch()
    assert change_some(batch, seeds.stream(0), 0, torch.neg) is batch
    assert mixup.apply(batch, seeds.stream(0), mixup.Params(p=0)) is batch


def test_only_a_batch_that_owns_its_x_is_written_to(make_batch: Callable[..., Batch]) -> None:
    batch, rows = make_batch(), np.array([0, 2])
    done = put(batch, rows, torch.zeros_like(batch.x[rows]))
    assert done.x is not batch.x and done.owned and not (batch.x[rows] == 0).any()
    assert put(done, rows, batch.x[rows]).x is done.x, "no second copy"
    assert torch.equal(done.x, batch.x)


def test_a_need_is_worded_with_the_name() -> None:
    need(True, "zoom_time", "time")
    with pytest.raises(ConfigError, match=r"^augment\.zoom_time needs time$"):
        need(False, "zoom_time", "time")


@pytest.mark.parametrize("module", [time_reverse, zoom_time, flip_frequency])
def test_a_folded_wave_is_neither_flipped_nor_stretched(module: ModuleType) -> None:
    """Its rows are steps: a block of them would run forwards in a wave that runs backwards."""
    spec = raw_image.spec(raw_image.Params())
    batch = Batch(torch.zeros(2, *spec.shape), torch.ones(2, 6) / 6, torch.ones(2), spec)
    with pytest.raises(ConfigError, match=r"needs an image whose rows are frequencies"):
        module.apply(batch, seeds.stream(0), module.Params(p=0))
