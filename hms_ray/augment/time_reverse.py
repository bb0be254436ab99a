"""Play the recording backwards; the votes name no direction (Rommel et al., 2022, arXiv:2206.14483)."""

import numpy as np
import torch
from pydantic import Field

from hms_ray.augment._compose import Batch, change_some, need_signal, need_unfolded
from hms_ray.core.params import Params as Strict
from hms_ray.core.specs import InputSpec


class Params(Strict):
    """How often."""

    p: float = Field(0.5, ge=0, le=1, description="share of the rows that are reversed")


def apply(batch: Batch, rng: np.random.Generator, params: Params) -> Batch:
    """Reverse rows (C, F, T) or (C, T) along T, each picture in its place."""
    need_signal(batch.spec, "time_reverse")
    need_unfolded(batch.spec, "time_reverse")
    return change_some(batch, rng, params.p, lambda x: variant(x, batch.spec))


def variant(x: torch.Tensor, spec: InputSpec) -> torch.Tensor:
    """Reverse every row of x (B, *spec.shape)."""
    need_signal(spec, "time_reverse")
    need_unfolded(spec, "time_reverse")
    return torch.cat([x[..., picture].flip(-1) for picture in spec.pictures], -1)
