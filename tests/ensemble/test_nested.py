"""Cross-fitting never lets a fold see itself, and says so where it cannot fit."""

from dataclasses import dataclass

import numpy as np
import pytest

from hms_ray.ensemble._nested import cross_fit, splits
from hms_ray.errors import ConfigError

FOLDS = np.array([0, 0, 1, 1, 2])


@dataclass
class MeanTarget:
    """A stand-in pool: it predicts the mean target it was fitted on, so that a leak shows."""

    constant: np.ndarray
    gap: float

    def predict(self, probs):
        return np.tile(self.constant, (len(probs), 1))


def fit_mean(probs, targets):
    return MeanTarget(targets.mean(0), gap=float(len(targets)))


def a_problem():
    targets = np.array([[1.0, 0.0], [0.8, 0.2], [0.5, 0.5], [0.3, 0.7], [0.0, 1.0]])
    return np.full((5, 2, 2), 0.5), targets


def test_each_fold_is_predicted_by_the_others_and_by_the_population_only():
    probs, targets = a_problem()
    scored = np.array([True, True, True, False, True])
    nested = cross_fit(fit_mean, probs, targets, FOLDS, scored)
    np.testing.assert_allclose(nested.probs[0], targets[[2, 4]].mean(0))
    np.testing.assert_allclose(nested.probs[3], targets[[0, 1, 4]].mean(0))  # unscored, and predicted all the same
    np.testing.assert_allclose(nested.probs[4], targets[[0, 1, 2]].mean(0))
    assert (nested.gap, nested.notes) == (3.0, ())


def test_a_fold_without_scored_units_elsewhere_is_averaged_and_noted():
    probs, targets = a_problem()
    probs[0] = [[0.2, 0.8], [0.4, 0.6]]
    nested = cross_fit(fit_mean, probs, targets, FOLDS, FOLDS == 0)
    np.testing.assert_allclose(nested.probs[0], [0.3, 0.7])
    np.testing.assert_allclose(nested.probs[2], targets[:2].mean(0))
    assert len(nested.notes) == 1
    assert nested.notes[0].startswith("fold 0: ")


def test_one_fold_is_refused():
    with pytest.raises(ConfigError, match="2 folds or more; these are all of fold 3"):
        list(splits(np.array([3, 3])))
