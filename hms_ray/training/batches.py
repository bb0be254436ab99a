"""Batches are gathered and augmented on the device, many rows at once, without a loader."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from hms_ray.augment._compose import Batch
from hms_ray.datasets import Examples
from hms_ray.store.inputs import Inputs, beside
from hms_ray.tasks import Task


@dataclass(frozen=True)
class TrainingData:
    """What every fold of a configuration is trained on.

    inputs: E examples of N units; examples: of which unit each is
    targets: (N, K), votes: (N,) experts a unit, folds: (N,), groups: (N,) the patients
    trust: (E,) factor of the loss weight, 0: never trained on
    """

    inputs: Inputs
    examples: Examples
    targets: np.ndarray
    votes: np.ndarray
    folds: np.ndarray
    groups: np.ndarray
    trust: np.ndarray
    task: Task

    @property
    def trusted(self) -> np.ndarray:
        """The mask (N,) of the units of which there is an example to train on."""
        return np.bincount(self.examples.unit, self.trust) > 0

    def training_examples(self, units: np.ndarray) -> np.ndarray:
        """Return the examples of those units that may be trained on."""
        examples = self.examples.of(units)
        return examples[self.trust[examples] > 0]

    def to(self, device: torch.device) -> "TrainingData":
        """Move the inputs to a GPU where they leave at least half of the free memory to the model."""
        if device.type != "cuda":
            return self
        torch.cuda.empty_cache()  # what an earlier trial of this process left counts as used otherwise
        if self.inputs.nbytes > torch.cuda.mem_get_info(device)[0] / 2:
            return self
        return replace(self, inputs=self.inputs.to(device))


@dataclass(frozen=True)
class StageBatches:
    """The batches of one stage: the examples that are its rows; targets (N, K) and loss weights (N,) of all units."""

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

        windows: draws each example's window where the run trains on random ones
        part: (i, n): only part i of n, in the order that they all share

        Batches differ by one row at most: a last batch of one or two rows would spoil batch norm.
        """
        number, parts = part
        inside = slice(self.steps_until(number, parts), self.steps_until(number + 1, parts))
        for rows in np.array_split(order.permutation(self.rows), self.steps)[inside]:
            yield self._batch(rows[rank::workers], windows)

    def _batch(self, rows: np.ndarray, windows: np.random.Generator | None = None) -> Batch:
        inputs, units = self.data.inputs, self.data.examples.unit[rows]
        shares = self.targets[units], self.weights[units] * self.data.trust[rows]
        y, weight = (torch.from_numpy(v.astype(np.float32)).to(self.device) for v in shares)
        x, covariates = inputs.batch(rows, self.device, windows), beside(inputs, rows, self.device)
        return Batch(x, y, weight, inputs.spec, owned=True, covariates=covariates)
