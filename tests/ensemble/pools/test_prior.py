"""The prior pool: the classes' shares, and something for a class that was not there."""

import numpy as np
import pytest

from hms_ray.ensemble.pools import prior


def test_it_is_the_weighted_mean_of_the_targets_but_for_a_hundredth():
    targets = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.5, 0.0]])
    pool = prior.fit(np.full((3, 2, 3), 1 / 3), targets, np.array([2.0, 0.0, 2.0]))
    expected = 0.99 * np.array([0.75, 0.25, 0]) + 0.01 / 3
    np.testing.assert_allclose(pool.predict(np.zeros((5, 2, 3))), [expected] * 5, rtol=1e-12)
    assert pool.weights.tolist() == [0, 0] and pool.gap is None


def test_each_question_has_its_own_shares():
    targets = np.array([[[1.0, 0.0], [0.0, 1.0]]])
    pool = prior.fit(np.full((1, 3, 2, 2), 0.5), targets)
    assert pool.predict(np.zeros((4, 3, 2, 2))).shape == (4, 2, 2)
    assert pool.shares[0, 0] == pool.shares[1, 1] == pytest.approx(0.995)
