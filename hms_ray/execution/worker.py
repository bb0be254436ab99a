"""What a worker does with a trial's folds, wherever it runs, and how it speaks with the driver meanwhile."""

import errno
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import ray
import torch

from hms_ray.core.errors import HmsRayError, TrialFailed
from hms_ray.execution.events import (
    EpochDone,
    EpochWeights,
    FoldBegun,
    FoldDone,
    FoldFailed,
    FoldHalted,
    FoldPredicted,
    Message,
    Note,
    StorageFailed,
    TeacherEpochDone,
    Work,
)
from hms_ray.execution.store_copies import bring
from hms_ray.store.copies import NoRoom
from hms_ray.store.share import StoreRef
from hms_ray.training.distributed import Replica
from hms_ray.training.history import discard
from hms_ray.training.jobs import FoldJob, FoldStopped, PredictionJob
from hms_ray.training.labels import TrainingLabels
from hms_ray.training.run_job import predict_job, train_job

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EACCES, errno.EROFS)  # faults of a disk, no configuration's


class DriverChannel(Protocol):
    """How a worker speaks with the driver."""

    def post(self, message: Message) -> None:
        """Send a message."""

    def bring(self, stores: Sequence[StoreRef]) -> None:
        """Have stores on this worker's node; raise TrialFailed where they cannot be had."""

    def outcome(self, trial: str, fold: int) -> bool | None:
        """Whether a fold is trained already, by a worker that was lost later; None: it is not."""

    def goes_on(self, trial: str, fold: int) -> bool:
        """Wait for the decision whether the trial goes on after that fold."""


class RayChannel:
    """A channel through the mailbox actor."""

    def __init__(self, mailbox: Any) -> None:
        self.mailbox = mailbox

    def post(self, message: Message) -> None:
        ray.get(self.mailbox.post.remote(message))

    def bring(self, stores: Sequence[StoreRef]) -> None:
        bring(stores, lambda sentence: self.post(Note(sentence)))

    def outcome(self, trial: str, fold: int) -> bool | None:
        return ray.get(self.mailbox.outcome.remote(trial, fold))

    def goes_on(self, trial: str, fold: int) -> bool:
        return ray.get(self.mailbox.goes_on.remote(trial, fold))


def train_work(
    work: Work, labels: TrainingLabels, replica: Replica, channel: DriverChannel, actor: bytes | None = None
) -> None:
    """Train the folds one after the other until one does not end well or the driver stops the trial, or predict them.

    What fails is posted, not raised: what Ray sees as an error is a lost worker. All ranks do as the first one.
    """
    share = replica.team.from_first
    first = replica.rank == 0
    for job in (job for job in work.jobs if isinstance(job, PredictionJob) and first):  # the others wait for more work
        if channel.outcome(job.trial, job.fold) is not False:  # else it was given up
            channel.post(_predicted(job, labels, replica.device, channel, actor))
    training = [job for job in work.jobs if isinstance(job, FoldJob)]
    for job in training:
        trained = share(channel.outcome(job.trial, job.fold) if first else None)
        if trained is None:
            message = _train(job, labels, replica, channel, actor)
            trained = isinstance(message, FoldDone)
            if first:
                channel.post(message)
            if first and isinstance(message, FoldHalted):
                discard(job.saved)
        if not trained:
            return
        goes_on = share(channel.goes_on(job.trial, job.fold) if first else None)
        if first:  # what it kept on this machine: by now the driver has written the fold
            discard(job.saved)
        if not goes_on:
            return


def cause_of(error: Exception) -> str:
    """Return the sentence of our own errors, or the last line and place of a foreign one."""
    if isinstance(error, HmsRayError):
        return str(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"


def _train(
    job: FoldJob, labels: TrainingLabels, replica: Replica, channel: DriverChannel, actor: bytes | None
) -> Message:
    def on_epoch(row: Mapping[str, Any]) -> None:
        if replica.rank == 0:
            channel.post(EpochDone(job.trial, row))

    def on_taught() -> None:
        if replica.rank == 0:
            channel.post(TeacherEpochDone(job.trial, job.fold))

    try:
        with replica.together():
            channel.bring(job.reads)
    except TrialFailed as error:
        missing = error
        if replica.rank:  # the first one reports of its own node alone
            channel.post(Note(str(error)))
    else:
        missing = None
    if replica.rank == 0:  # now, so that no copy counts as time of the fold
        channel.post(FoldBegun(job.trial, job.fold, job.effort, actor))
    if missing:
        full = isinstance(missing.__cause__, NoRoom | OSError)
        return (StorageFailed if full else FoldFailed)(job.trial, job.fold, str(missing))
    try:
        result = train_job(job, labels, replica, on_epoch, on_taught)
    except HmsRayError as error:  # all ranks of the fold agree on it
        return FoldFailed(job.trial, job.fold, str(error), isinstance(error.__cause__, torch.OutOfMemoryError))
    except Exception as error:  # whatever it is, it is this configuration's; the search goes on
        failed = _failed(job, error)
        if replica.size > 1:  # the others wait for this rank: only a new group helps
            if isinstance(failed, StorageFailed):
                channel.post(failed)
            raise
        return failed
    if isinstance(result, FoldStopped):
        return FoldHalted(job.trial, result)
    if replica.rank == 0:
        for epoch, path in result.weights.items():  # one by one: together they may be large
            channel.post(EpochWeights(job.trial, job.fold, epoch, path.read_bytes()))
    return FoldDone(job.trial, result)


def _predicted(
    job: PredictionJob, labels: TrainingLabels, device: torch.device, channel: DriverChannel, actor: bytes | None
) -> FoldPredicted | FoldFailed:
    try:
        channel.bring(job.stores)
    except TrialFailed as error:
        missing = error
    else:
        missing = None
    channel.post(FoldBegun(job.trial, job.fold, 0, actor))
    if missing:
        return FoldFailed(job.trial, job.fold, str(missing))
    try:
        return FoldPredicted(job.trial, job.fold, job.epoch, predict_job(job, labels, device))
    except HmsRayError as error:
        return FoldFailed(job.trial, job.fold, str(error), isinstance(error.__cause__, torch.OutOfMemoryError))
    except Exception as error:  # as in training
        return FoldFailed(job.trial, job.fold, cause_of(error), isinstance(error, torch.OutOfMemoryError))


def _failed(job: FoldJob, error: Exception) -> FoldFailed | StorageFailed:
    if isinstance(error, OSError) and error.errno in FULL:
        return StorageFailed(job.trial, job.fold, f"{job.saved}: {error.strerror}")
    return FoldFailed(job.trial, job.fold, cause_of(error), isinstance(error, torch.OutOfMemoryError))
