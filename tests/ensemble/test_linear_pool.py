"""The linear pool: known optima, certificates on random and degenerate problems, and an independent reference."""

import numpy as np
import pytest
from scipy.optimize import minimize

from hms_ray import tasks
from hms_ray.ensemble import linear_pool
from hms_ray.seeds import stream

TASK = tasks.from_dict({"kind": "votes", "classes": list("abc")})


def a_problem(seed, n_units, n_members, n_classes=3, spread=1.0):
    rng = stream(seed, "pool", n_units, n_members)
    targets = rng.dirichlet(np.full(n_classes, 0.4), n_units)
    return rng.dirichlet(np.full(n_classes, spread), (n_units, n_members)), targets


def true_gap(probs, targets, weights):
    """The certificate straight from its definition, over whole rows."""
    probs = np.clip(probs, 1e-15, 1 - 1e-15)
    pooled = np.einsum("m,nmk->nk", weights, probs)
    return max((targets * probs[:, m] / pooled).sum(1).mean() for m in range(probs.shape[1])) - 1


def assert_certified(pool, probs, targets):
    assert pool.certified
    assert (pool.weights >= 0).all()
    assert pool.weights.sum() == pytest.approx(1, abs=1e-12)
    assert true_gap(probs, targets, pool.weights) < 2e-9  # the definition's own rounding on top of the tolerance


def test_two_members_have_the_optimum_that_calculus_gives():
    # one class each is certain to the first member, three of four units favour it: d/dw of 3 log w + log(1 - w)
    probs = np.array([[[1.0, 0.0], [0.0, 1.0]]]).repeat(4, axis=0)
    targets = np.array([[1.0, 0.0]] * 3 + [[0.0, 1.0]])
    np.testing.assert_allclose(linear_pool.fit(probs, targets).weights, [0.75, 0.25], atol=1e-7)


def test_one_member_takes_all_the_weight():
    probs, targets = a_problem(0, 20, 1)
    pool = linear_pool.fit(probs, targets)
    assert pool.weights.tolist() == [1.0]
    assert abs(pool.gap) < 1e-12


def test_a_perfect_member_is_found():
    probs, targets = a_problem(1, 50, 6)
    probs[:, 4] = targets
    pool = linear_pool.fit(probs, targets)
    assert_certified(pool, probs, targets)
    assert pool.weights[4] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("shape", [(1, 5), (3, 40), (40, 3), (300, 30), (150, 200)])
@pytest.mark.parametrize("spread", [0.05, 1.0, 5.0])
def test_the_certificate_holds_on_random_problems(shape, spread):
    probs, targets = a_problem(2, *shape, spread=spread)
    assert_certified(linear_pool.fit(probs, targets), probs, targets)


def _zeros(probs, rng):
    hole = np.where(rng.random(probs.shape) < 0.5, 0, probs) + 1e-300
    return hole / hole.sum(-1, keepdims=True)


DEGENERATE = {
    "identical": lambda probs, rng: probs[:, :1].repeat(probs.shape[1], axis=1),
    "in pairs": lambda probs, rng: probs[:, np.arange(probs.shape[1]) // 2],
    "zeros": _zeros,
    "one-hot": lambda probs, rng: np.eye(probs.shape[2])[rng.integers(0, probs.shape[2], probs.shape[:2])],
    "constant": lambda probs, rng: probs[:1].repeat(len(probs), axis=0),
}


@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.parametrize("shape", [(1, 4), (5, 30), (200, 12)])
def test_the_certificate_holds_on_degenerate_problems(name, shape):
    probs, targets = a_problem(3, *shape)
    probs = DEGENERATE[name](probs, stream(3, name, *shape))
    assert_certified(linear_pool.fit(probs, targets), probs, targets)


def test_where_every_member_is_wrong_the_clipped_score_is_reached():
    probs = np.array([[[0.0, 1.0], [0.0, 1.0]]])
    pool = linear_pool.fit(probs, np.array([[1.0, 0.0]]))
    assert abs(pool.gap) < 1e-9


def test_it_is_as_good_as_a_general_solver():
    probs, targets = a_problem(4, 400, 8)

    def loss(logits):
        weights = np.exp(logits - logits.max())
        return TASK.score(targets, linear_pool.pool(probs, weights / weights.sum()))

    ours = TASK.score(targets, linear_pool.fit(probs, targets).predict(probs))
    assert ours == pytest.approx(minimize(loss, np.zeros(8), method="BFGS").fun, abs=1e-5)
    assert ours <= min(loss(np.log(w)) for w in stream(4, "weights").dirichlet(np.ones(8), 200))


def test_whole_sample_weights_are_repeated_rows():
    probs, targets = a_problem(5, 60, 5)
    counts = stream(5, "counts").integers(0, 4, 60)
    weighted = linear_pool.fit(probs, targets, counts.astype(float)).weights
    repeated = linear_pool.fit(probs.repeat(counts, axis=0), targets.repeat(counts, axis=0)).weights
    np.testing.assert_allclose(weighted, repeated, atol=1e-6)


def test_two_calls_agree_to_the_last_bit():
    probs, targets = a_problem(6, 80, 10)
    probs[:, 5:] = probs[:, :5]
    first, second = linear_pool.fit(probs, targets), linear_pool.fit(probs, targets)
    np.testing.assert_array_equal(first.weights, second.weights)


def test_the_inputs_are_left_as_they_were():
    probs, targets = a_problem(7, 30, 4)
    before = probs.copy(), targets.copy()
    linear_pool.fit(probs, targets, np.ones(30))
    np.testing.assert_array_equal(probs, before[0])
    np.testing.assert_array_equal(targets, before[1])


def test_an_open_certificate_is_owned_up_to(monkeypatch):
    monkeypatch.setattr(linear_pool, "MAX_ITERATIONS", 1)
    probs, targets = a_problem(8, 200, 10)
    pool = linear_pool.fit(probs, targets)
    assert not pool.certified
    assert pool.gap == pytest.approx(true_gap(probs, targets, pool.weights), rel=1e-6)


def test_pool_is_the_weighted_mean():
    probs = np.array([[[0.2, 0.8], [0.6, 0.4]]])
    np.testing.assert_allclose(linear_pool.pool(probs, np.array([0.75, 0.25])), [[0.3, 0.7]])
