"""Formats of numbers."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest

from hms_ray.report import tables, words
from hms_ray.report.summary import read_summary


@pytest.mark.parametrize(
    ("gap", "expected"),
    [(2.31e-11, "2.4e-11"), (2.3e-11, "2.3e-11"), (9.91e-9, "1.0e-8"), (0.0, "0"), (-3e-17, "0"), (0.012, "1.2e-2")],
)
def test_a_bound_is_rounded_up(gap, expected):
    said = words.bound(gap)
    assert float(said) >= gap
    assert float(said) == float(expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (42, "42 s"), (59.9, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_seconds(value, expected):
    assert words.seconds(value) == expected


def test_nothing_is_a_dash():
    dashes = {words.nats(None), words.nats(math.nan), words.percent(math.nan), words.whole(math.nan), words.bound(None)}
    assert dashes == {words.seconds(math.nan)} == {words.NOTHING}


def test_a_score_has_five_decimals():
    assert words.nats(0.2144453) == "0.21445"


def test_margin_says_which_way():
    assert [words.margin(m) for m in (0.087, -0.012, 0.0)] == ["8.7\u00a0% lower", "1.2\u00a0% higher", "equal"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (0.000123456, "0.0001235"),
        (16, "16"),
        ("stack", "stack"),
        ([1, 2], "[1, 2]"),
        (True, "true"),
        (None, "null"),
        ([], "none"),
    ],
)
def test_hyper_parameters_in_few_characters(content, expected):
    assert words.value(content) == expected


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ({"score": [0.5, 0.4]}, ""),  # of a study from before they were counted
        ({"score": [0.5, 0.4], "skipped_steps": [0, 0]}, ""),
        ({"score": [0.5, 0.4], "skipped_steps": [3, 1]}, " · 4 steps skipped: infinite gradients in float16"),
    ],
)
def test_skipped_steps_are_counted_where_there_are_any(curve, expected):
    assert words.skipped_steps(pd.DataFrame(curve)) == expected


def test_fold_list():
    assert (words.fold_list([0]), words.fold_list((0, 2))) == ("fold 0", "folds 0, 2")


@pytest.mark.parametrize(
    ("trial", "expected"),
    [
        (("COMPLETE", math.nan, ""), ""),
        (("PRUNED", 0.25, "too far behind"), "stopped after 25.0\u00a0% of its schedule: too far behind"),
        (("PRUNED", math.nan, ""), "stopped after \u2013 of its schedule: no cause recorded"),
        (("FAIL", math.nan, "out of memory"), "failed: out of memory"),
        (("RUNNING", math.nan, ""), "still running when this page was written"),
    ],
)
def test_a_trial_without_a_score_says_why(trial, expected):
    assert words.outcome(dict(zip(("state", "fidelity", "cause"), trial, strict=True))) == expected


@pytest.mark.parametrize(
    ("rule", "folds", "said"),
    [
        ("cross_fitted", 1, "scored after the last epoch: another choice needs two other folds of the trial"),
        ("cross_fitted", 2, "scored after the last epoch: another choice needs two other folds of the trial"),
        (
            "cross_fitted",
            3,
            "each fold scored after its last epoch, or after one that is clearly better on the trial's other folds",
        ),
        ("last", 1, "scored after the last epoch"),
        ("last", 3, "scored after the last epoch"),
        ("best", 3, "optimistic: best epochs, chosen on the rows scored"),
    ],
)
def test_after_which_epoch_trials_are_scored(rule, folds, said):
    study, space = SimpleNamespace(epoch=rule), {"budget": {"trial_folds": folds}}
    assert words.trial_epochs(study, space) == said
    assert words.trial_epochs(study, None) == ""


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("cross_fitted", "epochs 4, 4, 5, chosen on the other folds"),
        ("last", "epochs 4, 4, 5, the last"),
        ("best", "epochs 4, 4, 5, the best of each\u00a0‡"),
        ("given", ""),
    ],
)
def test_which_epoch_each_fold_has(rule, said):
    assert words.epochs(SimpleNamespace(epoch_rule=rule, epochs=(4, 4, 5))) == said


def test_a_mark_follows_a_caption_or_is_nothing():
    assert (words.mark("optimistic"), words.mark("")) == (" · optimistic", "")


@pytest.mark.parametrize(("foreign", "said"), [(True, 1), (False, 0)])
def test_whose_units_they_are_is_in_doubt_only_where_they_were_imported(fake, foreign, said):
    study = fake(patients=40, units_a_patient=1, foreign=foreign).write().add_ensemble()
    found = tables.read_study(study.folder)
    finalists, summary = tables.read_finalists(study.folder, found), read_summary(study.folder, found)
    doubts = [caveat for caveat in words.caveats(found, finalists, summary) if "patient of its own" in caveat]
    assert len(doubts) == said


def test_a_class_that_is_told_without_a_recording_has_a_caveat_and_others_have_none(fake):
    study = fake(kind="multilabel", classes=("AS", "N")).write().add_ensemble()
    found = tables.read_study(study.folder)
    finalists, summary = tables.read_finalists(study.folder, found), read_summary(study.folder, found)
    known = [{"class": "N", "by": by, "auroc": auroc} for by, auroc in (("place in the table", 1.0), ("age", 0.9086))]
    before = words.caveats(found, finalists, summary)
    [added] = set(words.caveats(replace(found, data=found.data | {"shortcuts": known}), finalists, summary)) - set(
        before
    )
    assert added.startswith("N can be predicted without any recording.")
    assert "place in the table (1.000), age (0.909)." in added
    assert not any("without any recording" in caveat for caveat in before)


@pytest.mark.parametrize(
    ("value", "text"), [(-4e-17, "0.00000"), (0.0, "0.00000"), (1e-4, "+0.00010"), (-0.5, "\u22120.50000")]
)
def test_a_difference_of_rounding_has_no_sign(value, text):
    assert words.signed(value) == text
