"""How workers and the driver speak: an actor holds what workers send until the driver has written it, and the driver's
answers until a worker asks for them.

Ray's own reports are no channel for this: Tune writes them as JSON, and in a Train group each is a barrier over all
ranks. The driver is the only writer of the study folder, so that a cluster needs no shared disk for it.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray

from hms_ray.training.jobs import FoldJob, FoldResult, FoldStopped, PredictionJob

Fold = tuple[str, int]  # trial and number
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
    final = True

    @property
    def fold(self) -> int:
        """The fold's number."""
        return self.result.fold


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
    final = True

    @property
    def fold(self) -> int:
        """The fold's number."""
        return self.stopped.fold


@dataclass(frozen=True)
class FoldFailed:
    """A fold cannot be trained, and why; of_memory: a larger share of the device may help."""

    trial: str
    fold: int
    cause: str
    of_memory: bool = False

    @property
    def final(self) -> bool:
        """Whether no other worker shall try: a fold that had too little memory may get more."""
        return not self.of_memory


@dataclass(frozen=True)
class StorageFailed:
    """A worker could not write its checkpoint: no configuration's fault, and nothing can go on."""

    trial: str
    fold: int
    cause: str


@dataclass(frozen=True)
class Note:
    """A sentence for the user."""

    sentence: str


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


@ray.remote(num_cpus=0)
class Mailbox:
    """Messages to the driver in the order they came; its answers by trial and fold, or by question."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.outcomes: dict[Fold, bool] = {}
        self.verdicts: dict[Fold, bool] = {}
        self.given: dict[str, Work | None] = {}
        self.changed = asyncio.Condition()

    async def post(self, message: Message) -> None:
        """Take a message; weights only once the driver has those that came before, since they are large."""
        async with self.changed:
            if isinstance(message, EpochWeights):
                await self.changed.wait_for(lambda: not any(isinstance(m, EpochWeights) for m in self.messages))
            self.messages.append(message)
            if isinstance(message, FoldDone | FoldHalted | FoldFailed) and message.final:
                self.outcomes[message.trial, message.fold] = isinstance(message, FoldDone)
            self.changed.notify_all()

    async def drain(self, wait_s: float) -> list[Message]:
        """Give all messages away; wait for one if there is none."""
        await self._until(lambda: bool(self.messages), wait_s)
        async with self.changed:
            messages, self.messages = self.messages, []
            self.changed.notify_all()
        return messages

    async def outcome(self, trial: str, fold: int) -> bool | None:
        """Whether a fold is trained; None: it has not ended, or its worker was lost and another shall begin it."""
        return self.outcomes.get((trial, fold))

    async def close(self, trial: str, fold: int) -> None:
        """Take a fold as failed, whatever its worker still does."""
        self.outcomes[trial, fold] = False

    async def decide(self, trial: str, fold: int, goes_on: bool) -> None:
        """Say whether a trial goes on after a fold."""
        async with self.changed:
            self.verdicts[trial, fold] = goes_on
            self.changed.notify_all()

    async def goes_on(self, trial: str, fold: int) -> bool:
        """Wait for the driver's decision."""
        async with self.changed:
            await self.changed.wait_for(lambda: (trial, fold) in self.verdicts)
        return self.verdicts[trial, fold]

    async def give(self, question: str, work: Work | None) -> None:
        """Answer who wants work; None: there is no more."""
        async with self.changed:
            self.given[question] = work
            self.changed.notify_all()

    async def take(self, question: str, wait_s: float) -> tuple[bool, Work | None]:
        """Return whether there is an answer, and the work."""
        await self._until(lambda: question in self.given, wait_s)
        return question in self.given, self.given.pop(question, None)

    async def _until(self, true: Any, wait_s: float) -> None:
        async with self.changed:
            try:
                await asyncio.wait_for(self.changed.wait_for(true), wait_s)
            except TimeoutError:
                return
