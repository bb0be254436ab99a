"""What a driver sends to workers, and what they send back.

Imports no torch: processes that only hand it on should start at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hms_ray.store.share import StoreRef

if TYPE_CHECKING:
    from hms_ray.training.run_config import RunConfig


@dataclass(frozen=True)
class FoldJob:
    """One fold of one trial.

    run: without published weights; stores: what it reads; saved: the checkpoint's file

    weights: the published ones from which the network begins; None: random ones
    prune_thresholds: after epoch i the fold stops if its held-out score lies above threshold i; empty: it never does
    """

    trial: str
    run: RunConfig
    fold: int
    stores: tuple[StoreRef, ...]
    saved: Path
    weights: StoreRef | None = None
    prune_thresholds: tuple[float, ...] = ()

    @property
    def effort(self) -> int:
        """Epochs of the fold with those of its teachers."""
        return self.run.effort

    @property
    def reads(self) -> tuple[StoreRef, ...]:
        """All that its worker must have on its node."""
        return self.stores if self.weights is None else (*self.stores, self.weights)


@dataclass(frozen=True)
class FoldResult:
    """A finished fold.

    probs: (epochs, len(rows), K) of the held-out rows after each epoch, on the first worker alone; NaN of rows that are
        not scored but after the last epoch
    weights: of each epoch that may be chosen, the file on this machine that holds the packed weights
    epochs: one dict an epoch
    peak_gpu_bytes, gpu_bytes: the most that it took of its GPU, and the GPU's size; 0 on a CPU
    out_of_memory: the memory did not suffice, and batches were trained in parts
    """

    fold: int
    rows: np.ndarray
    probs: np.ndarray
    epochs: list[dict[str, Any]]
    weights: Mapping[int, Path] = field(default_factory=dict)
    peak_gpu_bytes: int = 0
    gpu_bytes: int = 0
    out_of_memory: bool = False


@dataclass(frozen=True)
class PredictionJob:
    """Predict the units of a finished fold that are not scored, after the epoch that was chosen for it.

    run, stores: as in FoldJob; weights: packed, after that epoch
    """

    trial: str
    run: RunConfig
    fold: int
    stores: tuple[StoreRef, ...]
    epoch: int
    weights: bytes


@dataclass(frozen=True)
class FoldStopped:
    """A fold that was stopped after an epoch whose score was above the limit; fields as in FoldResult."""

    fold: int
    epochs: list[dict[str, Any]]
    peak_gpu_bytes: int = 0
    gpu_bytes: int = 0
    out_of_memory: bool = False
