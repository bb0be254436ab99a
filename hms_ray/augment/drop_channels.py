"""Silence a few panels or channels, as loose electrodes do (Saeed et al., 2020, arXiv:2010.13694)."""

import numpy as np
import torch
from pydantic import Field

from hms_ray.augment._compose import Batch, blank, change_some, need
from hms_ray.core.params import Params as Strict
from hms_ray.core.specs import InputSpec


class Params(Strict):
    """How often and how many."""

    p: float = Field(0.5, ge=0, le=1, description="share of the rows that lose some")
    most: float = Field(0.5, gt=0, lt=1, description="the largest share of the panels that a row loses; one at least")


def apply(batch: Batch, rng: np.random.Generator, params: Params) -> Batch:
    """Empty 1 ... `most` of the panels of rows (C, F, T) or (C, T); waves without panels lose channels.

    They become what the feature makes of channels without contact: `InputSpec.empty`.
    """
    axis, count = _blocks(batch.spec)
    most = max(1, int(params.most * count))
    return change_some(batch, rng, params.p, lambda x: _silenced(x, batch.spec, axis, _lost(rng, len(x), count, most)))


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


def _silenced(x: torch.Tensor, spec: InputSpec, axis: int, lost: np.ndarray) -> torch.Tensor:
    """Empty the lost blocks (n, count) of x (n, *spec.shape) along the axis, in place."""
    shape = [1] * x.ndim
    shape[0], shape[axis] = len(x), x.shape[axis]
    size = x.shape[axis] // lost.shape[1]
    return blank(x, torch.from_numpy(lost.repeat(size, 1)).to(x.device).view(shape), spec.empty_values(x))
