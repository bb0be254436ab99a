"""Diagnostics against figures worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import classification_report, roc_auc_score

from hms_ray import tasks
from hms_ray.ensemble.bootstrap import standard_error
from hms_ray.report import diagnostics
from hms_ray.report.diagnostics import Predictions
from hms_ray.study.oof import OofTable

VOTES = tasks.from_dict({"kind": "votes", "classes": ["a", "b"]})
LABELS = tasks.from_dict({"kind": "multilabel", "classes": ["a", "b"]})


@pytest.fixture
def four() -> Predictions:
    """Two units of class a, one of b, one tied; patients p, p, q, r."""
    targets = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.5, 0.5]])
    probs = np.array([[0.8, 0.2], [0.4, 0.6], [0.1, 0.9], [0.3, 0.7]])
    return Predictions(VOTES, np.array(["p", "p", "q", "r"]), targets, probs, np.array([0.2, 0.6, 0.1, 0.3]))


def test_cluster_error_of_singletons_is_the_ordinary_standard_error():
    values = pd.Series([1.0, 2.0, 4.0, 8.0])
    ordinary = values.std(ddof=1) / 2
    assert standard_error(values, pd.Series(list("abcd"))) == pytest.approx(ordinary)


def test_cluster_error_counts_patients_not_repeated_rows():
    values, groups = pd.Series([1.0, 2.0, 4.0]), pd.Series(list("abc"))
    once = standard_error(values, groups)
    tenfold = standard_error(pd.concat([values] * 10), pd.concat([groups] * 10))
    assert tenfold == pytest.approx(once)


def test_cluster_error_of_one_patient_is_unknown():
    assert np.isnan(standard_error(pd.Series([1.0, 2.0]), pd.Series(["a", "a"])))


def test_contributions_add_up_to_the_score(four):
    rows = diagnostics.by_class(four)
    assert [row.units for row in rows] == [3, 1]
    assert [row.groups for row in rows] == [2, 1]
    assert rows[0].score == pytest.approx((0.2 + 0.6 + 0.3) / 3)
    assert sum(row.contribution for row in rows) == pytest.approx(four.scores.mean())


def test_shares_of_classes(four):
    a, b = diagnostics.by_class(four)
    assert (a.target_share, a.predicted_share) == (pytest.approx(0.6), pytest.approx(0.4))
    assert a.calibration_error == pytest.approx(0.2) == pytest.approx(b.calibration_error)


def test_classes_have_the_tasks_metrics(four):
    metrics = VOTES.metrics(four.targets, four.probs)
    for k, row in enumerate(diagnostics.by_class(four)):
        assert (row.units, row.calibration_error) == (metrics.support[k], metrics.class_calibration[k])
        assert (row.precision, row.recall) == (metrics.precision[k], metrics.recall[k])
        assert (row.specificity, row.f1) == (metrics.specificity[k], metrics.f1[k])


def test_the_calibration_error_of_a_class_is_the_mean_distance_of_its_drawn_bins():
    rng = np.random.default_rng(0)
    targets, probs = rng.dirichlet(np.ones(2), 400), rng.dirichlet(np.ones(2), 400)
    found = Predictions(VOTES, np.arange(400).astype(str), targets, probs, np.zeros(400))
    for k, row in enumerate(diagnostics.by_class(found)):
        bins = diagnostics.calibration(found, k)
        distance = (bins["predicted"] - bins["observed"]).abs()
        assert row.calibration_error == pytest.approx(np.average(distance, weights=bins["units"]))


def test_calibration_bins_hold_equally_many_rows_and_find_the_bias():
    rng = np.random.default_rng(0)
    predicted = rng.uniform(0, 0.5, 900)
    probs = np.column_stack([predicted, 1 - predicted])
    targets = np.column_stack([predicted + 0.1, 0.9 - predicted])
    found = Predictions(VOTES, np.arange(900).astype(str), targets, probs, np.zeros(900))
    bins = diagnostics.calibration(found, 0)
    assert bins["units"].tolist() == [90] * 10
    assert (bins["observed"] - bins["predicted"]).to_numpy() == pytest.approx(0.1)
    assert bins["predicted"].is_monotonic_increasing


def test_a_class_that_nobody_voted_for_has_no_score(four):
    alone = Predictions(VOTES, four.groups[:1], four.targets[:1], four.probs[:1], four.scores[:1])
    empty = diagnostics.by_class(alone)[1]
    assert empty.units == 0 and np.isnan(empty.score) and empty.contribution == 0


def test_a_label_is_scored_as_a_question_of_its_own_over_all_units():
    targets = np.array([[1.0, 1.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    probs = np.array([[0.8, 0.9], [0.4, 0.6], [0.5, 0.9], [0.3, 0.2]])
    found = Predictions(LABELS, np.array(list("ppqr")), targets, probs, LABELS.row_scores(targets, probs))
    a, b = diagnostics.by_class(found)
    assert (a.units, a.groups, b.units, b.groups) == (2, 2, 3, 2)
    assert a.score == pytest.approx(-np.log([0.8, 0.6, 0.5, 0.7]).mean())
    assert a.contribution + b.contribution == pytest.approx(found.scores.mean())


@pytest.fixture
def labels() -> tuple[np.ndarray, np.ndarray]:
    """Labels (80, 3) of 0 and 1, and predictions (80, 3)."""
    rng = np.random.default_rng(0)
    targets = (rng.random((80, 3)) < [0.5, 0.3, 0.1]).astype(float)
    return targets, np.clip(0.3 * targets + rng.random(targets.shape) * 0.6, 0, 1)


def test_the_report_of_decisions_is_scikit_learns(labels):
    targets, probs = labels
    task = tasks.from_dict({"kind": "multilabel", "classes": ["a", "b", "c"]})
    thresholds = np.array([0.4, 0.5, 0.6])
    lines = diagnostics.report(task.metrics(targets, probs, thresholds))
    expected = classification_report(targets, probs > thresholds, output_dict=True, zero_division=np.nan)
    names = {"a": "0", "b": "1", "c": "2", "Micro average": "micro avg", "Macro average": "macro avg"}
    assert [line.name for line in lines] == list(names)
    for line in lines:
        its = expected[names[line.name]]
        found = (line.precision, line.recall, line.f1, line.support)
        assert found == pytest.approx((its["precision"], its["recall"], its["f1-score"], its["support"]))
    *classes, micro, macro = lines
    said, wrong = (probs > thresholds)[targets == 0], targets == 0
    assert micro.specificity == pytest.approx(1 - said.sum() / wrong.sum())
    assert macro.specificity == pytest.approx(np.mean([line.specificity for line in classes]))
    assert macro.auroc == pytest.approx(roc_auc_score(targets, probs)) and np.isnan(micro.auroc)


def test_what_has_no_units_has_no_share_in_the_report():
    task = tasks.from_dict({"kind": "binary", "classes": ["a"]})
    line, micro, macro = diagnostics.report(task.metrics(np.zeros((3, 1)), np.full((3, 1), 0.1)))
    for its in (line, micro, macro):
        assert np.isnan([its.precision, its.recall, its.f1, its.auroc]).all()
        assert (its.specificity, its.support) == (1, 0)


def test_each_row_is_decided_by_the_thresholds_of_its_fold(labels):
    targets, probs = labels
    task = tasks.from_dict({"kind": "multilabel", "classes": ["a", "b", "c"]})
    names, folds = np.arange(80).astype(str), np.arange(80) % 2
    table = OofTable(names, names, folds, np.ones(80, int), targets, probs, task, "t", "s", "d", "f")
    found = diagnostics.predictions(table, 1, {"0": [0.4, 0.5, 0.6], "1": [0.2, 0.7, 0.5]})
    parts = [
        task.metrics(targets[folds == k], probs[folds == k], its)
        for k, its in enumerate(([0.4, 0.5, 0.6], [0.2, 0.7, 0.5]))
    ]
    np.testing.assert_array_equal(found.thresholded.confusion, sum(part.confusion for part in parts))
    assert diagnostics.predictions(table, 1).thresholded is None
