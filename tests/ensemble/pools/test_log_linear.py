"""The log-linear pool: known optima, a certificate of the penalised objective, and an independent reference."""

import numpy as np
import pytest
from scipy.optimize import brentq, minimize
from scipy.special import log_softmax, softmax

from hms_ray.core.seeds import stream
from hms_ray.ensemble import softmax_regression as regression
from hms_ray.ensemble.pools import log_linear


def a_problem(seed, n_units, n_members, tail=(3,), spread=1.0):
    """Predictions (N, M, ..., K) and targets (N, ..., K)."""
    rng = stream(seed, "pool", n_units, n_members, *tail)
    probs = rng.dirichlet(np.full(tail[-1], spread), (n_units, n_members, *tail[:-1]))
    return probs, rng.dirichlet(np.full(tail[-1], 0.4), (n_units, *tail[:-1]))


def penalised(weights, bias, probs, targets, sample_weight=None, ridge=1e-3, bias_ridge=1e-2):
    """The objective straight from the definition."""
    n_members = len(weights)
    logits = np.einsum("m,nm...->n...", weights, np.log(np.clip(probs, 1e-15, 1 - 1e-15))) + bias
    rows = -(targets * log_softmax(logits, axis=-1)).sum(-1).reshape(len(targets), -1).mean(1)
    penalty = ridge / 2 * n_members * ((weights - 1 / n_members) ** 2).sum() + bias_ridge / 2 * (bias**2).sum()
    return np.average(rows, weights=sample_weight) + penalty


def others(pool, rng, n=60):
    """Weights that are not negative and biases, near and far."""
    for step in np.geomspace(1e-4, 3, n):
        weights = np.maximum(pool.weights + step * rng.normal(size=pool.weights.shape), 0)
        yield weights, pool.bias + step * rng.normal(size=pool.bias.shape)
        yield weights, pool.bias
        yield pool.weights * np.exp(step * rng.normal(size=pool.weights.shape)), pool.bias


def assert_best(pool, rng, *problem):
    assert 0 <= pool.gap < 1e-9
    assert (pool.weights >= 0).all()
    best = penalised(pool.weights, pool.bias, *problem)
    rivals = min(penalised(weights, bias, *problem) for weights, bias in others(pool, rng))
    assert best <= rivals + pool.gap + 1e-13 * (1 + abs(best))


def _zeros(probs, rng):
    hole = np.where(rng.random(probs.shape) < 0.5, 0, probs) + 1e-300
    return hole / hole.sum(-1, keepdims=True)


DEGENERATE = {
    "plain": lambda probs, rng: probs,
    "identical": lambda probs, rng: probs[:, :1].repeat(probs.shape[1], axis=1),
    "zeros": _zeros,
    "one-hot": lambda probs, rng: np.eye(probs.shape[-1])[rng.integers(0, probs.shape[-1], probs.shape[:-1])],
    "constant": lambda probs, rng: probs[:1].repeat(len(probs), axis=0),
    "even": lambda probs, rng: np.full(probs.shape, 1 / probs.shape[-1]),
}


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (4, 25), (80, 5)])
@pytest.mark.parametrize("tail", [(4,), (3, 2)])
@pytest.mark.parametrize("name", DEGENERATE)
def test_no_other_weights_and_bias_are_better(name, tail, shape):
    for seed in range(4):
        rng = stream(seed, "certificate", name, *tail, *shape)
        probs, targets = a_problem(seed, *shape, tail, spread=[1, 0.1][seed % 2])
        targets = np.eye(tail[-1])[targets.argmax(-1)] if seed < 2 else targets
        sample_weight = rng.integers(0, 3, len(probs)) + 1e-3 if seed % 3 else None
        problem = DEGENERATE[name](probs, rng), targets, sample_weight
        assert_best(log_linear.fit(*problem), rng, *problem)


@pytest.mark.parametrize("tail", [(3,), (2, 2)])
@pytest.mark.parametrize("ridges", [{}, {"ridge": 0.3, "bias_ridge": 1e-4}])
def test_it_is_as_good_as_a_general_solver(tail, ridges):
    probs, targets = a_problem(1, 150, 6, tail)
    sample_weight = stream(1, "weights").uniform(0, 2, 150)
    n_bias = targets[0].size

    def loss(x):
        return penalised(x[n_bias:], x[:n_bias].reshape(targets[0].shape), probs, targets, sample_weight, **ridges)

    bounds = [(None, None)] * n_bias + [(0, None)] * 6
    found = minimize(loss, np.full(n_bias + 6, 0.3), method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-14})
    pool = log_linear.fit(probs, targets, sample_weight, **ridges)
    ours = np.concatenate([pool.bias.ravel(), pool.weights])
    assert loss(ours) <= found.fun + 1e-9
    np.testing.assert_allclose(ours, found.x, atol=1e-3)


