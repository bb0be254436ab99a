"""All examples as one contiguous tensor; batches are gathered and augmented on the device, without a loader."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from hms_ray.augment._compose import Batch
from hms_ray.specs import InputSpec
from hms_ray.tasks import Task


@dataclass(frozen=True)
class TrainingData:
    """What every fold of a configuration is trained on.

    x: (N, *spec.shape), targets: (N, K), votes: (N,) experts a unit, folds: (N,)
    """

    x: torch.Tensor
    targets: np.ndarray
    votes: np.ndarray
    folds: np.ndarray
    spec: InputSpec
    task: Task

    def to(self, device: torch.device) -> "TrainingData":
        """Move x to a GPU where it leaves at least half of the free memory to the model; it stays put otherwise."""
        size = self.x.numel() * self.x.element_size()
        if device.type != "cuda":
            return self
        torch.cuda.empty_cache()  # what an earlier trial of this process left counts as used otherwise
        if size > torch.cuda.mem_get_info(device)[0] / 2:
            return self
        return TrainingData(self.x.to(device), self.targets, self.votes, self.folds, self.spec, self.task)


def gather(x: torch.Tensor, rows: np.ndarray, device: torch.device) -> torch.Tensor:
    """Return those rows as float32 on the device; images channels-last, which convolutions prefer."""
    index = torch.from_numpy(np.asarray(rows)).to(x.device)
    batch = x[index].to(device, torch.float32, non_blocking=True)
    return batch.contiguous(memory_format=memory_format(batch.ndim))


def memory_format(ndim: int) -> torch.memory_format:
    """Return channels-last for images (B, C, F, T)."""
    return torch.channels_last if ndim == 4 else torch.contiguous_format


@dataclass(frozen=True)
class Epochs:
    """The batches of one stage: its rows, and targets (N, K) and loss weights (N,) indexed by unit as x is."""

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

    def batches(self, order: np.random.Generator, rank: int = 0, workers: int = 1) -> Iterator[Batch]:
        """Yield one epoch in random order; each of several workers gets its share of every batch.

        Batches differ by one row at most: a last batch of one or two rows would spoil batch norm.
        """
        for rows in np.array_split(order.permutation(self.rows), self.steps):
            yield self._batch(rows[rank::workers])

    def _batch(self, rows: np.ndarray) -> Batch:
        y, weight = (torch.from_numpy(v[rows].astype(np.float32)).to(self.device) for v in (self.targets, self.weights))
        return Batch(gather(self.data.x, rows, self.device), y, weight, self.data.spec)
