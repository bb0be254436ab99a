"""Mirror the brain: swap the left and right panels or channels; the votes name no side."""

from dataclasses import replace

import numpy as np
import torch
from pydantic import Field

from hms_ray.augment._compose import Batch, chosen
from hms_ray.errors import ConfigError
from hms_ray.params import Params as Strict


class Params(Strict):
    """How often."""

    p: float = Field(0.5, ge=0, le=1, description="share of the rows that are mirrored")


def apply(batch: Batch, rng: np.random.Generator, params: Params) -> Batch:
    """Put each left panel where its right twin was and the reverse, (B, C, F, T) or (B, C, T)."""
    panels = batch.spec.panels
    if panels is None:
        raise ConfigError("augment.mirror_sides needs a feature whose panels have sides; this one names none")
    blocks = batch.x.unflatten(batch.spec.axis(panels.axis), (len(panels.names), -1))
    axis = batch.spec.axis(panels.axis) - 1  # of the panel, counted from the end as spec.axis does
    order = torch.tensor(panels.mirrored(), device=batch.x.device)
    mirrored = blocks.index_select(axis, order).reshape(batch.x.shape)
    return replace(batch, x=torch.where(chosen(batch, rng, params.p), mirrored, batch.x))
