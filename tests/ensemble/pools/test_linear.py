"""The linear pool: known optima, certificates on random and degenerate problems, and independent references."""

import numpy as np
import pytest
from scipy.optimize import minimize

from hms_ray import tasks
from hms_ray.core.seeds import stream
from hms_ray.ensemble import mixture
from hms_ray.ensemble.pools import linear

TASK = tasks.from_dict({"kind": "votes", "classes": list("abc")})


def begin(weights):
    """A pool of these weights, to begin at."""
    return linear.Pool(weights, None)


def a_problem(seed, n_units, n_members, n_classes=3, spread=1.0):
    rng = stream(seed, "pool", n_units, n_members)
    targets = rng.dirichlet(np.full(n_classes, 0.4), n_units)
    return rng.dirichlet(np.full(n_classes, spread), (n_units, n_members)), targets


def labels(seed, n_units, n_members, n_labels=3):
    """A multi-label problem: (N, M, Q, 2) and (N, Q, 2)."""
    rng = stream(seed, "labels", n_units, n_members)
    return rng.dirichlet([0.5, 0.5], (n_units, n_members, n_labels)), np.eye(2)[rng.integers(0, 2, (n_units, n_labels))]


def loss_of(weights, probs, targets, sample_weight=None):
    """Mean cross-entropy of the pool, straight from the definition."""
    pooled = np.einsum("m,nm...->n...", weights, np.clip(probs, 1e-15, 1 - 1e-15))
    rows = -(targets * np.log(pooled)).sum(-1).reshape(len(targets), -1).mean(1)
    return np.average(rows, weights=sample_weight)


def feasible(weights, rng):
    """Points of the simplex: vertices, far ones, and near ones."""
    m = len(weights)
    far = np.concatenate([np.eye(m), *(rng.dirichlet(np.full(m, spread), 15) for spread in (0.1, 1, 10))])
    return np.concatenate([far, *(weights + step * (far - weights) for step in (1e-1, 1e-3, 1e-5))])


def assert_best(pool, probs, targets, sample_weight, rng):
    assert pool.certified
    best = loss_of(pool.weights, probs, targets, sample_weight)
    others = min(loss_of(w, probs, targets, sample_weight) for w in feasible(pool.weights, rng))
    assert best <= others + pool.gap + 1e-13 * abs(others) + 1e-15


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
    np.testing.assert_allclose(linear.fit(probs, targets).weights, [0.75, 0.25], atol=1e-7)


def test_one_member_takes_all_the_weight():
    probs, targets = a_problem(0, 20, 1)
    pool = linear.fit(probs, targets)
    assert pool.weights.tolist() == [1.0]
    assert abs(pool.gap) < 1e-12


def test_a_perfect_member_is_found():
    probs, targets = a_problem(1, 50, 6)
    probs[:, 4] = targets
    pool = linear.fit(probs, targets)
    assert_certified(pool, probs, targets)
    assert pool.weights[4] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("shape", [(1, 5), (3, 40), (40, 3), (300, 30), (150, 200)])
@pytest.mark.parametrize("spread", [0.05, 1.0, 5.0])
def test_the_certificate_holds_on_random_problems(shape, spread):
    probs, targets = a_problem(2, *shape, spread=spread)
    assert_certified(linear.fit(probs, targets), probs, targets)


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
    assert_certified(linear.fit(probs, targets), probs, targets)


def test_where_every_member_is_wrong_the_clipped_score_is_reached():
    probs = np.array([[[0.0, 1.0], [0.0, 1.0]]])
    pool = linear.fit(probs, np.array([[1.0, 0.0]]))
    assert abs(pool.gap) < 1e-9


def test_it_is_as_good_as_a_general_solver():
    probs, targets = a_problem(4, 400, 8)

    def loss(logits):
        weights = np.exp(logits - logits.max())
        return TASK.score(targets, linear.pool(probs, weights / weights.sum()))

    ours = TASK.score(targets, linear.fit(probs, targets).predict(probs))
    assert ours == pytest.approx(minimize(loss, np.zeros(8), method="BFGS").fun, abs=1e-5)
    assert ours <= min(loss(np.log(w)) for w in stream(4, "weights").dirichlet(np.ones(8), 200))


