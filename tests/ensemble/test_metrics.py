"""Metrics at thresholds: each fold's are chosen on the others, and a plain baseline's likewise."""

import numpy as np
import pytest

from hms_ray.core.seeds import stream
from hms_ray.ensemble import metrics
from hms_ray.ensemble.nested import Fits, cross_fit


def of_pool(rows, nested):
    return metrics.of_pool(rows, nested).model_dump(mode="json", exclude={"macro_auroc_interval"})


def of_table(rows, probs):
    return metrics.of_table(rows, probs).model_dump(mode="json", exclude={"macro_auroc_interval"})


@pytest.fixture(scope="module")
def labels(make_rows):
    """Rows of yes-or-no labels, of which some are not scored, and a pool that is cross-fitted on them."""
    weight = np.where(np.arange(120) % 5 == 0, 0.0, 1.0)
    rows = make_rows(n_groups=60, kind="multilabel", weight=weight)
    return rows, cross_fit(Fits(rows), "linear")


def test_thresholds_of_a_fold_are_those_of_the_others_by_the_pool_fitted_there(labels):
    rows, nested = labels
    found, targets = of_pool(rows, nested), rows.task.from_outcomes(rows.targets)
    for fold in (0, 1, 2):
        others = rows.scored & (rows.folds != fold)
        predicted = rows.task.from_outcomes(nested.pools[fold].predict(rows.probs[others]))
        assert found["thresholds"][str(fold)] == rows.task.thresholds(targets[others], predicted).tolist()
    assert len({tuple(its) for its in found["thresholds"].values()}) == 3


def test_a_folds_own_targets_do_not_change_its_thresholds(labels, other_targets):
    rows, nested = labels
    changed = other_targets(rows, rows.folds == 1)
    before, after = (of_pool(its, nested)["thresholds"] for its in (rows, changed))
    assert before["1"] == after["1"] and before["0"] != after["0"]


def test_thresholded_metrics_are_those_of_each_row_at_its_folds_thresholds(labels):
    rows, nested = labels
    found = of_pool(rows, nested)
    targets, probs = (rows.task.from_outcomes(its)[rows.scored] for its in (rows.targets, nested.probs))
    by_unit = np.array([found["thresholds"][str(fold)] for fold in rows.folds[rows.scored]])
    confusion = rows.task.confusion(targets, probs, by_unit)
    assert found["thresholded"]["confusion"] == confusion.tolist()
    assert found["confusion"] == rows.task.confusion(targets, probs).tolist() != confusion.tolist()
    assert found["thresholded"]["macro_auroc"] == found["macro_auroc"]


def test_a_table_chooses_on_its_own_predictions_of_the_other_folds(labels):
    rows, _ = labels
    probs, targets = (rows.task.from_outcomes(its) for its in (rows.probs[:, 2], rows.targets))
    found = of_table(rows, probs)
    others = rows.scored & (rows.folds != 2)
    assert found["thresholds"]["2"] == rows.task.thresholds(targets[others], probs[others]).tolist()


def test_a_fold_that_holds_every_scored_unit_keeps_one_half(make_rows):
    rows = make_rows(kind="multilabel", weight=(np.repeat(np.arange(24), 2) % 3 == 1).astype(float))
    found = of_pool(rows, cross_fit(Fits(rows), "linear"))
    assert found["thresholds"]["1"] == [0.5] * 3 and found["thresholded"] == {
        name: value for name, value in found.items() if not name.startswith("thresh")
    }


def test_votes_have_neither_thresholds_nor_an_interval(make_rows):
    rows = make_rows()
    nested = cross_fit(Fits(rows), "linear")
    found = of_pool(rows, nested)
    assert (found["thresholds"], found["thresholded"]) == (None, None)
    assert metrics.aurocs(rows, nested.probs, None, stream(0, "auroc")) == (None, None, None)


def test_the_auroc_is_of_the_scored_units(labels):
    rows, nested = labels
    probs = rows.task.from_outcomes(nested.probs)
    mine, theirs, gain = metrics.aurocs(rows, probs, probs, stream(0, "auroc"))
    assert mine.value == pytest.approx(of_pool(rows, nested)["macro_auroc"], rel=1e-12)
    assert mine == theirs and gain.value == 0
    assert metrics.aurocs(rows, probs, None, stream(0, "auroc")) == (mine, None, None)
