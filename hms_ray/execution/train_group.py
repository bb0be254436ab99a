"""Folds in one Ray Train worker group: replicas train different folds side by side; within a replica, DDP.

A group that loses a worker is started again by Ray Train; folds that had ended are passed over, and a fold in flight
continues from the checkpoint of its last epoch (`FoldJob.saved`), which each replica's first rank writes.
`ray.train.report` is not used: it is a barrier over all ranks, and folds of different configurations have different
numbers of epochs.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train.torch import TorchTrainer, get_device
from torch import distributed, nn

from hms_ray.crossval import FoldJob, Labels, train_job
from hms_ray.errors import SearchAborted, TrialFailed
from hms_ray.execution.mailbox import Collector, EpochDone, FoldDone, FoldFailed, cause_of
from hms_ray.execution.resources import Request
from hms_ray.training.loop import Replica, Team

RESTARTS = 2


def run_group(
    jobs: Sequence[FoldJob], labels: Labels, request: Request, at_once: int, collector: Collector, logs: Path
) -> None:
    """Train all jobs in one worker group of `at_once` replicas, or fewer where there are fewer jobs.

    Raises:
        SearchAborted: the group failed and went on failing after its restarts.
    """
    replicas = min(at_once, len(jobs))
    trainer = TorchTrainer(
        _work,
        train_loop_config={
            "jobs": list(jobs),
            "labels": ray.put(labels),
            "mailbox": collector.mailbox,
            "replicas": replicas,
            "workers_per_fold": request.workers_per_fold,
        },
        scaling_config=ray.train.ScalingConfig(
            num_workers=replicas * request.workers_per_fold,
            use_gpu=request.gpus > 0,
            resources_per_worker={"CPU": request.cpus} | ({"GPU": request.gpus} if request.gpus else {}),
        ),
        run_config=ray.train.RunConfig(
            name="train", storage_path=str(logs), failure_config=ray.train.FailureConfig(max_failures=RESTARTS)
        ),
    )
    try:
        _beside(trainer.fit, collector)
    except ray.train.TrainingFailedError as error:
        raise SearchAborted(
            f"the worker group failed {RESTARTS + 1} times, at last with {_last_line(error)}"
        ) from error


def _last_line(error: Exception) -> str:
    """Return the line of a worker's traceback that names the error."""
    return str(error).strip().splitlines()[-1]


def _beside(call: Callable[[], object], collector: Collector) -> None:
    """Call in a thread and wait for it, or for a fault in writing its results.

    In the main thread Ray Train takes Ctrl-C for itself and exits with its own code.
    """
    ended: Future[object] = Future()

    def run() -> None:
        try:
            ended.set_result(call())
        except BaseException as error:  # handed to the caller
            ended.set_exception(error)

    threading.Thread(target=run, name="ray-train", daemon=True).start()
    while not wait([ended], timeout=1).done:
        collector.check()
    ended.result()


def _work(config: Mapping[str, Any]) -> None:
    """Train this rank's share: job i goes to replica i modulo the number of replicas."""
    labels, mailbox, size = ray.get(config["labels"]), config["mailbox"], config["workers_per_fold"]
    index, rank = divmod(ray.train.get_context().get_world_rank(), size)
    device = get_device()
    replica = Replica(device, rank, size, _team(config["replicas"], size, index, device))
    for job in config["jobs"][index :: config["replicas"]]:
        if not ray.get(mailbox.has_ended.remote(job.trial, job.fold)):
            message = _train(job, labels, replica, mailbox)
            if rank == 0:
                ray.get(mailbox.post.remote(message))


def _train(job: FoldJob, labels: Labels, replica: Replica, mailbox: Any) -> FoldDone | FoldFailed:
    def on_epoch(row: Mapping[str, Any]) -> None:
        if replica.rank == 0:
            ray.get(mailbox.post.remote(EpochDone(job.trial, row)))

    try:
        return FoldDone(job.trial, train_job(job, labels, replica, on_epoch))
    except TrialFailed as error:  # all ranks of the fold agree on it
        return FoldFailed(job.trial, job.fold, str(error))
    except Exception as error:
        if replica.size > 1:  # the others wait for this rank: only a new group helps
            raise
        return FoldFailed(job.trial, job.fold, cause_of(error))


def _team(replicas: int, size: int, index: int, device: torch.device) -> Team:
    """Return this rank's team; every rank makes every group, in the same order."""
    if size == 1:
        return Team()
    groups = [distributed.new_group(list(range(i * size, (i + 1) * size))) for i in range(replicas)]
    return _DataParallel(groups[index], index * size, device)


class _DataParallel(Team):
    """The ranks of one process group: DDP inside the fold, no traffic between folds."""

    def __init__(self, group: distributed.ProcessGroup, first: int, device: torch.device) -> None:
        self.group, self.first, self.device = group, first, device

    def wrap(self, model: nn.Module) -> nn.Module:
        devices = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, process_group=self.group, device_ids=devices)

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        total = value.clone()
        distributed.all_reduce(total, group=self.group)
        return total / self.group.size()

    def from_first(self, state: dict[str, Any] | None) -> dict[str, Any] | None:
        states = [state]
        distributed.broadcast_object_list(states, src=self.first, group=self.group)
        return states[0]