def test_whole_sample_weights_are_repeated_rows():
    probs, targets = a_problem(5, 60, 5)
    counts = stream(5, "counts").integers(0, 4, 60)
    weighted = linear.fit(probs, targets, counts.astype(float)).weights
    repeated = linear.fit(probs.repeat(counts, axis=0), targets.repeat(counts, axis=0)).weights
    np.testing.assert_allclose(weighted, repeated, atol=1e-6)


def test_two_calls_agree_to_the_last_bit():
    probs, targets = a_problem(6, 80, 10)
    probs[:, 5:] = probs[:, :5]
    first, second = linear.fit(probs, targets), linear.fit(probs, targets)
    np.testing.assert_array_equal(first.weights, second.weights)


def test_the_inputs_are_left_as_they_were():
    probs, targets = a_problem(7, 30, 4)
    before = probs.copy(), targets.copy()
    linear.fit(probs, targets, np.ones(30))
    np.testing.assert_array_equal(probs, before[0])
    np.testing.assert_array_equal(targets, before[1])


def test_an_open_certificate_is_owned_up_to(monkeypatch):
    monkeypatch.setattr(mixture, "MAX_ITERATIONS", 1)
    probs, targets = a_problem(8, 200, 10)
    pool = linear.fit(probs, targets)
    assert not pool.certified
    assert pool.gap == pytest.approx(true_gap(probs, targets, pool.weights), rel=1e-6)


def test_pool_is_the_weighted_mean():
    probs = np.array([[[0.2, 0.8], [0.6, 0.4]]])
    np.testing.assert_allclose(linear.pool(probs, np.array([0.75, 0.25])), [[0.3, 0.7]])


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (4, 25), (60, 5)])
@pytest.mark.parametrize("seed", range(6))
def test_no_other_weights_are_better(seed, shape):
    rng = stream(seed, "certificate", *shape)
    kind = list(DEGENERATE)[seed] if seed < len(DEGENERATE) else None
    for probs, targets in (a_problem(seed, *shape, spread=0.3), labels(seed, *shape)):
        targets = np.eye(targets.shape[-1])[targets.argmax(-1)] if seed % 2 else targets
        sample_weight = rng.integers(0, 3, len(probs)) + 1e-3 if seed % 3 else None
        probs = DEGENERATE[kind](probs, rng) if kind and probs.ndim == 3 else probs
        assert_best(linear.fit(probs, targets, sample_weight), probs, targets, sample_weight, rng)


def a_hard_problem(seed):
    """Few units and many members, which are sure and often wrong: the Hessian is singular and entries reach 1e30."""
    rng = stream(seed, "hard")
    n_classes, spread = int(rng.integers(2, 6)), 0.05 if seed % 2 else 0.2
    n_units, n_members = int(rng.integers(2, 8)), int(rng.integers(2, 40))
    targets = rng.dirichlet(np.full(n_classes, 0.4), n_units)
    targets = np.eye(n_classes)[targets.argmax(-1)] if seed % 3 == 0 else targets
    probs = rng.dirichlet(np.full(n_classes, spread), (n_units, n_members))
    probs = _zeros(probs, rng) if seed % 4 < 2 else probs
    counts = rng.integers(0, 3, n_units)
    return probs, targets, counts if seed % 5 and counts.any() else None


