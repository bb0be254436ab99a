"""Silence a few panels or channels, as loose electrodes do (Saeed et al., 2020, arXiv:2010.13694)."""

import numpy as np
import torch
from pydantic import Field

from hms_ray.augment._compose import Batch, change_some, need
from hms_ray.params import Params as Strict
from hms_ray.specs import InputSpec


class Params(Strict):
    """How often and how many."""

    p: float = Field(0.5, ge=0, le=1, description="share of the rows that lose some")
    most: float = Field(0.5, gt=0, lt=1, description="the largest share of the panels that a row loses; one at least")


def apply(batch: Batch, rng: np.random.Generator, params: Params) -> Batch:
    """Set 1 ... `most` of the panels of rows (C, F, T) or (C, T) to 0; waves without panels lose channels."""
    axis, count = _blocks(batch.spec)
    most = max(1, int(params.most * count))
    return change_some(batch, rng, params.p, lambda x: _silenced(x, axis, _lost(rng, len(x), count, most)))


def _blocks(spec: InputSpec) -> tuple[int, int]:
    """Return the axis along which the blocks lie, and how many they are."""
    panels = spec.panels
    need(spec.layout == "wave" or panels is not None, "drop_channels", "waves or panels; this feature names no panels")
    axis = spec.axis(panels.axis if panels else "C")
    count = len(panels.names) if panels else spec.shape[axis]
    need(count > 1, "drop_channels", "two panels or channels at least")
    return axis, count


def _lost(rng: np.random.Generator, rows: int, count: int, most: int) -> np.ndarray:
    """Return (rows, count), true for 1 ... `most` random blocks of each row."""
    rank = rng.permuted(np.tile(np.arange(count), (rows, 1)), axis=1)
    return rank < rng.integers(1, most + 1, (rows, 1))


def _silenced(x: torch.Tensor, axis: int, lost: np.ndarray) -> torch.Tensor:
    """Return x (n, *spec.shape) with 0 in the lost blocks (n, count) along the axis."""
    blocks = x.unflatten(axis, (lost.shape[1], -1))
    shape = [1] * blocks.ndim
    shape[0], shape[axis - 1] = lost.shape
    return blocks.masked_fill(torch.from_numpy(lost).to(x.device).view(shape), 0).reshape(x.shape)
