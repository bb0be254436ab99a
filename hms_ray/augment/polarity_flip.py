"""Turn waves upside down: a pair of electrodes has no natural sign (Rommel et al., 2022, arXiv:2206.14483)."""

import numpy as np
import torch
from pydantic import Field

from hms_ray.augment._compose import Batch, change_some, need
from hms_ray.core.params import Params as Strict
from hms_ray.core.specs import InputSpec


class Params(Strict):
    """How often."""

    p: float = Field(0.5, ge=0, le=1, description="share of the rows that are turned over")


def apply(batch: Batch, rng: np.random.Generator, params: Params) -> Batch:
    """Negate rows (C, T), all channels together."""
    _check(batch.spec)
    return change_some(batch, rng, params.p, torch.neg)


def variant(x: torch.Tensor, spec: InputSpec) -> torch.Tensor:
    """Negate every row of x (B, C, T)."""
    _check(spec)
    return -x


def _check(spec: InputSpec) -> None:
    need(spec.layout == "wave", "polarity_flip", "waves; the power that an image shows has no polarity")
