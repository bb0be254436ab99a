"""The batch that augmentations change, and their order. Everything happens on the batch's device, many rows at once."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from types import ModuleType

import numpy as np
import torch

from hms_ray.errors import ConfigError
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


def change_some(
    batch: Batch, rng: np.random.Generator, p: float, change: Callable[[torch.Tensor], torch.Tensor]
) -> Batch:
    """Put `change(rows)`, (n, *spec.shape) -> the same, in the place of each row with probability p.

    Only those rows are computed, and a batch in which nothing changes is the batch itself.
    """
    rows = np.flatnonzero(rng.random(len(batch.x)) < p)
    if len(rows) == 0:
        return batch
    index = torch.from_numpy(rows).to(batch.x.device)
    x = batch.x.clone()  # in the memory format that the network wants
    return replace(batch, x=x.index_copy_(0, index, change(batch.x[index])))


def need(holds: bool, name: str, what: str) -> None:
    """Raise the ConfigError "augment.NAME needs ..." of an augmentation that cannot take a feature."""
    if not holds:
        raise ConfigError(f"augment.{name} needs {what}")
