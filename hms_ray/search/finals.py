"""The folds that chosen configurations still lack."""

from collections import deque
from collections.abc import Mapping, Sequence

from hms_ray.config import RunConfig
from hms_ray.execution.mailbox import Message, Work
from hms_ray.search.ledger import Ledger


class Finals:
    """The source of those folds: each is a work of its own, so that they spread over all replicas."""

    def __init__(self, runs: Mapping[str, RunConfig], ledger: Ledger, gpus: float) -> None:
        self.ledger, self.interrupted = ledger, False
        job = ledger.study.job
        self.left = deque(
            Work(trial, (job(trial, run, fold),), gpus)
            for trial, run in runs.items()
            for fold in ledger.without_weights(trial)
        )

    def interrupt(self) -> None:
        """Let the folds in flight end, and begin no others."""
        self.interrupted = True

    def exhausted(self) -> bool:
        """Whether nothing more will come."""
        return self.interrupted or not self.left

    def next(self) -> Work | None:
        """Return the next fold."""
        return None if self.exhausted() else self.left.popleft()

    def handle(self, message: Message) -> None:
        """Write what a worker sent."""
        self.ledger.handle(message)

    def goes_on(self, trial: str, fold: int) -> bool:
        """There is nothing to go on with: each fold is a work of its own."""
        return False

    def ended(self, work: Work) -> None:
        """A fold that was not finished shows in the ledger."""


def unfinished(trials: Sequence[str], ledger: Ledger) -> list[str]:
    """Return those of the trials that lack a fold."""
    return [trial for trial in trials if ledger.missing(trial, range(ledger.study.folds))]
