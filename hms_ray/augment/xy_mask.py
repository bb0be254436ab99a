"""XY masking: blank a few stripes of frequency and of time (SpecAugment, Park et al., 2019, arXiv:1904.08779)."""

import numpy as np
import torch
from pydantic import Field

from hms_ray.augment._compose import Batch, blank, change_some, need_signal
from hms_ray.core.params import Params as Strict
from hms_ray.core.specs import InputSpec


class Params(Strict):
    """How often, how many stripes, how wide."""

    p: float = Field(0.5, ge=0, le=1, description="share of the rows that are masked")
    stripes: int = Field(3, ge=1, le=16, description="at most so many stripes an axis")
    width: float = Field(1 / 16, gt=0, le=0.5, description="a stripe's largest share of its axis")


def apply(batch: Batch, rng: np.random.Generator, params: Params) -> Batch:
    """Empty stripes along every axis but the channels: they hold what a gap does, `InputSpec.empty`."""
    need_signal(batch.spec, "xy_mask")
    return change_some(batch, rng, params.p, lambda x: _masked(x, batch.spec, rng, params))


def _masked(x: torch.Tensor, spec: InputSpec, rng: np.random.Generator, params: Params) -> torch.Tensor:
    """Mask rows (n, ...) in place, an axis at a time: no mask is as large as they are."""
    empty = spec.empty_values(x)
    for axis in range(2, x.ndim):
        lost = _stripes(rng, len(x), x.shape[axis], params)
        shape = [1] * x.ndim
        shape[0], shape[axis] = lost.shape
        blank(x, torch.from_numpy(lost).to(x.device).view(shape), empty)
    return x


def _stripes(rng: np.random.Generator, rows: int, length: int, params: Params) -> np.ndarray:
    """Return (rows, length), true inside 1 ... `stripes` stripes of random place and width."""
    shape = (rows, params.stripes, 1)
    width = rng.integers(1, max(1, round(params.width * length)) + 1, shape)
    used = np.arange(params.stripes)[:, None] < rng.integers(1, params.stripes + 1, (rows, 1, 1))
    start = rng.integers(0, length - width + 1)
    position = np.arange(length)
    return np.any(used & (position >= start) & (position < start + width), axis=1)
