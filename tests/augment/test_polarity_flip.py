"""Waves change their sign, all channels of a row together; images are refused."""

from collections.abc import Callable

import pytest
import torch

from hms_ray.augment import polarity_flip
from hms_ray.augment._compose import Batch
from hms_ray.core import seeds
from hms_ray.core.errors import ConfigError


def test_about_p_of_the_rows_are_negated_whole(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch("wave", rows=2000)
    done = polarity_flip.apply(batch, seeds.stream(0), polarity_flip.Params(p=0.3))
    kept, negated = ((done.x == x).flatten(1).all(1) for x in (batch.x, -batch.x))
    assert (kept ^ negated).all() and negated.float().mean().item() == pytest.approx(0.3, abs=0.05)
    assert done.y is batch.y and done.weight is batch.weight


def test_the_variant_negates_every_row(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch("wave")
    assert torch.equal(polarity_flip.variant(batch.x, batch.spec), -batch.x)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_images_are_refused(make_batch: Callable[..., Batch], p: float) -> None:
    batch = make_batch("stack")
    with pytest.raises(ConfigError, match=r"augment\.polarity_flip needs waves"):
        polarity_flip.apply(batch, seeds.stream(0), polarity_flip.Params(p=p))
    with pytest.raises(ConfigError, match=r"augment\.polarity_flip needs waves"):
        polarity_flip.variant(batch.x, batch.spec)
