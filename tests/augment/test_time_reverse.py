"""Time runs backwards inside each picture, and nothing else moves."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from hms_ray.augment import time_reverse
from hms_ray.augment._compose import Batch
from hms_ray.core import seeds
from hms_ray.core.specs import InputSpec


def test_the_last_step_comes_first() -> None:
    x = torch.tensor([[[1.0, 2, 3, 4], [5, 6, 7, 8]]])
    assert time_reverse.variant(x, InputSpec("wave", (2, 4), 1.0)).tolist() == [[[4, 3, 2, 1], [8, 7, 6, 5]]]


def test_each_picture_stays_in_its_place() -> None:
    x = torch.arange(7.0).expand(2, 1, 3, 7)
    spec = InputSpec("image", (1, 3, 7), 1.0, spans=(4, 2, 1))
    assert time_reverse.variant(x, spec)[1, 0, 2].tolist() == [3, 2, 1, 0, 5, 4, 6]


@pytest.mark.parametrize("arrange", ["stack", "channels", "wave"])
def test_about_p_of_the_rows_and_each_of_them_whole(make_batch: Callable[..., Batch], arrange: str) -> None:
    batch = make_batch(arrange, rows=1000)
    batch = replace(batch, x=batch.x[..., :6], spec=replace(batch.spec, shape=(*batch.spec.shape[:-1], 6)))
    done = time_reverse.apply(batch, seeds.stream(0), time_reverse.Params(p=0.3))
    kept = (done.x == batch.x).flatten(1).all(1)
    reversed_ = (done.x == batch.x.flip(-1)).flatten(1).all(1)
    assert (kept ^ reversed_).all() and reversed_.float().mean().item() == pytest.approx(0.3, abs=0.07)
    assert done.y is batch.y and done.weight is batch.weight
