"""The folds that chosen configurations still lack."""

from collections import deque
from collections.abc import Iterable, Mapping

from hms_ray.execution.events import FoldDone, FoldFailed, FoldPredicted, Message, Work
from hms_ray.execution.packing import GpuPacking
from hms_ray.search.disk_limit import DiskLimit
from hms_ray.search.open_study import OpenStudy
from hms_ray.search.recorder import Recorder
from hms_ray.training.run_config import RunConfig


class Folds:
    """The source of some folds of some trials: each is a work of its own, so that they spread over all replicas.

    pairs: trials and their folds
    disk: how large the study may grow
    share: what each fold takes of a GPU; packing: learns what they need of it; short: it was too little for a fold
    """

    def __init__(
        self,
        runs: Mapping[str, RunConfig],
        pairs: Iterable[tuple[str, int]],
        study: OpenStudy,
        recorder: Recorder,
        disk: DiskLimit,
        share: float,
        packing: GpuPacking,
    ) -> None:
        self.runs, self.study, self.recorder, self.disk = runs, study, recorder, disk
        self.share, self.packing = share, packing
        self.interrupted, self.short = False, False
        self.left = deque(pairs)
        self.in_flight = 0

    @property
    def folds(self) -> int:
        """How many folds are to be trained or predicted, as far as that is known."""
        return len(self.left)

    def interrupt(self) -> None:
        """Let the folds in flight end, and begin no others."""
        self.interrupted = True

    def exhausted(self) -> bool:
        """Whether nothing more will come: a fold in flight may be the last that tells an epoch."""
        return self.interrupted or not (self.folds or self.in_flight)

    def remaining(self) -> int:
        """Return how many folds are still to come, those that are under way included."""
        return self.in_flight + (0 if self.interrupted else self.folds)

    def next(self) -> Work | None:
        """Return the next fold, or None when there is none now.

        Raises:
            SearchAborted: the study has outgrown its budget.
        """
        if self.interrupted or not self.folds:
            return None
        self.disk.check()
        work = self._work()
        self.in_flight += 1
        return work

    def handle(self, message: Message) -> None:
        """Write what a worker sent."""
        self.recorder.handle(message)
        if isinstance(message, FoldDone):
            self.packing.learn(self.runs[message.trial], self.share, message.result)
        if isinstance(message, FoldFailed) and message.of_memory and self.share < 1:
            self.packing.halve(self.runs[message.trial], self.share)
            self.short = True

    def goes_on(self, trial: str, fold: int) -> bool:
        """Always no: each fold is a work of its own."""
        return False

    def ended(self, work: Work) -> None:
        """Count a fold as ended; the trial store shows whether it is finished."""
        self.in_flight -= 1

    def _work(self) -> Work:
        trial, fold = self.left.popleft()
        return Work(trial, (self.study.job(trial, self.runs[trial], fold),), self.share)


class Finals(Folds):
    """The source of all folds that trials lack.

    Once a trial has all its folds, the epoch of each is known; of folds of which it is not the last, the units that are
    not scored are predicted after it, again each fold as a work of its own.
    """

    def __init__(
        self,
        runs: Mapping[str, RunConfig],
        study: OpenStudy,
        recorder: Recorder,
        disk: DiskLimit,
        share: float,
        packing: GpuPacking,
    ) -> None:
        self.store = recorder.store
        pairs = [(trial, fold) for trial in runs for fold in self.store.without_weights(trial)]
        super().__init__(runs, pairs, study, recorder, disk, share, packing)
        self.unpredicted: deque[tuple[str, int, int]] = deque()
        for trial in runs:
            self._settle(trial)

    @property
    def folds(self) -> int:
        return len(self.left) + len(self.unpredicted)

    def handle(self, message: Message) -> None:
        """Write what a worker sent, and finish a trial that has all its predictions."""
        super().handle(message)
        if isinstance(message, FoldDone):
            self._settle(message.trial)
        if isinstance(message, FoldPredicted) and not self.store.unpredicted(message.trial):
            self.recorder.finish(message.trial)

    def _work(self) -> Work:
        if not self.unpredicted:
            return super()._work()
        trial, fold, epoch = self.unpredicted.popleft()  # first, since weights that are not chosen then make room
        return Work(trial, (self.study.prediction_job(trial, self.runs[trial], fold, epoch),), self.share)

    def _settle(self, trial: str) -> None:
        """Of a trial that has all its folds, have predicted what is missing, or finish it at once."""
        if self.store.without_weights(trial) or self.store.is_whole(trial):
            return
        if missing := self.store.unpredicted(trial):
            self.unpredicted.extend((trial, fold, epoch) for fold, epoch in missing.items())
        else:
            self.recorder.finish(trial)
