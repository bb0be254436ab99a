"""What a worker does with the folds of a trial: in order, until one fails or the driver stops the trial."""

import errno
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from hms_ray.core.errors import DataError, TrialFailed
from hms_ray.execution import worker
from hms_ray.execution.events import EpochDone, FoldBegun, FoldDone, FoldFailed, FoldHalted, Note, StorageFailed, Work
from hms_ray.execution.worker import train_work
from hms_ray.store.copies import NoRoom
from hms_ray.training.distributed import Replica, Team
from hms_ray.training.jobs import FoldJob, FoldResult, FoldStopped, PredictionJob

WORK = Work("toy-0000", tuple(FoldJob("toy-0000", {}, fold, Path(), Path(f"{fold}.pt")) for fold in (2, 0, 1)))
ALONE = Replica(torch.device("cpu"))


@dataclass
class DriverChannel:
    """Remembers what was said; knows folds that a lost worker had ended, and after which fold to stop."""

    known: dict[int, bool] = field(default_factory=dict)
    stop_after: int | None = None
    said: list = field(default_factory=list)
    missing: Exception | None = None

    def post(self, message):
        self.said.append(message)

    def bring(self, stores):
        if self.missing:
            raise TrialFailed(str(self.missing)) from self.missing

    def outcome(self, trial, fold):
        return self.known.get(fold)

    def goes_on(self, trial, fold):
        return fold != self.stop_after

    def of(self, kind):
        return [message.fold for message in self.said if isinstance(message, kind)]


@pytest.fixture
def training(monkeypatch):
    """Replace training by results that a test sets for a fold: a value, or an error to raise."""
    results = {}

    def train_job(job, labels, replica, on_epoch, on_taught):
        on_epoch({"fold": job.fold, "epoch": 1})
        result = results.get(job.fold, FoldResult(job.fold, np.empty(0), np.empty(0), []))
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(worker, "train_job", train_job)
    monkeypatch.setattr(FoldJob, "effort", 1)
    return results


def test_folds_are_trained_in_their_order(training):
    channel = DriverChannel()
    train_work(WORK, None, ALONE, channel)
    assert [type(message) for message in channel.said] == [FoldBegun, EpochDone, FoldDone] * 3
    assert channel.of(FoldDone) == [2, 0, 1]


def test_the_driver_stops_a_trial_between_folds(training):
    channel = DriverChannel(stop_after=0)
    train_work(WORK, None, ALONE, channel)
    assert channel.of(FoldDone) == [2, 0]


def test_what_a_fold_kept_here_goes_once_the_driver_has_written_it(training, tmp_path):
    jobs = tuple(FoldJob("toy-0000", {}, fold, (), tmp_path / str(fold) / "state" / "checkpoint.pt") for fold in (0, 1))
    for job in jobs:
        (job.saved.parent / "weights").mkdir(parents=True)
        for path in (job.saved, job.saved.parent / "weights" / "1.safetensors"):
            path.write_bytes(b"x")
    (tmp_path / "0" / "oof.parquet").write_bytes(b"the driver's")
    channel, seen = DriverChannel(), []

    def goes_on(trial, fold):
        seen.append((fold, jobs[fold].saved.is_file()))
        return True

    channel.goes_on = goes_on
    train_work(Work("toy-0000", jobs), None, ALONE, channel)
    assert seen == [(0, True), (1, True)], "it stays until the driver answers, after the last fold as well"
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()] == [Path("0/oof.parquet")]


def test_a_fold_that_a_lost_worker_had_trained_is_passed_over(training):
    channel = DriverChannel(known={2: True})
    train_work(WORK, None, ALONE, channel)
    assert channel.of(FoldDone) == [0, 1]


def test_a_trial_that_a_lost_worker_had_failed_stays_failed(training):
    channel = DriverChannel(known={2: False})
    train_work(WORK, None, ALONE, channel)
    assert channel.said == []