# those from 203 on once ended without certificate: a blend was taken out that was none, or least squares broke down
@pytest.mark.parametrize("seed", [*range(0, 200, 7), 203, 276, 656, 671, 688, 720, 744, 752, 932, 1104, 1425])
def test_members_that_are_sure_and_wrong_do_not_break_the_certificate(seed):
    probs, targets, sample_weight = a_hard_problem(seed)
    pool = linear.fit(probs, targets, sample_weight)
    assert_best(pool, probs, targets, sample_weight, stream(seed, "others"))
    counted = targets[sample_weight > 0] if sample_weight is not None else targets
    assert (pool.weights > 0).sum() <= (counted > 0).sum(), "more members than terms cannot all be needed"


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_a_gap_that_is_left_open_bounds_what_is_missing(seed, steps, monkeypatch):
    probs, targets = a_problem(seed, 200, 12, spread=0.3)
    best = loss_of(linear.fit(probs, targets).weights, probs, targets)
    monkeypatch.setattr(mixture, "MAX_ITERATIONS", steps)
    stopped = linear.fit(probs, targets, start=begin(np.eye(12)[seed]))
    missing = loss_of(stopped.weights, probs, targets) - best
    assert stopped.iterations == steps
    assert -1e-9 <= missing <= stopped.gap
    assert missing > 1e-3, "there was something to miss"


@pytest.mark.parametrize("shape", [(300, 4), (80, 10)])
def test_a_constrained_solver_finds_the_same_weights(shape):
    for probs, targets in (a_problem(9, *shape), labels(9, *shape)):
        pool = linear.fit(probs, targets)
        total = {"type": "eq", "fun": lambda w: w.sum() - 1}
        bounds, even = [(0, 1)] * shape[1], np.full(shape[1], 1 / shape[1])
        other = minimize(loss_of, even, (probs, targets), "SLSQP", bounds=bounds, constraints=total, tol=1e-12)
        assert loss_of(pool.weights, probs, targets) <= loss_of(other.x / other.x.sum(), probs, targets) + 1e-9
        np.testing.assert_allclose(pool.weights, other.x, atol=5e-3)


@pytest.mark.parametrize("seed", range(30))
def test_of_identical_members_the_first_has_the_weight(seed):
    rng = stream(seed, "copies")
    base, targets = a_problem(seed, int(rng.integers(5, 100)), 4)
    order = rng.permutation(np.concatenate([np.arange(4), rng.integers(0, 4, 6)]))
    alone, copied = linear.fit(base, targets), linear.fit(base[:, order], targets)
    firsts = np.unique(order, return_index=True)[1]
    assert copied.certified
    assert not np.delete(copied.weights, firsts).any()
    assert (copied.weights > 0).sum() == (alone.weights > 0).sum()
    np.testing.assert_allclose(copied.weights[firsts], alone.weights, atol=1e-4)


def test_of_members_that_are_all_identical_the_first_has_all_the_weight():
    probs, targets = a_problem(10, 40, 1)
    weights = linear.fit(probs.repeat(7, axis=1), targets).weights
    assert weights[0] == pytest.approx(1, abs=1e-15)
    assert not weights[1:].any()


@pytest.mark.parametrize("seed", range(20))
def test_members_that_are_blends_of_others_cost_nothing(seed):
    base, targets = a_problem(seed, 60, 5, n_classes=4, spread=[0.05, 0.3, 1.0][seed % 3])
    blends = np.einsum("jm,nmk->njk", stream(seed, "mix").dirichlet(np.ones(5), 4), base)
    both = np.concatenate([blends, base], axis=1)
    alone, pool = linear.fit(base, targets), linear.fit(both, targets)
    assert pool.certified
    assert loss_of(pool.weights, both, targets) == pytest.approx(loss_of(alone.weights, base, targets), abs=2e-9)
    used = both[:, pool.weights > 0].transpose(1, 0, 2)
    assert np.linalg.matrix_rank(used.reshape(len(used), -1), tol=1e-4) == len(used)


@pytest.mark.parametrize("seed", range(10))
def test_of_members_and_their_blend_the_last_goes_where_it_can(seed):
    base, targets = a_problem(seed, 60, 2)
    alone = linear.fit(base, targets).weights
    probs = np.stack([base[:, 0], base[:, 1], base.mean(1)], axis=1)
    np.testing.assert_allclose(linear.fit(probs, targets).weights, [*alone, 0], atol=1e-4)


