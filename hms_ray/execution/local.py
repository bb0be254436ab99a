"""Trials in this process, one after the other and without Ray: for a debugger, a notebook, or one small machine."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hms_ray.core.errors import TrialFailed
from hms_ray.execution.collector import TrialSource
from hms_ray.execution.events import OVERDUE, EpochDone, FoldBegun, Message, TeacherEpochDone
from hms_ray.execution.worker import train_work
from hms_ray.store.share import StoreRef
from hms_ray.training.distributed import Replica
from hms_ray.training.labels import TrainingLabels


@dataclass
class LocalChannel:
    """In-process channel: calls the trial source directly."""

    source: TrialSource
    fold_s: float | None
    begun: float = 0.0

    def post(self, message: Message) -> None:
        if isinstance(message, FoldBegun):
            self.begun = time.monotonic()
        self.source.handle(message)
        late = self.fold_s is not None and time.monotonic() - self.begun > self.fold_s
        if late and isinstance(message, EpochDone | TeacherEpochDone):
            raise TrialFailed(OVERDUE.format(minutes=self.fold_s / 60))

    def bring(self, stores: Sequence[StoreRef]) -> None:
        """Do nothing: the stores are in this process's own cache."""

    def outcome(self, trial: str, fold: int) -> bool | None:
        return None

    def goes_on(self, trial: str, fold: int) -> bool:
        return self.source.goes_on(trial, fold)


def run_here(source: TrialSource, labels: TrainingLabels, threads: int, fold_s: float | None = None) -> None:
    """Run trials until the source has no more.

    threads: as many as a worker of Ray would have; fold_s: a fold that takes longer is failed after its epoch
    """
    torch.set_num_threads(threads)
    replica = Replica(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    while not source.exhausted():
        work = source.next()
        if work is not None:  # nothing else runs, so nothing can be waited for
            train_work(work, labels, replica, LocalChannel(source, fold_s))
            source.ended(work)