def test_a_fold_stopped_inside_ends_the_trial(training):
    training[0] = FoldStopped(0, [])
    channel = DriverChannel()
    train_work(WORK, None, ALONE, channel)
    assert (channel.of(FoldDone), channel.of(FoldHalted)) == ([2], [0])


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (TrialFailed("the training loss became nan in epoch 3"), "the training loss became nan in epoch 3"),
        (RuntimeError("shapes do not match"), "RuntimeError: shapes do not match (test_worker.py:"),
    ],
)
def test_what_fails_is_posted_with_its_cause(training, error, cause):
    training[2] = error
    channel = DriverChannel()
    train_work(WORK, None, ALONE, channel)
    assert channel.of(FoldFailed) == [2] and channel.of(FoldDone) == []
    assert channel.said[-1].cause.startswith(cause) and not channel.said[-1].of_memory


def test_lack_of_memory_is_told_from_other_failures(training):
    refused = TrialFailed("not even one example fits")
    refused.__cause__ = torch.OutOfMemoryError("CUDA out of memory")
    for error in (refused, torch.OutOfMemoryError("CUDA out of memory")):
        training[2] = error
        channel = DriverChannel()
        train_work(WORK, None, ALONE, channel)
        assert channel.said[-1].of_memory


def test_a_full_disk_is_nobodys_configuration(training):
    training[2] = OSError(errno.ENOSPC, "No space left on device")
    channel = DriverChannel()
    train_work(WORK, None, ALONE, channel)
    assert channel.said[-1] == StorageFailed("toy-0000", 2, "2.pt: No space left on device")


def test_ranks_that_wait_for_each_other_need_a_new_group(training):
    training[2] = RuntimeError("NCCL")
    with pytest.raises(RuntimeError, match="NCCL"):
        train_work(WORK, None, Replica(torch.device("cpu"), rank=1, size=2), DriverChannel())


class Follower(Team):
    """What a second rank hears from the first."""

    def __init__(self, *answers):
        self.answers = list(answers)

    def from_first(self, state):
        return self.answers.pop(0)


def test_other_ranks_do_as_the_first_and_say_nothing(training):
    channel = DriverChannel()
    replica = Replica(torch.device("cpu"), rank=1, size=2, team=Follower(None, True, None, False))
    train_work(WORK, None, replica, channel)
    assert channel.said == []
    assert replica.team.answers == [], "two folds were trained, and the first rank was told to stop then"


def test_a_prediction_has_its_stores_brought_before_its_time_begins(training):
    job = PredictionJob("toy-0000", {}, 2, (), 3, b"")
    channel = DriverChannel(missing=OSError("no node has it"))
    train_work(Work("toy-0000", (job,)), None, ALONE, channel)
    assert channel.said == [FoldBegun("toy-0000", 2, 0, None), FoldFailed("toy-0000", 2, "no node has it")]


def test_what_a_fold_reads_is_brought_before_it_begins(training, monkeypatch):
    """So the time that a copy takes is none of the fold's."""
    channel, order = DriverChannel(), []
    monkeypatch.setattr(channel, "bring", lambda stores: order.append(("bring", tuple(stores))))
    monkeypatch.setattr(channel, "post", lambda message: order.append(type(message)))
    job = FoldJob("toy-0000", {}, 0, ("a store",), Path("0.pt"), weights="weights")
    train_work(Work("toy-0000", (job,)), None, ALONE, channel)
    assert order[:2] == [("bring", ("a store", "weights")), FoldBegun]


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        (DataError("no node has it"), FoldFailed),
        (NoRoom("4 GB needed"), StorageFailed),
        (OSError(28, "full"), StorageFailed),
    ],
)
def test_a_store_that_cannot_be_had_fails_the_fold_and_a_full_disk_the_search(training, cause, kind):
    channel = DriverChannel(missing=cause)
    train_work(WORK, None, ALONE, channel)
    assert [type(message) for message in channel.said] == [FoldBegun, kind]
    assert str(cause) in channel.said[1].cause


def test_other_ranks_tell_the_user_why_their_node_lacks_a_store(training):
    class Two(Team):
        def mean(self, value):
            return value

    channel = DriverChannel(missing=NoRoom("4 GB needed"))
    train_work(WORK, None, Replica(torch.device("cpu"), rank=1, size=2, team=Two()), channel)
    assert channel.said == [Note("4 GB needed")]
