"""Folds in one Ray Train worker group: replicas train different folds side by side; within a replica, DDP.

Each replica asks for its next work and trains it, as an actor of Tune would, so that one group serves a whole search.
A group that loses a worker is started again by Ray Train; each replica then gets the work that it had, passes over the
folds that had ended, and continues the fold in flight from the checkpoint of its last epoch (`FoldJob.saved`), which
each replica's first rank writes. `ray.train.report` is not used: it is a barrier over all ranks, and folds of different
configurations have different numbers of epochs.
"""

import functools
import ipaddress
import logging
import os
import secrets
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray import cloudpickle
from ray.train.collective import broadcast_from_rank_zero
from ray.train.torch import get_device
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from torch import distributed, nn

from hms_ray.core.errors import ConfigError, SearchAborted
from hms_ray.execution.cluster import Cluster
from hms_ray.execution.collector import Collector, TrialSource
from hms_ray.execution.controller import GpusOfTheNode, Losses
from hms_ray.execution.device import rehearsed
from hms_ray.execution.events import Message, ReplicasLost, Work, WorkDone, WorkRequest
from hms_ray.execution.resources import Request, folds_at_once
from hms_ray.execution.worker import RayChannel, train_work
from hms_ray.training.distributed import Replica, Team
from hms_ray.training.labels import TrainingLabels

log = logging.getLogger(__name__)

REGROUPINGS = 5  # of a group whose workers find no place any more, without an end of work between
RESTARTS = 24  # of a group; a fold whose worker is lost again and again ends sooner
PATIENCE_S = 60  # how long a first rank waits before it shows the others that it lives


def run_group(
    source: TrialSource,
    labels: TrainingLabels,
    request: Request,
    cluster: Cluster,
    logs: Path,
    fold_s: float | None = None,
) -> None:
    """Run work in a worker group of as many replicas as the cluster holds until the source has no more.

    A group cannot grow. When the nodes hold twice its replicas and there is work for them, its replicas get no more
    work, and a larger group follows when they have ended what they had.

    Raises:
        SearchAborted: the group failed and went on failing after its restarts.
    """
    dispatcher, lost = WorkDispatcher(source), 0
    with Collector(source, fold_s, dispatcher.answer) as collector:
        dispatcher.collector = collector
        while dispatcher.orphans or not source.exhausted():
            left = source.remaining()
            replicas = min(left, cluster.wait(request, left, source.exhausted))
            if not replicas:  # interrupted while it waited for nodes
                return
            trainer = _trainer(collector.mailbox, labels, request, replicas, logs)
            try:
                _beside(trainer.fit, functools.partial(_look_after, dispatcher, cluster, request, replicas))
                collector.flush()  # what has ended is known before another group is thought of
                dispatcher.closing = False
            except ray.train.ControllerError as error:  # its workers find no place any more
                lost = lost + 1 if source.remaining() == left else 1
                if lost == REGROUPINGS:
                    raise SearchAborted(
                        f"the worker group found no place in {REGROUPINGS} attempts; the same command goes on"
                    ) from error
                collector.flush()  # what the old group said comes before what the new one asks
                dispatcher.regroup()
                _check_room(request, cluster, error)
            except ray.train.TrainingFailedError as error:
                raise SearchAborted(
                    f"the worker group failed {RESTARTS + 1} times, at last with {_last_line(error)}"
                ) from error


def _look_after(dispatcher: "WorkDispatcher", cluster: Cluster, request: Request, replicas: int) -> None:
    """What is done now and then while a group trains."""
    dispatcher.collector.check()
    left = dispatcher.source.remaining()
    fit = cluster.folds(request, left)
    if not dispatcher.closing and fit >= 2 * replicas and left >= 2 * replicas:
        log.info("%d folds fit at once instead of %d: a larger worker group follows those in flight", fit, replicas)
        dispatcher.closing = True
    dispatcher.retry()


def _trainer(mailbox: Any, labels: TrainingLabels, request: Request, replicas: int, logs: Path) -> DataParallelTrainer:
    return DataParallelTrainer(
        _work,
        train_loop_config={
            "labels": ray.put(labels),
            "mailbox": mailbox,
            "replicas": replicas,
            "workers_per_fold": request.workers_per_fold,
            "backend": _backend(request),
        },
        scaling_config=ray.train.ScalingConfig(
            num_workers=replicas * request.workers_per_fold,
            use_gpu=request.gpus > 0,
            resources_per_worker=request.for_train(),
        ),
        backend_config=GpusOfTheNode(),
        run_config=ray.train.RunConfig(
            name="train",
            storage_path=str(logs),
            # Ray itself would wait for ever for the place of workers whose node is gone
            failure_config=ray.train.FailureConfig(max_failures=RESTARTS, controller_failure_limit=0),
            callbacks=[Losses(mailbox, request.workers_per_fold)],
        ),
    )


def _check_room(request: Request, cluster: Cluster, error: Exception) -> None:
    """Say how many replicas fit now, or give up with the arithmetic where nothing will bring nodes."""
    try:
        fit = folds_at_once(request, cluster.nodes())
    except ConfigError as nothing:
        if cluster.autoscaler is not None:
            return
        raise SearchAborted(f"{nothing}; the same command goes on when there is room") from error
    log.warning("the worker group was lost (%s); %d folds at once from now on", _last_line(error), fit)


