"""Generalised means: known answers, and the layouts of timm."""

import pytest
import torch

from hms_ray.models._pooling import GeM


def _x() -> torch.Tensor:
    return torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)) + 0.1


def test_power_one_is_the_mean_and_a_large_one_the_maximum() -> None:
    torch.testing.assert_close(GeM(1.0)(_x()), _x().mean((2, 3)))
    torch.testing.assert_close(GeM(300.0)(_x().double()), _x().double().amax((2, 3)), rtol=0.02, atol=0)


def test_power_three_by_hand() -> None:
    x = torch.tensor([1.0, 2.0, 3.0, 0.0]).view(1, 1, 2, 2)
    torch.testing.assert_close(GeM()(x), torch.tensor([[(36 / 4) ** (1 / 3)]]))


def test_what_is_negative_counts_as_nothing_and_breaks_no_gradient() -> None:
    pool, x = GeM(), (-_x()).requires_grad_()
    pool(x).sum().backward()
    assert torch.isfinite(pool.p.grad).all() and torch.isfinite(x.grad).all()


@pytest.mark.parametrize("keepdim", [False, True])
def test_channels_may_come_last(keepdim: bool) -> None:
    first = GeM(keepdim=keepdim)(_x())
    last = GeM(dims=(1, 2), keepdim=keepdim)(_x().permute(0, 2, 3, 1))
    torch.testing.assert_close(last.flatten(1), first.flatten(1))
    assert last.shape == ((2, 1, 1, 3) if keepdim else (2, 3))


def test_half_precision_is_pooled_in_full() -> None:
    pooled = GeM()(_x().bfloat16())
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled, GeM()(_x()), rtol=0.01, atol=0)
