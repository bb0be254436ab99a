"""Mirror the brain: swap the left and right panels or channels; the votes name no side."""

import numpy as np
import torch
from pydantic import Field

from hms_ray.augment._compose import Batch, change_some, need_panels
from hms_ray.core.params import Params as Strict
from hms_ray.core.specs import InputSpec

SIDES = "a feature whose panels have sides"


class Params(Strict):
    """How often."""

    p: float = Field(0.5, ge=0, le=1, description="share of the rows that are mirrored")


def apply(batch: Batch, rng: np.random.Generator, params: Params) -> Batch:
    """Put each left panel where its right twin was and the reverse, (B, C, F, T) or (B, C, T).

    Examples that are the same for both sides, such as statistics over all panels, stay as they are.
    """
    if batch.spec.symmetric:
        return batch
    need_panels(batch.spec, "mirror_sides", SIDES)
    return change_some(batch, rng, params.p, lambda x: variant(x, batch.spec))


def variant(x: torch.Tensor, spec: InputSpec) -> torch.Tensor:
    """Mirror every row of x (B, *spec.shape); x itself where the mirrored rows are the same."""
    if spec.symmetric:
        return x
    panels = need_panels(spec, "mirror_sides", SIDES)
    blocks = x.unflatten(spec.axis(panels.axis), (len(panels.names), -1))
    axis = spec.axis(panels.axis) - 1  # of the panel, counted from the end as spec.axis does
    order = torch.tensor(panels.mirrored(), device=x.device)
    return blocks.index_select(axis, order).reshape(x.shape)
