"""What workers send is written, then published, and failures are remembered."""

import logging
from dataclasses import replace

import pytest

from hms_ray.core.errors import SearchAborted
from hms_ray.execution.events import FoldBegun, FoldDone, FoldFailed, StorageFailed
from hms_ray.search.console import ConsoleView
from hms_ray.search.recorder import Recorder
from hms_ray.study.oof import optimism

TRIAL = "toy-base"


@pytest.mark.parametrize("rule", ["cross_fitted", "last", "best"])
def test_a_score_at_the_best_epoch_is_called_optimistic(toy, rule, caplog):
    study = replace(toy.study, epoch=rule)
    with caplog.at_level(logging.INFO, "hms_ray.search.console"):
        view = ConsoleView("test", trials=0, trial_folds=0, optimism=optimism(rule))
        toy.train(study, toy.make_space(epoch=rule), 0, study.trial_store(), publish=view.handle)
    [said] = [message for message in caplog.messages if " score " in message]
    assert ("votes, optimistic: best epochs, chosen on the rows scored;" in said) == (rule == "best")
    assert ("optimistic" in said) == (rule == "best")


def test_skipped_steps_are_said_where_a_fold_has_some(toy, caplog):
    store, view = toy.study.trial_store(), ConsoleView("test", trials=0, trial_folds=0)
    result = toy.train(toy.study, toy.space, 0, store)
    for skipped, said in ((0, False), (3, True)):
        rows = [row | {"skipped_steps": skipped} for row in result.epochs]
        caplog.clear()
        with caplog.at_level(logging.INFO, "hms_ray.search.console"):
            Recorder(store, view.handle).handle(FoldDone(TRIAL, replace(result, epochs=rows)))
        assert ("; 6 steps skipped: their gradients were infinite in float16" in caplog.text) == said


def test_a_failure_is_remembered_with_its_cause(toy):
    recorder = Recorder(toy.study.trial_store(), lambda event: None)
    recorder.handle(FoldFailed(TRIAL, 0, "the training loss became nan in epoch 1"))
    assert recorder.failures[TRIAL].cause == "the training loss became nan in epoch 1"
    assert recorder.store.missing(TRIAL, [0]) == [0]


def test_a_fold_begun_anew_forgets_its_failure(toy):
    recorder = Recorder(toy.study.trial_store(), lambda event: None)
    recorder.handle(FoldFailed(TRIAL, 0, "out of memory", of_memory=True))
    recorder.handle(FoldBegun(TRIAL, 0, 2, None))
    assert recorder.failures == {}


def test_a_disk_that_refuses_ends_the_search(toy):
    with pytest.raises(SearchAborted, match=r"toy-base fold 1 could not be written: x\.pt: No space left\. Free disk"):
        Recorder(toy.study.trial_store(), print).handle(StorageFailed(TRIAL, 1, "x.pt: No space left"))
