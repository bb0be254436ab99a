"""Baselines against hand-made answers."""

import numpy as np

from hms_ray import tasks
from hms_ray.ensemble import _baselines

TASK = tasks.from_dict({"kind": "votes", "classes": ["a", "b"]})
TARGETS = np.array([[1.0, 0.0], [0.6, 0.4], [0.2, 0.8], [0.0, 1.0]])
FOLDS = np.array([0, 0, 1, 1])


def test_best_single_is_the_member_with_the_lowest_score():
    probs = np.stack([np.full((4, 2), 0.5), 0.9 * TARGETS + 0.05, 0.5 * TARGETS + 0.25], axis=1)
    best, score = _baselines.best_single(TASK, TARGETS, probs)
    assert best == 1
    assert score == TASK.score(TARGETS, probs[:, 1])


def test_mean_is_uniform():
    np.testing.assert_allclose(_baselines.mean(np.array([[[0.2, 0.8], [0.6, 0.4]]])), [[0.4, 0.6]])


def test_prior_comes_from_the_scored_units_of_the_other_folds():
    prior = _baselines.prior(TASK, TARGETS, FOLDS, np.array([True, False, True, True]))
    np.testing.assert_allclose(prior, [[0.1, 0.9], [0.1, 0.9], [1.0, 0.0], [1.0, 0.0]])


def test_prior_falls_back_on_all_units_of_the_other_folds():
    prior = _baselines.prior(TASK, TARGETS, FOLDS, FOLDS == 0)
    np.testing.assert_allclose(prior[0], [0.1, 0.9])
