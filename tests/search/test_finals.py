"""The folds that chosen configurations still lack."""

import pytest

from hms_ray.errors import SearchAborted
from hms_ray.execution.mailbox import FoldFailed
from hms_ray.execution.packing import Shares
from hms_ray.search.board import Board
from hms_ray.search.finals import Finals
from hms_ray.search.ledger import Ledger

TRIAL = "toy-base"


def finals(toy, disk_gb: float | None = None) -> Finals:
    ledger = Ledger(toy.study, (), Board("test", trials=0, trial_folds=0), disk_gb)
    return Finals({TRIAL: toy.space.run}, ledger, 0.25, Shares(toy.folder.gpu_memory))


def folds(source: Finals) -> list[int]:
    found = []
    while not source.exhausted():
        work = source.next()
        assert (work.trial, work.gpus, len(work.jobs)) == (TRIAL, 0.25, 1)
        found.append(work.jobs[0].fold)
    return found


def test_each_missing_fold_is_a_work_of_its_own(toy):
    ledger = Ledger(toy.study, (), Board("test", trials=0, trial_folds=0))
    toy.train(toy.study, toy.space, 1, ledger)
    assert folds(finals(toy)) == [0, 2]


def test_a_fold_whose_weights_were_dropped_is_trained_again(toy):
    ledger = Ledger(toy.study, (), Board("test", trials=0, trial_folds=0))
    toy.train(toy.study, toy.space, 1, ledger)
    ledger.drop_weights(TRIAL)
    assert folds(finals(toy)) == [0, 1, 2]


def test_interrupted_no_more_folds_begin(toy):
    source = finals(toy)
    source.next()
    source.interrupt()
    assert source.exhausted() and source.next() is None


def test_lack_of_memory_asks_for_a_larger_share(toy):
    source = finals(toy)
    source.shares.add(toy.space.run, 10**9, 10**11)
    assert source.shares.share(toy.space.run) == 0.125
    source.handle(FoldFailed(TRIAL, 0, "the images do not fit"))
    assert not source.short
    source.handle(FoldFailed(TRIAL, 1, "not even one example fits", of_memory=True))
    assert source.short and source.shares.share(toy.space.run) == 0.5, "half as many as the four that shared it"


def test_a_study_that_outgrows_its_budget_stops(toy):
    with pytest.raises(SearchAborted, match=r"more than budget\.disk_gb: 1e-06"):
        finals(toy, disk_gb=1e-6).next()
