"""The messages between workers and the driver."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hms_ray.training.jobs import FoldJob, FoldResult, FoldStopped, PredictionJob

OVERDUE = "the fold had not ended after {minutes:g} minutes (budget.fold_minutes)"


@dataclass(frozen=True)
class Work:
    """Folds of one trial to train one after the other, as long as the driver says go on, or to predict.

    gpus: share of a device
    """

    trial: str
    jobs: tuple[FoldJob | PredictionJob, ...]
    gpus: float = 0.0


@dataclass(frozen=True)
class FoldBegun:
    """A worker begins a fold.

    epochs: that it will train, those of teachers included; 0: it is trained, and the worker predicts
    worker: the actor to kill should the fold never end, pickled: who opens it loads all that a worker does; None where
        there is none
    """

    trial: str
    fold: int
    epochs: int
    worker: bytes | None


@dataclass(frozen=True)
class EpochDone:
    """One more row of a learning curve."""

    trial: str
    row: Mapping[str, Any]


@dataclass(frozen=True)
class TeacherEpochDone:
    """A teacher of a fold has trained an epoch."""

    trial: str
    fold: int


@dataclass(frozen=True)
class FoldDone:
    """A fold is trained."""

    trial: str
    result: FoldResult

    @property
    def fold(self) -> int:
        """The fold's number."""
        return self.result.fold

    @property
    def is_trained(self) -> bool | None:
        """Whether the fold is trained; None: another worker may try."""
        return True


@dataclass(frozen=True)
class EpochWeights:
    """The packed weights after an epoch that may be chosen; those of a fold come just before it is done."""

    trial: str
    fold: int
    epoch: int
    content: bytes


@dataclass(frozen=True)
class FoldPredicted:
    """The units (n, K) of a finished fold that are not scored are predicted after an epoch."""

    trial: str
    fold: int
    epoch: int
    probs: np.ndarray


@dataclass(frozen=True)
class FoldHalted:
    """A fold was stopped inside, since its score lay above the limit."""

    trial: str
    stopped: FoldStopped

    @property
    def fold(self) -> int:
        """The fold's number."""
        return self.stopped.fold

    @property
    def is_trained(self) -> bool | None:
        """As in FoldDone."""
        return False


@dataclass(frozen=True)
class FoldFailed:
    """A fold cannot be trained, and why; of_memory: a larger share of the device may help."""

    trial: str
    fold: int
    cause: str
    of_memory: bool = False

    @property
    def is_trained(self) -> bool | None:
        """As in FoldDone: a fold that had too little memory may get more."""
        return None if self.of_memory else False


@dataclass(frozen=True)
class StorageFailed:
    """A worker could not write its checkpoint: no configuration's fault, and nothing can go on."""

    trial: str
    fold: int
    cause: str


@dataclass(frozen=True)
class Note:
    """A sentence for the user; level: of logging."""

    sentence: str
    level: int = logging.INFO


@dataclass(frozen=True)
class WorkRequest:
    """A replica of a worker group asks for work; `question` is like no other, also of one that was started again."""

    replica: int
    question: str


@dataclass(frozen=True)
class WorkDone:
    """A replica of a worker group has done what it was given."""

    replica: int


@dataclass(frozen=True)
class ReplicasLost:
    """Workers of these replicas were lost, so that the whole group starts again."""

    replicas: frozenset[int]


@dataclass(frozen=True)
class FlushToken:
    """Comes back once everything posted before it is handled."""

    number: int


Ended = FoldDone | FoldHalted | FoldFailed
Training = FoldBegun | EpochDone | TeacherEpochDone | EpochWeights | Ended | FoldPredicted | StorageFailed | Note
Message = Training | WorkRequest | WorkDone | ReplicasLost | FlushToken
