"""The driver's dispatcher: hands what workers send to the source of work, answers them, and ends overdue folds."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import ray
from ray import cloudpickle
from ray.exceptions import GetTimeoutError, RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hms_ray.execution.events import (
    OVERDUE,
    EpochWeights,
    FlushToken,
    FoldBegun,
    FoldDone,
    FoldFailed,
    FoldHalted,
    FoldPredicted,
    Message,
    ReplicasLost,
    StorageFailed,
    Work,
    WorkDone,
    WorkRequest,
)
from hms_ray.execution.mailbox import Mailbox

POLL_S = 0.5
ATTEMPTS = 3  # a fold whose worker is lost so often is what kills it
LOST = f"its worker was lost {ATTEMPTS} times"


class TrialSource(Protocol):
    """Decides what is trained next, and writes the results.

    `next` and `ended` are called by the thread that runs the trials, `handle` and `goes_on` by the collector's.
    """

    def next(self) -> Work | None:
        """Return the next work, or None when there is none now."""

    def exhausted(self) -> bool:
        """Whether no more work will come."""

    def remaining(self) -> int:
        """Return how many works have not ended, those under way included."""

    def handle(self, message: Message) -> None:
        """Write what a worker sent."""

    def goes_on(self, trial: str, fold: int) -> bool:
        """Decide whether a trial goes on after a fold that was handled before."""

    def ended(self, work: Work) -> None:
        """Record that no worker has this work any more; its folds and failures were handled before."""


class Collector:
    """Hands each message to the source while Ray works; use it as a context.

    What the source raises (a full disk) is raised again by `flush`, by `check` and on leaving.
    other: handles the messages that the source does not
    fold_s: a fold that takes longer is failed and its worker killed
    """

    def __init__(
        self, source: TrialSource, fold_s: float | None = None, other: Callable[[Message], None] | None = None
    ) -> None:
        beside_me = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.mailbox = Mailbox.options(max_concurrency=1000, scheduling_strategy=beside_me).remote()
        self.source, self.fold_s, self.other = source, fold_s, other
        self.under_way: dict[tuple[str, int], tuple[float, bytes | None]] = {}
        self.attempts: dict[tuple[str, int], int] = {}
        self.marks, self.reached = itertools.count(), -1
        self.progress = threading.Condition()
        self.over = threading.Event()
        self.fault: Exception | None = None
        self.thread = threading.Thread(target=self._run, name="collector", daemon=True)

    def __enter__(self) -> "Collector":
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            self.over.set()
            self.thread.join()
            ray.kill(self.mailbox)

    def flush(self) -> None:
        """Wait until everything posted so far is handled."""
        number = next(self.marks)
        ray.get(self.mailbox.post.remote(FlushToken(number)))
        with self.progress:
            self.progress.wait_for(lambda: self.reached >= number or self.fault is not None)
        self.check()

    def check(self) -> None:
        """Raise what the source raised, if it did."""
        if self.fault:
            raise self.fault

    def spare(self, work: Work) -> None:
        """Count the next beginning of a fold of this work as no new attempt: its worker was lost through others."""
        for job in work.jobs:
            if (job.trial, job.fold) in self.attempts:
                self.attempts[job.trial, job.fold] -= 1

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep what is raised here for `check`."""
        try:
            yield
        except Exception as error:
            self.fault = self.fault or error

    def _run(self) -> None:
        while not self.over.is_set() and self.fault is None:
            try:
                for message in ray.get(self.mailbox.drain.remote(POLL_S)):
                    self._handle(message)
                self._end_overdue()
            except Exception as error:  # whatever it is, the main thread raises it
                with self.progress:
                    self.fault = error
                    self.progress.notify_all()

    def _handle(self, message: Message) -> None:
        match message:
            case FlushToken(number):
                with self.progress:
                    self.reached = number
                    self.progress.notify_all()
            case FoldBegun(trial, fold, _, worker):
                self._begin(message, (trial, fold), worker)
            case FoldDone() | FoldHalted() | FoldFailed() | FoldPredicted() | StorageFailed():
                if self.under_way.pop((message.trial, message.fold), None) is None:
                    return  # it was given up before
                del self.attempts[message.trial, message.fold]
                self.source.handle(message)
                if isinstance(message, FoldDone):
                    goes_on = self.source.goes_on(message.trial, message.fold)
                    self.mailbox.decide.remote(message.trial, message.fold, goes_on)
            case EpochWeights(trial, fold):
                if (trial, fold) in self.under_way:  # else it was given up before
                    self.source.handle(message)
            case WorkRequest() | WorkDone() | ReplicasLost():
                assert self.other, "only replicas of a worker group ask for work"
                self.other(message)
            case _:
                self.source.handle(message)

    def _begin(self, message: FoldBegun, key: tuple[str, int], worker: bytes | None) -> None:
        self.attempts[key] = self.attempts.get(key, 0) + 1
        self.under_way[key] = time.monotonic(), worker
        if self.attempts[key] > ATTEMPTS:
            self._give_up(key, LOST)
        else:
            self.source.handle(message)

    def _end_overdue(self) -> None:
        for key, (begun, worker) in list(self.under_way.items()):
            if self.fold_s is not None and time.monotonic() - begun > self.fold_s and not _is_lost(worker):
                self._give_up(key, OVERDUE.format(minutes=self.fold_s / 60))

    def _give_up(self, key: tuple[str, int], cause: str) -> None:
        """Fail a fold in its worker's stead, and kill the worker; the next one passes over it."""
        _, worker = self.under_way.pop(key)
        failed = FoldFailed(*key, cause)
        ray.get(self.mailbox.close.remote(*key))
        self.source.handle(failed)
        ray.kill(cloudpickle.loads(worker))


def _is_lost(worker: bytes) -> bool:
    """Whether an actor has died; its fold waits for another worker, whose time has not begun."""
    try:
        ray.get(cloudpickle.loads(worker).__ray_ready__.remote(), timeout=POLL_S)
    except GetTimeoutError:  # it is busy
        return False
    except RayActorError:
        return True
    return False
