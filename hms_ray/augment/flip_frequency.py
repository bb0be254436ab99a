"""Turn images upside down: low frequencies where high ones were, as image models are often trained."""

import numpy as np
import torch
from pydantic import Field

from hms_ray.augment._compose import Batch, change_some, need, need_unfolded
from hms_ray.core.params import Params as Strict
from hms_ray.core.specs import InputSpec


class Params(Strict):
    """How often."""

    p: float = Field(0.5, ge=0, le=1, description="share of the rows that are turned over")


def apply(batch: Batch, rng: np.random.Generator, params: Params) -> Batch:
    """Reverse rows (C, F, T) along F, each panel in its place."""
    _check(batch.spec)
    return change_some(batch, rng, params.p, lambda x: variant(x, batch.spec))


def variant(x: torch.Tensor, spec: InputSpec) -> torch.Tensor:
    """Reverse F of every row of x (B, C, F, T): inside each panel where panels lie along F, else as a whole."""
    _check(spec)
    blocks = len(spec.panels.names) if spec.panels is not None and spec.panels.axis == "F" else 1
    panels = x.unflatten(-2, (blocks, -1))  # (B, C, panels, frequencies, T)
    return panels.flip(-2).reshape(x.shape)


def _check(spec: InputSpec) -> None:
    need(spec.layout == "image", "flip_frequency", "images; others have no axis of frequencies")
    need_unfolded(spec, "flip_frequency")