@pytest.mark.parametrize("noise", [1e-8, 1e-6, 1e-5, 1e-4])
def test_what_is_nearly_a_blend_does_not_break_the_certificate(noise):
    for seed in range(10):
        base, targets = a_problem(seed, 60, 4, spread=0.1)
        rng = stream(seed, "nearly")
        near = base * np.exp(noise * rng.normal(size=base.shape))
        probs = np.concatenate([near / near.sum(-1, keepdims=True), base], axis=1)
        assert_best(linear.fit(probs, targets), probs, targets, None, rng)


@pytest.mark.parametrize("seed", range(5))
def test_a_warm_start_changes_the_way_and_not_the_goal(seed):
    probs, targets = a_problem(seed, 300, 15, spread=0.1)
    near = linear.fit(probs[3:], targets[3:])
    cold, warm = linear.fit(probs, targets), linear.fit(probs, targets, start=near)
    assert warm.certified
    assert warm.iterations < cold.iterations
    np.testing.assert_allclose(warm.weights, cold.weights, atol=1e-4)


@pytest.mark.parametrize("member", range(4))
def test_members_without_weight_at_the_start_are_priced_in(member):
    probs, targets = a_problem(11, 100, 4)
    start = np.eye(4)[member]
    pool = linear.fit(probs, targets, start=begin(start))
    assert pool.certified
    np.testing.assert_allclose(pool.weights, linear.fit(probs, targets).weights, atol=1e-4)
    assert start.tolist() == np.eye(4)[member].tolist()


def test_the_coarse_start_of_many_terms_leads_to_the_same_optimum(monkeypatch):
    probs, targets = a_problem(12, 500, 8)
    even = linear.fit(probs, targets)
    monkeypatch.setattr(mixture, "COARSE_TERMS", 20)
    coarse = linear.fit(probs, targets)
    assert coarse.certified
    np.testing.assert_allclose(coarse.weights, even.weights, atol=1e-4)


def test_questions_of_a_unit_count_like_units():
    probs, targets = labels(13, 50, 6)
    rows = probs.transpose(0, 2, 1, 3).reshape(150, 6, 2), targets.reshape(150, 2)
    together, apart = linear.fit(probs, targets), linear.fit(*rows)
    np.testing.assert_array_equal(together.weights, apart.weights)
    assert together.predict(probs).shape == targets.shape


@pytest.mark.parametrize("shape", [(200, 30, 3), (60, 12, 2, 2)])
def test_fitted_few_at_a_time_it_is_the_same_pool(monkeypatch, shape):
    rng = stream(40, "few", *shape)
    probs, targets = (
        rng.dirichlet(np.ones(shape[-1]), shape[:-1]),
        rng.dirichlet(np.ones(shape[-1]), shape[:1] + shape[2:-1]),
    )
    at_once = linear.fit(probs, targets)
    monkeypatch.setattr(linear, "MANY", 0)
    few = linear.fit(probs, targets)
    assert few.certified and few.gap < 1e-9
    np.testing.assert_allclose(few.weights, at_once.weights, atol=1e-6)
    begun = linear.fit(probs, targets, start=begin(np.eye(shape[1])[0]))
    np.testing.assert_allclose(begun.weights, at_once.weights, atol=1e-6)


def test_few_at_a_time_it_takes_in_whom_a_part_of_the_rows_did_not_ask_for(monkeypatch):
    monkeypatch.setattr(linear, "MANY", 0)
    targets = np.tile([[1.0, 0.0]], (64, 1))
    probs = np.full((64, 3, 2), 0.5)
    probs[:, 1] = [0.6, 0.4]
    probs[np.arange(64) % 12 < 8, 2] = [0.99, 0.01]
    probs[::12, 2] = [0.3, 0.7]  # the rows that the choice looks at
    assert not linear.likely_members(probs, *linear.scored_pairs(targets))[1][2]
    pool = linear.fit(probs, targets)
    assert pool.certified and pool.weights[2] > 0
