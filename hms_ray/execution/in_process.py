"""Trials in this process, one after the other and without Ray: for a debugger, a notebook, or one small machine."""

from dataclasses import dataclass, field

import torch

from hms_ray.crossval import Labels
from hms_ray.execution.collector import TrialSource
from hms_ray.execution.mailbox import Message
from hms_ray.execution.worker import train_work
from hms_ray.training.team import Replica


@dataclass
class _Direct:
    """A line of no length."""

    source: TrialSource
    asked: set[tuple[str, int]] = field(default_factory=set)

    def post(self, message: Message) -> None:
        self.source.handle(message)

    def outcome(self, trial: str, fold: int) -> bool | None:
        return None

    def goes_on(self, trial: str, fold: int) -> bool:
        return self.source.goes_on(trial, fold)


def run_here(source: TrialSource, labels: Labels, threads: int) -> None:
    """Run trials until the source has no more; the number of threads is what a worker of Ray would have."""
    torch.set_num_threads(threads)
    replica = Replica(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    while not source.exhausted():
        work = source.next()
        if work is not None:  # nothing else runs, so nothing can be waited for
            train_work(work, labels, replica, _Direct(source))
            source.ended(work)