@pytest.mark.parametrize("steps", [0, 1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_a_gap_that_is_left_open_bounds_what_is_missing(seed, steps, monkeypatch):
    problem = a_problem(seed, 100, 8, spread=0.2)
    full = log_linear.fit(*problem)
    best = penalised(full.weights, full.bias, *problem)
    monkeypatch.setattr(regression, "MAX_STEPS", steps)
    stopped = log_linear.fit(*problem)
    missing = penalised(stopped.weights, stopped.bias, *problem) - best
    assert stopped.steps == steps
    assert 1e-9 < missing <= stopped.gap


def test_what_made_the_targets_is_found():
    probs, _ = a_problem(2, 300, 3, (4,))
    weights, bias = np.array([0.5, 0.0, 1.2]), np.array([0.3, -0.3, 0.2, -0.2])
    targets = softmax(np.einsum("m,nmk->nk", weights, np.log(probs)) + bias, axis=-1)
    pool = log_linear.fit(probs, targets, ridge=1e-7, bias_ridge=1e-7)
    np.testing.assert_allclose(pool.weights, weights, atol=1e-3)
    np.testing.assert_allclose(pool.bias, bias, atol=1e-3)
    np.testing.assert_allclose(pool.predict(probs), targets, atol=1e-3)


def test_of_members_that_know_nothing_the_bias_alone_speaks():
    # two outcomes, b = (t, -t): half the slope is sigmoid(2 t) - 0.8 + bias_ridge * t = 0
    probs, targets = np.full((5, 3, 2), 0.5), np.tile([0.8, 0.2], (5, 1))
    pool = log_linear.fit(probs, targets, bias_ridge=0.1)
    t = brentq(lambda t: 1 / (1 + np.exp(-2 * t)) - 0.8 + 0.1 * t, 0, 5)
    np.testing.assert_allclose(pool.bias, [t, -t], atol=1e-4)
    np.testing.assert_allclose(pool.weights, [1 / 3] * 3, atol=1e-4)


def test_a_strong_ridge_gives_the_geometric_mean():
    probs, targets = a_problem(3, 50, 4)
    pool = log_linear.fit(probs, targets, ridge=1e6, bias_ridge=np.inf)
    mean = np.exp(np.log(probs).mean(1))
    np.testing.assert_allclose(pool.predict(probs), mean / mean.sum(-1, keepdims=True), atol=1e-5)


def test_an_infinite_ridge_leaves_the_bias_out():
    probs, targets = a_problem(4, 100, 4)
    targets = 0.2 * targets + 0.8 * np.eye(3)[0]
    pool = log_linear.fit(probs, targets, bias_ridge=np.inf)
    assert np.abs(pool.bias).max() < 1e-9 < np.abs(log_linear.fit(probs, targets).bias).max()
    bound = [(0, None)] * 4
    found = minimize(lambda w: penalised(w, np.zeros(3), probs, targets), np.ones(4), method="L-BFGS-B", bounds=bound)
    np.testing.assert_allclose(pool.weights, found.x, atol=1e-3)


@pytest.mark.parametrize("ridges", [{"ridge": 0.0}, {"bias_ridge": 1e-9}, {"ridge": -1.0}, {"ridge": np.nan}])
def test_ridges_that_could_not_be_certified_are_refused(ridges):
    with pytest.raises(AssertionError, match="ridges must be at least 1e-08, but got"):
        log_linear.fit(*a_problem(5, 10, 2), **ridges)


def test_identical_members_share_the_weight():
    probs, targets = a_problem(6, 60, 3)
    weights = log_linear.fit(probs[:, [0, 1, 2, 1]], targets).weights
    assert weights[1] == pytest.approx(weights[3], abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_a_warm_start_changes_the_way_and_not_the_goal(seed):
    probs, targets = a_problem(seed, 200, 8, spread=0.3)
    near = log_linear.fit(probs[5:], targets[5:])
    kept = near.weights.copy()
    cold, warm = log_linear.fit(probs, targets), log_linear.fit(probs, targets, start=near)
    assert warm.gap < 1e-9
    assert warm.steps < cold.steps
    np.testing.assert_allclose(warm.weights, cold.weights, atol=1e-4)
    np.testing.assert_allclose(warm.bias, cold.bias, atol=1e-4)
    np.testing.assert_array_equal(near.weights, kept)


def test_a_pool_without_weights_predicts_its_bias():
    pool = log_linear.Pool(np.zeros(2), np.log([0.2, 0.3, 0.5]), 0.0)
    np.testing.assert_allclose(pool.predict(np.full((4, 2, 3), 1 / 3)), [[0.2, 0.3, 0.5]] * 4)


def test_prediction_is_the_weighted_geometric_mean_with_a_bias():
    probs = np.array([[[0.2, 0.8], [0.5, 0.5]]])
    pool = log_linear.Pool(np.array([2.0, 1.0]), np.array([np.log(4.0), 0.0]), 0.0)
    np.testing.assert_allclose(pool.predict(probs), [[0.2, 0.8]])  # odds 4 * 0.04 * 0.5 to 0.64 * 0.5
