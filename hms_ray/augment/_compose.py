"""The batch that augmentations change, and their order. Everything happens on the batch's device, many rows at once."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from hms_ray.contracts import Augmentation
from hms_ray.core.errors import ConfigError
from hms_ray.core.params import Params
from hms_ray.core.specs import Batch, InputSpec, Panels

__all__ = [
    "Batch",
    "apply_all",
    "blank",
    "change_some",
    "need",
    "need_panels",
    "need_signal",
    "need_unfolded",
    "put",
    "select",
]


@runtime_checkable
class _WithShare(Protocol):
    p: float


def apply_all(batch: Batch, rng: np.random.Generator, recipe: Iterable[tuple[Augmentation, Params]]) -> Batch:
    """Apply each augmentation in its order; one with p 0 is none, whatever it would need.

    `rng` draws the few decisions (which rows, how much) on the CPU: the same seed augments alike on every device.
    """
    for module, params in recipe:
        assert isinstance(params, _WithShare), "the parameters of an augmentation have the share p"
        if params.p > 0:
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
    return put(batch, rows, change(select(batch.x, rows)))


def select(x: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
    """Return a copy of those rows of x."""
    return x.index_select(0, torch.from_numpy(rows).to(x.device))


def put(batch: Batch, rows: np.ndarray, values: torch.Tensor) -> Batch:
    """Return the batch with `values` (n, *spec.shape) in the place of those rows of x, in the memory format of x."""
    x = batch.x if batch.owned else batch.x.clone()
    for row, value in zip(rows.tolist(), values, strict=True):  # on a CPU several times as fast as index_copy_
        x[row] = value
    return replace(batch, x=x, owned=True)


def blank(x: torch.Tensor, lost: torch.Tensor, empty: torch.Tensor | float) -> torch.Tensor:
    """Put what means "no signal here" into x (n, ...) where `lost`, which broadcasts to it, is true; in place.

    empty: as `InputSpec.empty_values` has it
    """
    x.mul_((~lost).to(x))
    return x if isinstance(empty, float) and empty == 0 else x.add_(lost.to(x) * empty)


def need_panels(spec: InputSpec, name: str, what: str) -> Panels:
    """Return the panels of a feature that names them; raise ConfigError for one that does not."""
    if spec.panels is None:
        raise ConfigError(f"augment.{name} needs {what}; this one names none")
    return spec.panels


def need_signal(spec: InputSpec, name: str) -> None:
    """Raise ConfigError for embeddings: their last axis is no time, and 0 is not the mean of what they hold."""
    need(spec.layout != "embedding", name, "images or waves; the numbers of an embedding have no order")


def need_unfolded(spec: InputSpec, name: str) -> None:
    """Raise ConfigError where time does not run along T alone: flipped or stretched, waves would fall to pieces."""
    need(not spec.folded, name, "an image whose rows are frequencies; this one's are steps of a folded wave")


def need(holds: bool, name: str, what: str) -> None:
    """Raise the ConfigError "augment.NAME needs ..." of an augmentation that cannot take a feature."""
    if not holds:
        raise ConfigError(f"augment.{name} needs {what}")
