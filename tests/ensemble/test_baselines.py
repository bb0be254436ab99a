"""Baselines against hand-made answers."""

from dataclasses import replace

import numpy as np

from hms_ray.ensemble import baselines

TARGETS = np.array([[1.0, 0.0], [0.6, 0.4], [0.2, 0.8], [0.0, 1.0]])


def four(make_rows, weight=(1.0, 1.0, 1.0, 1.0)):
    """Four units, two in each of two folds."""
    rows = make_rows(n_groups=4, per_group=1, n_classes=2, n_folds=2, n_members=2)
    return replace(rows, targets=TARGETS, folds=np.array([0, 0, 1, 1]), weight=np.array(weight))


def test_best_single_has_the_lowest_weighted_loss_and_is_the_first_of_equals():
    losses = np.array([[0.5, 0.1, 0.1], [0.5, 0.1, 0.1], [0.2, 0.8, 0.8]])
    assert baselines.best_single(losses, np.ones(3)) == 1
    assert baselines.best_single(losses, np.array([1.0, 1, 2])) == 0


def test_mean_is_uniform(make_rows):
    rows = four(make_rows)
    np.testing.assert_allclose(baselines.mean(rows), (rows.probs[:, 0] + rows.probs[:, 1]) / 2)


def test_prior_comes_from_the_scored_units_of_the_other_folds(make_rows):
    prior = baselines.prior(four(make_rows, [1, 0, 1, 3]))
    np.testing.assert_allclose(prior, [[0.05, 0.95], [0.05, 0.95], [1, 0], [1, 0]], atol=1e-15)


def test_prior_falls_back_on_all_units_of_the_other_folds(make_rows):
    prior = baselines.prior(four(make_rows, [1, 1, 0, 0]))
    np.testing.assert_allclose(prior, [[0.1, 0.9], [0.1, 0.9], [0.8, 0.2], [0.8, 0.2]], atol=1e-15)


def test_prior_of_labels_is_the_share_of_units_that_hold_each(make_rows):
    rows = make_rows(kind="multilabel")
    held = rows.task.from_outcomes(rows.targets)
    prior = rows.task.from_outcomes(baselines.prior(rows))
    np.testing.assert_allclose(prior[rows.folds == 2], np.tile(held[rows.folds != 2].mean(0), (16, 1)), atol=1e-15)
