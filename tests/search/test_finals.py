"""The folds that chosen configurations still lack."""

from hms_ray.search.board import Board
from hms_ray.search.finals import Finals
from hms_ray.search.ledger import Ledger

TRIAL = "toy-base"


def finals(toy) -> Finals:
    return Finals({TRIAL: toy.space.run}, Ledger(toy.study, (), Board("test", trials=0, trial_folds=0)), 0.25)


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
