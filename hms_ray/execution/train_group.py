"""Folds in one Ray Train worker group: replicas train different folds side by side; within a replica, DDP.

A group that loses a worker is started again by Ray Train; folds that had ended are passed over, and a fold in flight
continues from the checkpoint of its last epoch (`FoldJob.saved`), which each replica's first rank writes.
`ray.train.report` is not used: it is a barrier over all ranks, and folds of different configurations have different
numbers of epochs.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train.torch import TorchTrainer, get_device
from torch import distributed, nn

from hms_ray.crossval import FoldJob, Labels, train_job
from hms_ray.errors import SearchAborted, TrialFailed
from hms_ray.execution.mailbox import Collector, EpochDone, FoldDone, FoldFailed
from hms_ray.execution.resources import Request
from hms_ray.training.loop import Replica

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
        _beside(trainer.fit)
    except ray.train.TrainingFailedError as error:
        raise SearchAborted(f"the worker group failed {RESTARTS + 1} times; the last error: {error}") from error


def _beside(call: Callable[[], object]) -> None:
    """Call in a thread and wait: in the main thread Ray Train takes Ctrl-C for itself and exits with its own code."""
    ended: Future[object] = Future()

    def run() -> None:
        try:
            ended.set_result(call())
        except BaseException as error:  # handed to the caller
            ended.set_exception(error)

    threading.Thread(target=run, name="ray-train", daemon=True).start()
    ended.result()


def _work(config: Mapping[str, Any]) -> None:
    """Train this rank's share: job i goes to replica i modulo the number of replicas."""
    labels, mailbox, size = ray.get(config["labels"]), config["mailbox"], config["workers_per_fold"]
    index, rank = divmod(ray.train.get_context().get_world_rank(), size)
    device = get_device()
    replica = Replica(device, rank, size, _wrapper(config["replicas"], size, index, device))
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
    except TrialFailed as error:
        return FoldFailed(job.trial, job.fold, str(error))


def _wrapper(replicas: int, size: int, index: int, device: torch.device) -> Callable[[nn.Module], nn.Module]:
    """Return what makes the gradients of one replica agree; every rank makes every group, in the same order."""
    if size == 1:
        return _unchanged
    groups = [distributed.new_group(list(range(i * size, (i + 1) * size))) for i in range(replicas)]
    devices = [device] if device.type == "cuda" else None
    return partial(nn.parallel.DistributedDataParallel, process_group=groups[index], device_ids=devices)


def _unchanged(model: nn.Module) -> nn.Module:
    return model
