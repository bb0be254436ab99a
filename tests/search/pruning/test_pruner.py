"""The pruner gathers predictions on the scored units of the right folds, and asks the rule that the space names."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from hms_ray.search.finalists import allocation
from hms_ray.search.pruning import ensemble_gain, learning_curve
from hms_ray.search.pruning.pruner import Pruner
from hms_ray.search.space.settings import Budget, Race

FOLDS = (0, 1)
LRS = {"toy-0000": 0.01, "toy-0001": 0.03, "toy-0002": 0.1}


@pytest.fixture
def raced(toy):
    """Three trials with both trial folds, and one more with the first."""
    store = toy.study.trial_store(FOLDS)
    for trial, lr in LRS.items():
        space = toy.make_space(stages=[{"epochs": 2, "lr": lr}])
        for fold in FOLDS:
            toy.train(toy.study, space, fold, store, trial)
    toy.run = toy.make_space(stages=[{"epochs": 2, "lr": 0.02}]).run
    toy.train(toy.study, toy.make_space(stages=[{"epochs": 2, "lr": 0.02}]), 0, store, "toy-0003")
    return SimpleNamespace(
        store=store,
        run=toy.run,
        pruner=lambda rule="ensemble", budget=Budget(), **more: Pruner(  # noqa: B008
            Race(rule=rule, **more), budget, store, FOLDS
        ),
    )


def stacked(store, trials, folds):
    return np.stack([store.scored(trial, folds).probs for trial in trials], 1)


@pytest.mark.parametrize("rule", ["ensemble", "best"])
def test_a_verdict_is_that_of_the_rule_on_the_folds_done(raced, rule):
    kept, own = list(LRS), raced.store.scored("toy-0003", [0])
    decide = raced.pruner(rule, stop_rate=0.2).decide("toy-0003", [0], kept)
    look = {"look": 1, "looks": 2, "stop_rate": 0.2}
    if rule == "ensemble":
        others = stacked(raced.store, kept, [0])
        expected = ensemble_gain.judge_ensemble(
            own.targets, own.groups, own.probs, others, **look, min_gain=allocation.PRICE / 16
        )
    else:
        best = min(kept, key=lambda trial: raced.store.score(trial, [0]))
        rival = raced.store.scored(best, [0]).probs
        expected = ensemble_gain.judge_best(own.targets, own.groups, own.probs, rival, **look)
    assert str(decide) == str(expected), "NaN included"


def test_nothing_is_stopped_without_a_race_or_without_others(raced):
    assert not raced.pruner("none").decide("toy-0003", [0], list(LRS)).stop
    assert not raced.pruner().decide("toy-0003", [0], []).stop


def test_limits_come_from_the_curves_of_the_same_fold(raced):
    kept = [*LRS, "toy-0003"]
    for rule in ("ensemble", "best"):
        expected = learning_curve.prune_thresholds(
            [learning_curve.Curve(raced.store.curve(trial, 0), (2,)) for trial in kept], (2,), rule
        )
        assert raced.pruner(rule).prune_thresholds(raced.run, 0, kept) == tuple(expected)
        assert np.isfinite(expected[0]) and np.isinf(expected[1])
    assert raced.pruner("none").prune_thresholds(raced.run, 0, kept) == ()
    assert raced.pruner(inside_folds=False).prune_thresholds(raced.run, 0, kept) == ()


def test_an_estimate_corrects_for_the_folds_that_are_missing(raced):
    kept = list(LRS)
    others = np.array([[raced.store.score(trial, [fold]) for fold in FOLDS] for trial in kept])
    units = np.array([len(raced.store.scored(kept[0], [fold]).targets) for fold in FOLDS])
    own = raced.store.score("toy-0003", [0])
    expected = own - others[:, 0].mean() + np.average(others.mean(0), weights=units)
    assert raced.pruner().estimate("toy-0003", raced.run, None, kept) == pytest.approx(expected, rel=1e-12)


def test_an_estimate_of_a_fold_stopped_inside_projects_its_end(raced):
    curve = raced.store.curves["toy-0003"]
    extra = curve.iloc[[0]].assign(fold=1, score=2.0)
    raced.store.curves["toy-0003"] = pd.concat([curve, extra], ignore_index=True)
    kept = list(LRS)
    falls = [np.subtract(*raced.store.curve(trial, 1)) for trial in kept]
    ends = np.array([raced.store.score("toy-0003", [0]), 2.0 - np.mean(falls)])
    units = np.array([len(raced.store.scored(kept[0], [fold]).targets) for fold in FOLDS])
    found = raced.pruner().estimate("toy-0003", raced.run, 1, kept)
    assert found == pytest.approx(np.average(ends, weights=units), rel=1e-9)


def planned(raced, trials, **terms):
    """Plan by hand; the trials have finished folds in the study's order."""
    done = [2 if trial in LRS else 1 for trial in trials]
    longest = raced.store.scored("toy-0000", FOLDS)
    probs = np.full((len(longest.targets), len(trials), longest.probs.shape[1]), np.nan)
    for i, (trial, count) in enumerate(zip(trials, done, strict=True)):
        its = raced.store.scored(trial, FOLDS[:count]).probs
        probs[: len(its), i] = its
    trained = np.arange(3) < np.array(done)[:, None]
    return allocation.plan(longest.targets, probs, longest.groups, longest.folds, trained, **terms)


def test_a_plan_is_by_all_folds_that_trials_have_finished(raced):
    trials = [*LRS, "toy-0003"]
    found = raced.pruner().plan(trials, 0)
    assert found == planned(raced, trials, price=allocation.PRICE * 4 / 16, budget=1.0, most=None)
    assert found.pairs == [(3, 1)] and found.kept == [0, 1, 2, 3], "six patients drop nobody"
    capped = raced.pruner(budget=Budget(finalists=2)).plan(trials, 0)
    assert capped == planned(raced, trials, price=0, most=2) and len(capped.kept) == 2
    assert raced.pruner().foremost(trials, 2) == capped.kept


@pytest.mark.parametrize(("spent", "kept"), [(0, 4), (36 - 7 - 4, 3), (99, 1)])
def test_a_plan_keeps_to_the_share_of_folds(raced, spent, kept):
    """Of 12 trials with 3 folds; these four have 7 of them, and lack 5."""
    pruner = raced.pruner(folds=1.0, budget=Budget(trials=12))
    assert len(pruner.plan([*LRS, "toy-0003"], spent).kept) == kept


def test_folds_that_a_trial_has_finished_are_counted(raced):
    assert [raced.pruner().trained(trial) for trial in (*LRS, "toy-0003")] == [2, 2, 2, 1]


def test_gain_and_ensemble_are_over_all_trial_folds(raced):
    kept = list(LRS)
    targets, probs = raced.store.scored(kept[0], FOLDS).targets, stacked(raced.store, kept, FOLDS)
    pruner = raced.pruner(min_gain=0.0)
    assert pruner.gain(kept[2], FOLDS, kept[:2]) == ensemble_gain.gain(targets, probs[:, 2], probs[:, :2])
    score, members, units, patients = pruner.ensemble(kept)
    assert score <= min(raced.store.score(trial, FOLDS) for trial in kept) + 1e-9
    assert 1 <= members <= 3 and units == len(targets)
    assert patients == len(np.unique(raced.store.scored(kept[0], FOLDS).groups))
