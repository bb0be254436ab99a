"""The folds that chosen configurations still lack."""

import shutil

import numpy as np
import pytest
import torch

from hms_ray.core.errors import SearchAborted
from hms_ray.execution import worker
from hms_ray.execution.events import FoldFailed
from hms_ray.execution.local import LocalChannel
from hms_ray.execution.packing import GpuPacking
from hms_ray.execution.worker import train_work
from hms_ray.search.disk_limit import DiskLimit
from hms_ray.search.finalists.remaining_folds import Finals
from hms_ray.search.recorder import Recorder
from hms_ray.study.oof import OofTable
from hms_ray.training.distributed import Replica
from hms_ray.training.jobs import FoldJob, PredictionJob

TRIAL = "toy-base"


def finals(toy, disk_gb: float | None = None) -> Finals:
    recorder, disk = Recorder(toy.study.trial_store(), lambda event: None), DiskLimit(toy.folder.root, disk_gb)
    return Finals({TRIAL: toy.space.run}, toy.study, recorder, disk, 0.25, GpuPacking(toy.folder.gpu_memory))


def folds(source: Finals) -> list[int]:
    found = []
    while not source.exhausted():
        work = source.next()
        assert (work.trial, work.gpus, len(work.jobs)) == (TRIAL, 0.25, 1)
        found.append(work.jobs[0].fold)
        source.ended(work)
    return found


def test_each_missing_fold_is_a_work_of_its_own(toy):
    store = toy.study.trial_store()
    toy.train(toy.study, toy.space, 1, store)
    assert folds(finals(toy)) == [0, 2]


def test_a_fold_whose_weights_were_dropped_is_trained_again(toy):
    store = toy.study.trial_store()
    toy.train(toy.study, toy.space, 1, store)
    store.drop_weights(TRIAL)
    assert folds(finals(toy)) == [0, 1, 2]


def test_interrupted_no_more_folds_begin(toy):
    source = finals(toy)
    source.next()
    source.interrupt()
    assert source.exhausted() and source.next() is None


def test_lack_of_memory_asks_for_a_larger_share(toy):
    source = finals(toy)
    source.packing.add(toy.space.run, 10**9, 10**11)
    assert source.packing.share(toy.space.run) == 0.125
    source.handle(FoldFailed(TRIAL, 0, "the images do not fit"))
    assert not source.short
    source.handle(FoldFailed(TRIAL, 1, "not even one example fits", of_memory=True))
    assert source.short and source.packing.share(toy.space.run) == 0.5, "half as many as the four that shared it"


def test_a_study_that_outgrows_its_budget_stops(toy):
    with pytest.raises(SearchAborted, match=r"more than budget\.disk_gb: 1e-06"):
        finals(toy, disk_gb=1e-6).next()


def run(source: Finals, toy, most: int = 99) -> list[tuple[type, int]]:
    """Do the works one after the other, as a worker does, and return what each was; at most so many."""
    found = []
    while not source.exhausted() and len(found) < most:
        work = source.next()
        train_work(work, toy.study.labels, Replica(torch.device("cpu")), LocalChannel(source, None))
        source.ended(work)
        found.append((type(work.jobs[0]), work.jobs[0].fold))
    return found


def test_folds_are_trained_then_predicted_after_the_epoch_that_was_chosen(toy):
    source = finals(toy)
    found = run(source, toy)
    assert found[:3] == [(FoldJob, 0), (FoldJob, 1), (FoldJob, 2)]
    table = OofTable.read(toy.folder.oof(TRIAL))
    early = [fold for fold, epoch in enumerate(table.epochs) if epoch == 1]
    assert early and found[3:] == [(PredictionJob, fold) for fold in early]
    assert np.isfinite(table.probs).all() and sorted(table.unit_ids) == sorted(toy.study.labels.unit_ids)
    assert source.store.is_whole(TRIAL)


@pytest.mark.parametrize("after", [3, 4])
def test_killed_before_all_is_predicted_only_that_is_done_again(toy, after):
    """The driver dies after the last fold was trained, or after one was predicted."""
    whole = run(finals(toy), toy)
    table = OofTable.read(toy.folder.oof(TRIAL))
    shutil.rmtree(toy.folder.root / "trials")
    toy.folder.oof(TRIAL).unlink()
    assert run(finals(toy), toy, after) == whole[:after]
    assert not toy.folder.oof(TRIAL).is_file()
    assert run(finals(toy), toy) == whole[after:] != []
    np.testing.assert_array_equal(OofTable.read(toy.folder.oof(TRIAL)).probs, table.probs)


def test_while_a_fold_is_in_flight_more_may_come(toy):
    """A replica that has nothing to train waits: the fold of another may be the last that tells an epoch."""
    source = finals(toy)
    works = [source.next() for _ in range(3)]
    assert source.next() is None and not source.exhausted()
    for work in works:
        source.ended(work)
    assert source.exhausted()


def test_a_fold_that_cannot_be_predicted_leaves_the_trial_without_a_table(toy, monkeypatch):
    monkeypatch.setattr(worker, "predict_job", lambda *_: 1 / 0)
    source = finals(toy)
    run(source, toy)
    assert not toy.folder.oof(TRIAL).is_file()
    assert source.recorder.failures[TRIAL].cause.startswith(
        "ZeroDivisionError: division by zero (test_remaining_folds.py:"
    )
