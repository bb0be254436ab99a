"""The folds that chosen configurations still lack."""

from collections import deque
from collections.abc import Mapping

from hms_ray.config import RunConfig
from hms_ray.execution.mailbox import FoldDone, FoldFailed, Message, Work
from hms_ray.execution.packing import Shares
from hms_ray.search.ledger import Ledger


class Finals:
    """The source of those folds: each is a work of its own, so that they spread over all replicas.

    share: what each takes of a GPU; shares: learns what they need of it; short: whether it was too little for a fold
    """

    def __init__(self, runs: Mapping[str, RunConfig], ledger: Ledger, share: float, shares: Shares) -> None:
        self.runs, self.ledger, self.share, self.shares = runs, ledger, share, shares
        self.interrupted, self.short = False, False
        job = ledger.study.job
        self.left = deque(
            Work(trial, (job(trial, run, fold),), share)
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
        """Return the next fold.

        Raises:
            SearchAborted: the study has outgrown its budget.
        """
        if self.exhausted():
            return None
        self.ledger.check_disk()
        return self.left.popleft()

    def handle(self, message: Message) -> None:
        """Write what a worker sent."""
        self.ledger.handle(message)
        if isinstance(message, FoldDone):
            if not self.ledger.without_weights(message.trial):
                self.ledger.finish(message.trial)  # at once: weights that are not chosen make room
            self.shares.learn(self.runs[message.trial], self.share, message.result)
        if isinstance(message, FoldFailed) and message.of_memory and self.share < 1:
            self.shares.halve(self.runs[message.trial], self.share)
            self.short = True

    def goes_on(self, trial: str, fold: int) -> bool:
        """There is nothing to go on with: each fold is a work of its own."""
        return False

    def ended(self, work: Work) -> None:
        """A fold that was not finished shows in the ledger."""
