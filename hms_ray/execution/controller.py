"""What the controller of a worker group is given; apart from the group, since a controller needs no torch, and all wait
for it to start."""

from collections.abc import Mapping
from typing import Any

import ray
import ray.train
from ray.train.backend import Backend, BackendConfig

from hms_ray.execution.events import ReplicasLost


class Losses(ray.train.UserCallback):
    """Tells the driver whose workers were lost, before the whole group starts again."""

    def __init__(self, mailbox: Any, workers_per_fold: int) -> None:
        self.mailbox, self.workers_per_fold = mailbox, workers_per_fold

    def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:
        """Post the replicas of the lost workers."""
        lost = frozenset(rank // self.workers_per_fold for rank in worker_exceptions)
        ray.get(self.mailbox.post.remote(ReplicasLost(lost)))


class GpusOfTheNode(BackendConfig):
    """Lets the workers of a node see each other's GPUs, as NCCL wants it.

    Ray's set-up for PyTorch would also form a process group that listens on every interface, for one worker too.
    """

    class Shared(Backend):
        share_cuda_visible_devices = True

    @property
    def backend_cls(self) -> type[Backend]:
        return self.Shared
