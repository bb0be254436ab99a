"""The average of pools: the mean of what they predict."""

import numpy as np
import pytest

from hms_ray.core.seeds import stream
from hms_ray.ensemble.pools import average
from hms_ray.ensemble.pools import linear as linear_pool
from hms_ray.ensemble.pools import log_linear as log_linear_pool


@pytest.fixture
def problem():
    rng = stream(0, "average")
    return rng.dirichlet(np.ones(3), (60, 4)), rng.dirichlet(np.full(3, 0.4), 60), rng.uniform(0, 2, 60)


def test_it_is_the_mean_of_the_linear_and_the_log_linear_pool(problem):
    probs = problem[0]
    pool, linear, log_linear = (m.fit(*problem) for m in (average, linear_pool, log_linear_pool))
    np.testing.assert_array_equal(pool.predict(probs), (linear.predict(probs) + log_linear.predict(probs)) / 2)
    np.testing.assert_allclose(pool.weights, (linear.weights + log_linear.weights / log_linear.weights.sum()) / 2)
    assert pool.gap == max(linear.gap, log_linear.gap) < 1e-9


def test_shares_need_not_be_equal():
    first, second = (linear_pool.Pool(np.array(w), 0.0) for w in ([1.0, 0.0], [0.0, 1.0]))
    pool = average.Pool((first, second), np.array([0.9, 0.1]))
    assert pool.weights.tolist() == [0.9, 0.1]
    np.testing.assert_allclose(pool.predict(np.array([[[0.5, 0.5], [0.0, 1.0]]])), [[0.45, 0.55]])


def test_the_gap_is_the_largest_of_those_that_there_are():
    first, second, third = (linear_pool.Pool(np.ones(1), gap) for gap in (1e-10, 3e-10, None))
    assert average.Pool((first, second, third), np.full(3, 1 / 3)).gap == 3e-10
    assert average.Pool((third, third), np.full(2, 0.5)).gap is None


def test_a_pool_without_weights_counts_nothing():
    pools = linear_pool.Pool(np.array([0.25, 0.75]), 0.0), log_linear_pool.Pool(np.zeros(2), np.zeros(3), 0.0)
    assert average.Pool(pools, np.array([0.5, 0.5])).weights.tolist() == [0.125, 0.375]
