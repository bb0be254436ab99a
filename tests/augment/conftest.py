"""Batches to augment."""

from collections.abc import Callable

import pytest
import torch

from hms_ray.augment._compose import Batch
from hms_ray.core.specs import InputSpec, Panels

PANELS = ("LL", "LP", "RL", "RP")


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    """The function make_batch(arrange="stack", rows=64): random images without zeros, random targets and weights."""

    def make(arrange: str = "stack", rows: int = 64) -> Batch:
        shape = {"stack": (1, 48, 30), "channels": (4, 12, 30), "wave": (4, 50)}[arrange]
        layout, axis = ("wave", "C") if arrange == "wave" else ("image", "F" if arrange == "stack" else "C")
        spec = InputSpec(layout, shape, 0.5, Panels(axis, PANELS))
        generator = torch.Generator().manual_seed(0)
        x = torch.rand((rows, *shape), generator=generator) + 1
        y = torch.rand((rows, 6), generator=generator)
        return Batch(x, y / y.sum(1, keepdim=True), torch.rand(rows, generator=generator) + 0.5, spec)

    return make
