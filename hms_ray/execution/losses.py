"""What a worker group's controller tells the driver; apart from the group, since the controller needs no torch of ours
and all wait for it to start."""

from collections.abc import Mapping
from typing import Any

import ray
import ray.train

from hms_ray.execution.mailbox import ReplicasLost


class Losses(ray.train.UserCallback):
    """Tells the driver whose workers were lost, before the whole group starts again."""

    def __init__(self, mailbox: Any, workers_per_fold: int) -> None:
        self.mailbox, self.workers_per_fold = mailbox, workers_per_fold

    def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:
        """Post the replicas of the lost workers."""
        lost = frozenset(rank // self.workers_per_fold for rank in worker_exceptions)
        ray.get(self.mailbox.post.remote(ReplicasLost(lost)))