def _backend(request: Request) -> str:
    """NCCL where the workers of a fold have a GPU each; it refuses two ranks on one device."""
    return "nccl" if request.gpus == 1 and request.workers_per_fold > 1 and not rehearsed() else "gloo"


def _last_line(error: Exception) -> str:
    """Return the line of a worker's traceback that names the error."""
    return str(error).strip().splitlines()[-1]


def _beside(call: Callable[[], object], meanwhile: Callable[[], object]) -> None:
    """Call in a thread and wait for it; `meanwhile` is called now and then, and what it raises is raised.

    In the main thread Ray Train takes Ctrl-C for itself and exits with its own code.
    """
    ended: Future[object] = Future()

    def run() -> None:
        try:
            ended.set_result(call())
        except BaseException as error:  # handed to the caller
            ended.set_exception(error)

    threading.Thread(target=run, name="ray-train", daemon=True).start()
    while not wait([ended], timeout=0.2).done:
        meanwhile()
    ended.result()


@dataclass
class WorkDispatcher:
    """Gives each replica its work; one that was restarted gets what it had.

    closing: another group follows, so there is no more work for this one
    """

    source: TrialSource
    collector: Any = None
    given: dict[int, Work] = field(default_factory=dict)
    waiting: dict[int, str] = field(default_factory=dict)
    orphans: deque[Work] = field(default_factory=deque)
    closing: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)

    def answer(self, message: Message) -> None:
        """Take a replica's question, its word that the work is done, or the news that it was lost."""
        with self.lock:
            match message:
                case WorkDone(replica):
                    self.source.ended(self.given.pop(replica))
                case WorkRequest(replica, question):
                    self.waiting[replica] = question
                    self.retry()
                case ReplicasLost(replicas):
                    for replica, work in self.given.items():
                        if replica not in replicas:
                            self.collector.spare(work)

    def regroup(self) -> None:
        """Take everything back: another group comes, perhaps of fewer replicas."""
        with self.lock:
            for work in self.given.values():
                self.collector.spare(work)
            self.orphans.extend(self.given.values())
            self.given.clear()
            self.waiting.clear()
            self.closing = False

    def retry(self) -> None:
        """Give work to those that wait for it, if there is any now."""
        with self.lock:
            for replica, question in sorted(self.waiting.items()):
                work = self.given.get(replica) or self._next()
                if work is None and not self.closing and not self.source.exhausted():
                    continue
                del self.waiting[replica]
                if work is not None:
                    self.given[replica] = work
                ray.get(self.collector.mailbox.give.remote(question, work and cloudpickle.dumps(work)))

    def _next(self) -> Work | None:
        if self.closing:
            return None
        return self.orphans.popleft() if self.orphans else self.source.next()


def _work(config: Mapping[str, Any]) -> None:
    """Ask for work and train it until there is no more; rank 0 of each replica speaks for it."""
    labels, mailbox, size = ray.get(config["labels"]), config["mailbox"], config["workers_per_fold"]
    place = ray.train.get_context().get_world_rank()
    index, rank = divmod(place, size)
    device = torch.device("cpu") if rehearsed() else get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if size > 1:
        _join(place, config["replicas"] * size, config["backend"], broadcast_from_rank_zero)
    replica = Replica(device, rank, size, _team(config["replicas"], size, index, device))
    actor = cloudpickle.dumps(ray.get_runtime_context().current_actor)
    while work := _next(replica, index, mailbox):
        train_work(work, labels, replica, RayChannel(mailbox), actor)
        if rank == 0:
            ray.get(mailbox.post.remote(WorkDone(index)))


def _next(replica: Replica, index: int, mailbox: Any) -> Work | None:
    """Return the replica's next work, None when there is no more.

    The first rank asks; the others hear from it every minute at least, or their process group would time out.
    """
    question = secrets.token_hex(8)
    if replica.rank == 0:
        ray.get(mailbox.post.remote(WorkRequest(index, question)))
    while True:
        answer = ray.get(mailbox.take.remote(question, PATIENCE_S)) if replica.rank == 0 else None
        answered, work = replica.team.from_first(answer)
        if answered:
            return work and cloudpickle.loads(work)


def _join(rank: int, size: int, backend: str, from_first: Callable[[Any], Any]) -> None:
    """Form the process group of all ranks, which meet at the address by which Ray knows the first one's node.

    from_first: returns to every rank what the first one gave it
    """
    address, listener = None, None
    if rank == 0:
        host = ray.util.get_node_ip_address()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, 0), family=family)
        address = listener.getsockname()[:2]
    host, port = from_first(address)
    if ipaddress.ip_address(host).is_loopback:  # the ranks must not talk where others could listen
        for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(variable, "lo")
    store = distributed.TCPStore(
        host,
        port,
        size,
        is_master=rank == 0,
        wait_for_workers=False,  # the process group does
        master_listen_fd=listener.detach() if listener else None,
    )
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size)


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

    def from_first(self, state: Any) -> Any:
        states = [state]
        distributed.broadcast_object_list(states, src=self.first, group=self.group)
        return states[0]
