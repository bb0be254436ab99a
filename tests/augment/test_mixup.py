"""Mixup blends x, y and the weight of two rows by one and the same share."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from hms_ray.augment import mixup
from hms_ray.augment._compose import Batch
from hms_ray.core import seeds

ALWAYS = mixup.Params(p=1, alpha=0.4)


def _numbered(batch: Batch) -> Batch:
    """Row i is i everywhere in x, one-hot i in y, and weighs 10 i."""
    number = torch.arange(len(batch.x), dtype=torch.float32)
    x = torch.ones_like(batch.x) * number.view(-1, *[1] * (batch.x.ndim - 1))
    return replace(batch, x=x, y=torch.eye(len(batch.x)), weight=10 * number)


@pytest.mark.parametrize("arrange", ["stack", "wave"])
def test_x_y_and_weight_are_blended_by_the_same_share(make_batch: Callable[..., Batch], arrange: str) -> None:
    mixed = mixup.apply(_numbered(make_batch(arrange, rows=50)), seeds.stream(0), ALWAYS)
    assert ((mixed.y > 0).sum(1) <= 2).all(), "two rows at most"
    blended = mixed.y @ torch.arange(50.0)  # share * i + (1 - share) * partner
    torch.testing.assert_close(
        mixed.x.flatten(1), blended[:, None].expand(-1, mixed.x[0].numel()), rtol=1e-5, atol=1e-4
    )
    torch.testing.assert_close(mixed.weight, 10 * blended, rtol=1e-5, atol=1e-3)
    assert ((mixed.y > 0).sum(1) == 2).sum() > 40


def test_targets_keep_their_sum(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch()
    mixed = mixup.apply(batch, seeds.stream(0), ALWAYS)
    torch.testing.assert_close(mixed.y.sum(1), torch.ones(64))
    assert (mixed.y >= 0).all() and (mixed.y != batch.y).any()


def test_about_p_of_the_rows(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch("wave", rows=2000)
    mixed = mixup.apply(batch, seeds.stream(0), mixup.Params(p=0.3, alpha=1))
    changed = (mixed.x != batch.x).flatten(1).any(1)
    assert changed.float().mean().item() == pytest.approx(0.3, abs=0.05)
    assert torch.equal(mixed.y[~changed], batch.y[~changed])


def test_the_share_follows_the_beta_law(make_batch: Callable[..., Batch]) -> None:
    alpha = 0.4
    mixed = mixup.apply(_numbered(make_batch("wave", rows=3000)), seeds.stream(0), mixup.Params(p=1, alpha=alpha))
    share = mixed.y.diagonal().numpy()
    assert share.mean() == pytest.approx(0.5, abs=0.04)
    assert share.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.06)


@pytest.mark.parametrize("alpha", [1e-300, 1e-3, 10])
def test_every_allowed_alpha_gives_numbers(make_batch: Callable[..., Batch], alpha: float) -> None:
    mixed = mixup.apply(make_batch(), seeds.stream(0), mixup.Params(p=1, alpha=alpha))
    assert torch.isfinite(mixed.x).all() and torch.isfinite(mixed.y).all() and torch.isfinite(mixed.weight).all()


def test_one_row_is_its_own_partner(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch(rows=1)
    torch.testing.assert_close(mixup.apply(batch, seeds.stream(0), ALWAYS).x, batch.x)


def test_the_share_is_of_the_seed_and_not_of_the_type(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch()
    half = mixup.apply(replace(batch, x=batch.x.half()), seeds.stream(0), ALWAYS)
    full = mixup.apply(batch, seeds.stream(0), ALWAYS)
    assert half.x.dtype == torch.float16 and half.y.dtype == torch.float32
    np.testing.assert_allclose(half.y, full.y, atol=1e-3)
