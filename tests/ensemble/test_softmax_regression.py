"""The solver under the log-linear pool: its derivatives, its steps, and a gap that means what it says."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime, minimize

from hms_ray.core.seeds import stream
from hms_ray.ensemble import softmax_regression as regression
from hms_ray.ensemble import terms

Q, K, J, N = 2, 3, 4, 30
N_BIAS = Q * K


def a_problem(seed, n_units=N, width=1.0):
    """Features, targets, share and penalty, of a question each of which has its own scale."""
    rng = stream(seed, "regression", n_units)
    features = rng.normal(0, width, (Q, K, J, n_units)) * np.array([1, 2])[:, None, None, None]
    targets = rng.dirichlet(np.full(K, 0.3), (Q, n_units)).transpose(0, 2, 1)
    share = rng.uniform(0, 1, n_units)
    centre = rng.normal(0, 0.3, N_BIAS + J)
    centre[N_BIAS:] = np.abs(centre[N_BIAS:])
    penalty = regression.Penalty(rng.uniform(1e-3, 1e-1, N_BIAS + J), centre)
    return features, targets, share / share.sum() / Q, penalty


def objective(x, features, targets, share, penalty):
    """F straight from the definition, unit by unit."""
    bias, weights = x[:N_BIAS].reshape(Q, K), x[N_BIAS:]
    loss = 0.0
    for q in range(Q):
        for i in range(features.shape[-1]):
            z = bias[q] + features[q, :, :, i] @ weights
            loss += share[i] * (np.logaddexp.reduce(z) - targets[q, :, i] @ z)
    return loss + (penalty.ridge * (x - penalty.centre) ** 2).sum() / 2


def point(solution):
    return np.concatenate([solution.bias.ravel(), solution.weights])


def a_point(seed):
    x = stream(seed, "point").normal(0, 0.5, N_BIAS + J)
    x[N_BIAS:] = np.maximum(x[N_BIAS:], 0)
    return x


def logits_at(x, features):
    return np.einsum("qkjn,j->qkn", features, x[N_BIAS:]) + x[:N_BIAS].reshape(Q, K, 1)


@pytest.mark.parametrize("tail", [(3,), (4, 2), (2, 5, 3)])
def test_layouts_are_taken_back(tail):
    rng = stream(0, "layout")
    probs, targets = rng.random((7, 5, *tail)), rng.random((7, *tail))
    major = regression.outcome_major(probs)
    assert major.shape == (int(np.prod(tail[:-1])), tail[-1], 5, 7)
    assert major.flags.c_contiguous
    np.testing.assert_array_equal(major[:, :, 2].transpose(2, 0, 1).reshape(targets.shape), probs[:, 2])
    turned = regression.outcome_major_targets(targets)
    np.testing.assert_array_equal(turned.transpose(2, 0, 1).reshape(targets.shape), targets)


def test_softmax_bears_large_logits():
    logits = np.array([1e4, 0.0, -1e4, 1e4, 1e4, 1e4]).reshape(2, 3, 1)
    np.testing.assert_allclose(regression.softmax(logits)[..., 0], [[1, 0, 0], [1 / 3] * 3])


def test_cross_entropy_is_as_defined():
    features, targets, share, penalty = a_problem(1)
    x = a_point(1)
    loss = regression.cross_entropy(logits_at(x, features), targets, share)
    assert loss + penalty.value(x) == pytest.approx(objective(x, features, targets, share, penalty), rel=1e-12)


def test_the_slope_is_that_of_the_objective():
    features, targets, share, penalty = a_problem(2)
    x = a_point(2)
    excess = regression.softmax(logits_at(x, features)) - targets
    found = regression.slope(features, excess, share) + penalty.gradient(x)
    expected = approx_fprime(x, objective, 1e-7, features, targets, share, penalty)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("block", [1 << 22, 7 * J])
def test_the_curvature_is_the_slope_of_the_slope(block, monkeypatch):
    monkeypatch.setattr(terms, "BLOCK", block)
    features, targets, share, _ = a_problem(3)
    x = a_point(3)

    def slope(x):
        return regression.slope(features, regression.softmax(logits_at(x, features)) - targets, share)

    found = regression.curvature(features, regression.softmax(logits_at(x, features)), share)
    np.testing.assert_allclose(found, approx_fprime(x, slope, 1e-7), atol=1e-6)
    np.testing.assert_allclose(found, found.T, atol=1e-15)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("n_bias", [0, 3])
def test_the_best_step_meets_the_conditions_of_an_optimum(seed, n_bias):
    rng = stream(seed, "step", n_bias)
    root = rng.normal(0, 1, (8, 8)) * rng.uniform(0.1, 10, 8)
    hessian, gradient, x = root.T @ root + 1e-3 * np.eye(8), rng.normal(0, 5, 8), np.abs(rng.normal(0, 1, 8))
    there = x + regression.best_step(hessian, gradient, x, n_bias)
    slope = gradient + hessian @ (there - x)
    np.testing.assert_allclose(slope[:n_bias], 0, atol=1e-6)
    assert (there[n_bias:] >= -1e-9).all()
    assert (slope[n_bias:] >= -1e-6).all()
    np.testing.assert_allclose((slope * there)[n_bias:], 0, atol=1e-6)


def test_a_step_is_halved_until_the_objective_falls():
    assert regression.step_length(lambda t: (t - 1) ** 2, -2.0) == 1.0
    length = regression.step_length(lambda t: (t - 0.1) ** 2, -0.2)
    assert length == 0.125
    assert regression.step_length(lambda t: t, -1.0) == 0.0, "a slope that is not the objective's"


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("width", [0.3, 3.0])
def test_it_is_as_good_as_a_general_solver(seed, width):
    problem = a_problem(seed, width=width)
    found = regression.fit(*problem)
    assert 0 <= found.gap < 1e-9
    bounds = [(None, None)] * N_BIAS + [(0, None)] * J
    other = minimize(objective, a_point(seed), problem, "L-BFGS-B", bounds=bounds, options={"ftol": 1e-14})
    assert objective(point(found), *problem) <= other.fun + 1e-9
    np.testing.assert_allclose(point(found), other.x, atol=2e-3)


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_a_gap_that_is_left_open_bounds_what_is_missing(seed, steps, monkeypatch):
    problem = a_problem(seed, width=3.0)
    best = objective(point(regression.fit(*problem)), *problem)
    monkeypatch.setattr(regression, "MAX_STEPS", steps)
    stopped = regression.fit(*problem, start=a_point(seed))
    missing = objective(point(stopped), *problem) - best
    assert stopped.steps == steps
    assert -1e-9 <= missing <= stopped.gap + 1e-9
    assert steps or missing > 0.1, "there was something to miss"


def test_a_start_changes_the_way_and_not_the_goal():
    problem = a_problem(5)
    cold = regression.fit(*problem)
    start = point(cold)
    kept = start.copy()
    warm = regression.fit(*problem, start=start)
    assert warm.steps < cold.steps
    np.testing.assert_array_equal(start, kept)
    np.testing.assert_allclose(point(regression.fit(*problem, start=a_point(9))), point(cold), atol=1e-4)


@pytest.mark.parametrize("idle", [None, 0], ids=["all count", "each eighth has no weight"])
def test_the_coarse_start_leads_to_the_same_optimum(idle, monkeypatch):
    features, targets, share, penalty = a_problem(6, n_units=400)
    if idle is not None:
        share = share.copy()
        share[idle :: regression.COARSER] = 0
    from_centre = regression.fit(features, targets, share, penalty)
    monkeypatch.setattr(regression, "COARSE_UNITS", 20)
    from_part = regression.fit(features, targets, share, penalty)
    assert from_part.gap < 1e-9
    np.testing.assert_allclose(point(from_part), point(from_centre), atol=1e-4)
