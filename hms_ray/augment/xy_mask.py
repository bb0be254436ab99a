"""XY masking: blank a few stripes of frequency and of time (SpecAugment, Park et al., 2019, arXiv:1904.08779)."""

from dataclasses import replace

import numpy as np
import torch
from pydantic import Field

from hms_ray.augment._compose import Batch, chosen
from hms_ray.params import Params as Strict


class Params(Strict):
    """How often, how many stripes, how wide."""

    p: float = Field(0.5, ge=0, le=1, description="share of the rows that are masked")
    stripes: int = Field(3, ge=1, le=16, description="at most so many stripes an axis")
    width: float = Field(1 / 16, gt=0, le=0.5, description="a stripe's largest share of its axis")


def apply(batch: Batch, rng: np.random.Generator, params: Params) -> Batch:
    """Set stripes along every axis but the channels to 0, the mean of a standardised image."""
    masked = torch.zeros((), dtype=torch.bool, device=batch.x.device)
    for axis in range(2, batch.x.ndim):
        stripes = torch.from_numpy(_stripes(rng, len(batch.x), batch.x.shape[axis], params)).to(batch.x.device)
        shape = [1] * batch.x.ndim
        shape[0], shape[axis] = stripes.shape
        masked = masked | stripes.view(shape)
    return replace(batch, x=batch.x.clone().masked_fill_(masked & chosen(batch, rng, params.p), 0))


def _stripes(rng: np.random.Generator, rows: int, length: int, params: Params) -> np.ndarray:
    """Return (rows, length), true inside 1 ... `stripes` stripes of random place and width."""
    shape = (rows, params.stripes, 1)
    width = rng.integers(1, max(1, round(params.width * length)) + 1, shape)
    used = np.arange(params.stripes)[:, None] < rng.integers(1, params.stripes + 1, (rows, 1, 1))
    start = rng.integers(0, length - width + 1)
    position = np.arange(length)
    return (used & (position >= start) & (position < start + width)).any(1)
