"""Rows: who is scored, what is outside a fold, weighted scores, and predictions that targets contradict."""

from dataclasses import replace

import numpy as np
import pytest

KINDS = ["votes", "multilabel"]


def test_units_without_weight_are_not_counted(make_rows):
    rows = make_rows(n_groups=6, per_group=2, n_folds=3)
    assert (rows.n_members, rows.n_units, rows.n_groups, rows.fold_numbers) == (4, 12, 6, (0, 1, 2))
    few = replace(rows, weight=np.where(rows.groups == 0, 0, np.where(np.arange(12) == 2, 0, 0.5)))
    assert (few.n_units, few.n_groups, few.fold_numbers) == (9, 5, (0, 1, 2))


def test_outside_are_the_scored_units_of_other_folds(make_rows):
    rows = make_rows(n_groups=6, per_group=1, n_folds=3, weight=np.array([1, 1, 1, 0, 2, 1.0]))
    np.testing.assert_array_equal(np.flatnonzero(rows.outside(frozenset({1}))), [0, 2, 5])
    np.testing.assert_array_equal(np.flatnonzero(rows.outside(frozenset({0, 1}))), [2, 5])
    np.testing.assert_array_equal(rows.outside(frozenset()), rows.scored)


@pytest.mark.parametrize("kind", KINDS)
def test_the_score_is_the_tasks_own_weighted(make_rows, kind):
    rows = make_rows(kind=kind)
    pooled, task = rows.probs.mean(1), rows.task
    by_unit = task.row_scores(task.from_outcomes(rows.targets), task.from_outcomes(pooled))
    assert rows.score(pooled) == pytest.approx(by_unit.mean(), rel=1e-14)
    np.testing.assert_array_equal(rows.losses(pooled[3:7], np.arange(3, 7)), by_unit[3:7])
    weighted = replace(rows, weight=np.arange(48.0))
    assert weighted.score(pooled) == pytest.approx(by_unit @ np.arange(48) / np.arange(48).sum(), rel=1e-14)


def test_what_unscored_units_are_predicted_does_not_change_the_score(make_rows):
    rows = make_rows(weight=np.tile([0.0, 1.0], 24))
    pooled = rows.probs[:, 0].copy()
    before = rows.score(pooled)
    pooled[::2] = [1, 0, 0]
    assert rows.score(pooled) == before


def test_zeros_that_targets_disagree_with_are_counted_where_scored(make_rows):
    rows = make_rows(n_members=3, per_group=1, n_groups=4, n_folds=2, weight=np.array([1, 1, 1, 0.0]))
    probs, targets = np.full_like(rows.probs, 1 / 3), np.tile([0.5, 0.5, 0.0], (4, 1))
    probs[0, 1], probs[1, 1], probs[3, 1], probs[2, 2] = [1, 0, 0], [0, 0, 1], [0, 1, 0], [0.5, 0.5, 0]
    found = replace(rows, probs=probs, targets=targets).contradicted()
    assert found.tolist() == [0, 3, 0], "one zero, then two; of an unscored unit none; a zero that is right is none"


def test_of_labels_a_certain_yes_is_contradicted_as_well_as_a_certain_no(make_rows):
    rows = make_rows(kind="multilabel", n_members=2, per_group=1, n_groups=2, n_folds=2, n_classes=2)
    task, held = rows.task, np.array([[1.0, 0.0], [0.0, 1.0]])
    said = np.stack([1 - held, held], axis=1)  # (N, M, K)
    found = replace(rows, probs=task.outcomes(said), targets=task.outcomes(held)).contradicted()
    assert found.tolist() == [4, 0]
