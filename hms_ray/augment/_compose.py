"""The batch that augmentations change, and their order. Everything happens on the batch's device, many rows at once."""

from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch

from hms_ray.params import Params
from hms_ray.specs import InputSpec


@dataclass(frozen=True)
class Batch:
    """x (B, *spec.shape), y (B, K) targets, weight (B,) loss weights."""

    x: torch.Tensor
    y: torch.Tensor
    weight: torch.Tensor
    spec: InputSpec


def apply_all(batch: Batch, rng: np.random.Generator, recipe: Iterable[tuple[ModuleType, Params]]) -> Batch:
    """Apply each augmentation in its order.

    `rng` draws the few decisions (which rows, how much) on the CPU: the same seed augments alike on every device.
    """
    for module, params in recipe:
        batch = module.apply(batch, rng, params)
    return batch


def chosen(batch: Batch, rng: np.random.Generator, p: float) -> torch.Tensor:
    """Return a mask (B, 1, ...) that is true for each row with probability p and broadcasts over x."""
    mask = torch.from_numpy(rng.random(len(batch.x)) < p).to(batch.x.device)
    return mask.view(-1, *[1] * (batch.x.ndim - 1))
