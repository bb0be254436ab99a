"""The calibrated pool: what distorted the truth is found, and nothing nearby is better."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime, minimize
from scipy.special import log_softmax, softmax

from hms_ray.core.seeds import stream
from hms_ray.ensemble import softmax_regression as regression
from hms_ray.ensemble.pools import calibrated
from hms_ray.ensemble.pools import linear as linear_pool
from hms_ray.ensemble.pools import tempered as tempered_pool

RIDGE, BIAS_RIDGE = 1e-3, 1e-2


def a_problem(seed, n_units, n_members, tail=(3,), spread=1.0):
    """Predictions (N, M, ..., K) around a truth that they share, and targets (N, ..., K) around the same."""
    rng = stream(seed, "calibrated", n_units, n_members, *tail)
    truth = rng.normal(0, 1, (n_units, *tail))
    errors = rng.normal(0, spread, (n_units, n_members, *tail)) + rng.normal(0, 0.3, tail)
    return softmax(truth[:, None] + errors, axis=-1), softmax(2 * truth, axis=-1)


def even_sum(weights):
    """The same weights with the sum at which their penalty is smallest: no prediction depends on it."""
    return weights * weights.sum() / (len(weights) * (weights**2).sum())


def penalised(weights, exponent, bias, probs, targets, sample_weight=None):
    """The objective straight from the definition."""
    n_members = len(weights)
    pooled = np.einsum("m,nm...->n...", weights, np.clip(probs, 1e-15, 1 - 1e-15))
    rows = -(targets * log_softmax(exponent * np.log(pooled) + bias, axis=-1)).sum(-1)
    mean = np.average(rows.reshape(len(rows), -1).mean(1), weights=sample_weight)
    away = RIDGE * n_members * ((weights - 1 / n_members) ** 2).sum()
    return mean + (away + BIAS_RIDGE * ((exponent - 1) ** 2 + (bias**2).sum())) / 2


def objective(x, *problem):
    """The same of a point: bias, weights, exponent."""
    shape = problem[1].shape[1:]
    n_bias = int(np.prod(shape))
    return penalised(x[n_bias:-1], x[-1], x[:n_bias].reshape(shape), *problem)


def point(pool):
    return np.concatenate([pool.bias.ravel(), even_sum(pool.weights), [pool.exponent]])


CASES = pytest.mark.parametrize(("seed", "tail"), [(0, (3,)), (1, (4,)), (2, (2, 2)), (3, (6,)), (4, (3, 2))])


def a_case(seed, tail):
    sample_weight = stream(seed, "weights").uniform(0, 2, 150) if seed % 2 else None
    return *a_problem(seed, 150, 5, tail), sample_weight


@CASES
def test_nothing_nearby_is_better(seed, tail):
    problem = a_case(seed, tail)
    x = point(calibrated.fit(*problem))
    bounds = [(None, None)] * (len(x) - 6) + [(0, None)] * 5 + [(None, None)]
    polished = minimize(objective, x, problem, "L-BFGS-B", bounds=bounds, options={"ftol": 1e-15, "gtol": 1e-9})
    assert objective(x, *problem) <= polished.fun + 2e-8


@CASES
def test_the_slope_vanishes_where_it_is_free_to(seed, tail):
    problem = a_case(seed, tail)
    x = point(calibrated.fit(*problem))
    slope = approx_fprime(x, objective, 1e-7, *problem)
    free = x > 0
    free[:-6] = free[-1] = True
    assert np.abs(slope[free]).max() < 1e-4
    assert (slope > -1e-4).all(), "weights at 0 would not gain"
    start = np.concatenate([np.zeros(len(x) - 6), linear_pool.fit(*problem).weights, [1.0]])
    assert np.abs(approx_fprime(start, objective, 1e-7, *problem)).max() > 1e-2, "there was a way to go"


@CASES
def test_it_is_at_least_as_good_as_the_tempered_pool(seed, tail):
    problem = a_case(seed, tail)
    tempered = tempered_pool.fit(*problem)
    other = penalised(even_sum(tempered.weights), tempered.exponent, np.zeros(tail), *problem)
    assert objective(point(calibrated.fit(*problem)), *problem) <= other


@pytest.mark.parametrize(("exponent", "bias"), [(2.0, [0.5, -0.5, 0.0]), (0.5, [-0.2, -0.2, 0.4])])
def test_what_distorted_the_truth_is_found(exponent, bias):
    probs = stream(5, "members").dirichlet(np.ones(3), (400, 4))
    weights = np.array([0.5, 0.2, 0.3, 0.0])
    targets = softmax(exponent * np.log(np.einsum("m,nmk->nk", weights, probs)) + bias, axis=-1)
    pool = calibrated.fit(probs, targets, ridge=1e-8, bias_ridge=1e-8)
    assert pool.exponent == pytest.approx(exponent, abs=5e-3)
    np.testing.assert_allclose(pool.bias, bias, atol=5e-3)
    np.testing.assert_allclose(pool.weights, weights, atol=5e-3)
    np.testing.assert_allclose(pool.predict(probs), targets, atol=2e-3)


@pytest.mark.parametrize("spread", [0.05, 1.0])
@pytest.mark.parametrize("shape", [(1, 6), (4, 25), (60, 1)])
def test_no_step_makes_it_worse_than_the_linear_pool(shape, spread):
    for seed in range(5):
        rng = stream(seed, "sure", *shape)
        probs = rng.dirichlet(np.full(3, spread), shape)
        targets = np.eye(3)[rng.integers(0, 3, shape[0])]
        linear = linear_pool.fit(probs, targets).weights
        start = penalised(linear, 1.0, np.zeros(3), probs, targets)
        pool = calibrated.fit(probs, targets)
        assert objective(point(pool), probs, targets) <= start + 1e-12
        assert (pool.weights >= 0).all()
        assert pool.weights.sum() == pytest.approx(1, abs=1e-12)


def test_the_coarse_start_of_many_units_leads_to_the_same_point(monkeypatch):
    problem = a_problem(6, 400, 4)
    even = calibrated.fit(*problem)
    monkeypatch.setattr(regression, "COARSE_UNITS", 20)
    coarse = calibrated.fit(*problem)
    np.testing.assert_allclose(point(coarse), point(even), atol=1e-3)
    assert objective(point(coarse), *problem) == pytest.approx(objective(point(even), *problem), abs=2e-8)


def test_a_start_is_where_it_begins():
    problem = a_problem(7, 150, 4)
    pool = calibrated.fit(*problem)
    again = calibrated.fit(*problem, start=pool)
    np.testing.assert_allclose(point(again), point(pool), atol=1e-3)


def test_prediction_is_the_blend_raised_and_shifted():
    probs = np.array([[[0.2, 0.8], [0.6, 0.4]]])
    pool = calibrated.Pool(np.array([0.5, 0.5]), 2.0, np.array([np.log(2.0), 0.0]))
    np.testing.assert_allclose(pool.predict(probs), [[0.32 / 0.68, 0.36 / 0.68]])
    assert pool.gap is None
