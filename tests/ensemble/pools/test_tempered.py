"""The tempered pool: the linear pool's weights and the exponent that a one-dimensional search finds."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from hms_ray.core.seeds import stream
from hms_ray.ensemble.pools import linear as linear_pool
from hms_ray.ensemble.pools import tempered


def a_problem(seed, n_units, n_members, tail=(3,), spread=1.0):
    """Predictions (N, M, ..., K) and targets (N, ..., K)."""
    rng = stream(seed, "pool", n_units, n_members, *tail)
    probs = rng.dirichlet(np.full(tail[-1], spread), (n_units, n_members, *tail[:-1]))
    return probs, rng.dirichlet(np.full(tail[-1], 0.4), (n_units, *tail[:-1]))


def loss_of(exponent, pooled, targets, sample_weight=None):
    """The cross-entropy of the pooled prediction raised to the exponent, and the little that holds it to 1."""
    logits = exponent * np.log(np.clip(pooled, 1e-15, 1 - 1e-15))
    rows = -(targets * log_softmax(logits, axis=-1)).sum(-1).reshape(len(targets), -1).mean(1)
    return np.average(rows, weights=sample_weight) + tempered.RIDGE / 2 * (exponent - 1) ** 2


@pytest.mark.parametrize("tail", [(4,), (3, 2)])
@pytest.mark.parametrize("seed", range(4))
def test_the_exponent_is_that_of_a_search_in_one_dimension(seed, tail):
    probs, targets = a_problem(seed, 120, 5, tail, spread=[0.3, 3.0][seed % 2])
    targets = 0.5 * targets + 0.5 * probs[:, 0]
    sample_weight = stream(seed, "weights").uniform(0, 2, 120) if seed > 1 else None
    pool = tempered.fit(probs, targets, sample_weight)
    pooled = linear_pool.pool(probs, pool.weights)
    found = minimize_scalar(loss_of, bounds=(0, 20), args=(pooled, targets, sample_weight), options={"xatol": 1e-9})
    assert pool.exponent == pytest.approx(found.x, abs=1e-4)
    assert loss_of(pool.exponent, pooled, targets, sample_weight) <= found.fun + 1e-9


def test_the_weights_and_their_gap_are_those_of_the_linear_pool():
    probs, targets = a_problem(5, 80, 6)
    pool, linear = tempered.fit(probs, targets), linear_pool.fit(probs, targets)
    np.testing.assert_array_equal(pool.weights, linear.weights)
    assert pool.gap == linear.gap < 1e-9


@pytest.mark.parametrize("exponent", [0.4, 1.0, 2.5])
def test_the_exponent_that_made_the_targets_is_found(exponent):
    probs, _ = a_problem(6, 200, 1)
    odds = probs[:, 0] ** exponent
    pool = tempered.fit(probs, odds / odds.sum(-1, keepdims=True))
    assert pool.exponent == pytest.approx(exponent, abs=1e-4)


def test_prediction_is_the_blend_raised_to_the_exponent():
    probs = np.array([[[0.2, 0.8], [0.6, 0.4]]])
    pool = tempered.Pool(np.array([0.5, 0.5]), 2.0, 0.0)
    np.testing.assert_allclose(pool.predict(probs), [[0.16 / 0.52, 0.36 / 0.52]])


def test_members_that_know_less_than_nothing_get_exponent_0():
    probs = np.array([[[0.9, 0.1]], [[0.1, 0.9]]] * 10)
    pool = tempered.fit(probs, 1 - probs[:, 0])
    assert pool.exponent == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(pool.predict(probs), 0.5)


def test_a_warm_start_changes_the_way_and_not_the_goal():
    probs, targets = a_problem(7, 200, 10, spread=0.2)
    cold = tempered.fit(probs, targets)
    warm = tempered.fit(probs, targets, start=tempered.fit(probs[5:], targets[5:]))
    np.testing.assert_allclose(warm.weights, cold.weights, atol=1e-4)
    assert warm.exponent == pytest.approx(cold.exponent, abs=1e-4)
