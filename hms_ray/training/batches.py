"""Batches are gathered and augmented on the device, many rows at once, without a loader."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from hms_ray.augment._compose import Batch
from hms_ray.store.inputs import Inputs
from hms_ray.tasks import Task


@dataclass(frozen=True)
class TrainingData:
    """What every fold of a configuration is trained on.

    inputs: the examples of N units
    targets: (N, K), votes: (N,) experts a unit, folds: (N,), groups: (N,) the patients
    trust: (N,) factor of the loss weight, 0: never trained on
    """

    inputs: Inputs
    targets: np.ndarray
    votes: np.ndarray
    folds: np.ndarray
    groups: np.ndarray
    trust: np.ndarray
    task: Task

    def to(self, device: torch.device) -> "TrainingData":
        """Move the inputs to a GPU where they leave at least half of the free memory to the model."""
        if device.type != "cuda":
            return self
        torch.cuda.empty_cache()  # what an earlier trial of this process left counts as used otherwise
        if self.inputs.nbytes > torch.cuda.mem_get_info(device)[0] / 2:
            return self
        return replace(self, inputs=self.inputs.to(device))


@dataclass(frozen=True)
class Epochs:
    """The batches of one stage: its rows, and targets (N, K) and loss weights (N,) of all units."""

    data: TrainingData
    rows: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    size: int
    device: torch.device

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return -(-len(self.rows) // self.size)

    @property
    def smallest(self) -> int:
        """Rows of the smallest batch."""
        return len(self.rows) // self.steps

    def largest(self, workers: int) -> Batch:
        """Return a share of as many rows as any worker gets, as they are, to try the memory with."""
        count = -(-len(self.rows) // self.steps)
        return self._batch(self.rows[: -(-count // workers)])

    def steps_until(self, part: int, parts: int) -> int:
        """Return how many batches of an epoch lie before one of its `parts`."""
        return self.steps * part // parts

    def batches(
        self,
        order: np.random.Generator,
        windows: np.random.Generator,
        rank: int = 0,
        workers: int = 1,
        part: tuple[int, int] = (0, 1),
    ) -> Iterator[Batch]:
        """Yield one epoch in random order; each of several workers gets its share of every batch.

        windows: draws each unit's window where the run trains on random ones
        part: (i, n): only part i of n, in the order that they all share

        Batches differ by one row at most: a last batch of one or two rows would spoil batch norm.
        """
        number, parts = part
        inside = slice(self.steps_until(number, parts), self.steps_until(number + 1, parts))
        for rows in np.array_split(order.permutation(self.rows), self.steps)[inside]:
            yield self._batch(rows[rank::workers], windows)

    def _batch(self, rows: np.ndarray, windows: np.random.Generator | None = None) -> Batch:
        y, weight = (torch.from_numpy(v[rows].astype(np.float32)).to(self.device) for v in (self.targets, self.weights))
        x = self.data.inputs.batch(rows, self.device, windows)
        return Batch(x, y, weight, self.data.inputs.spec, owned=True)
