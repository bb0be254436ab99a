"""Stretch or squeeze time: the same pattern, slower or faster (after Um et al., 2017, arXiv:1706.00527)."""

import numpy as np
import torch
from pydantic import Field

from hms_ray.augment._compose import Batch, change_some, need_signal, need_unfolded
from hms_ray.core.params import Params as Strict
from hms_ray.core.specs import InputSpec


class Params(Strict):
    """How often and how far."""

    p: float = Field(0.5, ge=0, le=1, description="share of the rows that are zoomed")
    most: float = Field(0.25, gt=0, le=0.5, description="the factor is drawn from 1 - most to 1 + most")


def apply(batch: Batch, rng: np.random.Generator, params: Params) -> Batch:
    """Zoom rows (C, F, T) or (C, T) along T, each by a factor of its own."""
    need_signal(batch.spec, "zoom_time")
    need_unfolded(batch.spec, "zoom_time")

    def change(x: torch.Tensor) -> torch.Tensor:
        factor = rng.uniform(1 - params.most, 1 + params.most, len(x))
        return zoomed(x, batch.spec, torch.from_numpy(factor).to(x.device, torch.float32))

    return change_some(batch, rng, params.p, change)


def zoomed(x: torch.Tensor, spec: InputSpec, factor: torch.Tensor) -> torch.Tensor:
    """Return x (n, *spec.shape) stretched by factor (n,) about the centre of each picture; empty where nothing was."""
    centre, half = (torch.from_numpy(v).to(x.device) for v in _frames(spec))
    offset = (torch.arange(len(centre), device=x.device) - centre) / factor[:, None]  # (n, T) of the source
    inside = offset.abs() <= half + 1e-3  # a thousandth of a step, for rounding
    source = (centre + offset.clamp(-half, half)).view(len(x), *[1] * (x.ndim - 2), -1)
    left, right = (x.take_along_dim(place.long(), -1) for place in (source.floor(), source.ceil()))
    return torch.where(inside.view(source.shape), left.lerp(right, source.frac().to(x)), spec.empty_values(x))


def _frames(spec: InputSpec) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each step (T,), the centre of its picture and half the distance between the picture's ends."""
    ends = np.array([(picture.start, picture.stop - 1) for picture in spec.pictures], np.float32)
    frames = np.repeat(ends, [picture.stop - picture.start for picture in spec.pictures], axis=0)
    return frames.mean(1), (frames[:, 1] - frames[:, 0]) / 2
