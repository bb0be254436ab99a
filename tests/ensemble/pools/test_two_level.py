"""The two-level pool: linear within a family, log-linear across them."""

import numpy as np
import pytest

from hms_ray.core.seeds import stream
from hms_ray.ensemble.pools import linear, log_linear, two_level

FAMILIES = ["eeg", "image", "eeg", "image", "image"]


def a_problem(seed, n_units, n_members, tail=(3,)):
    """Predictions (N, M, ..., K) and targets (N, ..., K)."""
    rng = stream(seed, "pool", n_units, n_members, *tail)
    probs = rng.dirichlet(np.ones(tail[-1]), (n_units, n_members, *tail[:-1]))
    return probs, rng.dirichlet(np.full(tail[-1], 0.4), (n_units, *tail[:-1]))


@pytest.mark.parametrize("tail", [(3,), (4, 2)])
def test_with_one_member_a_family_it_is_the_log_linear_pool(tail):
    probs, targets = a_problem(0, 60, 4, tail)
    weights = stream(0, "weights").uniform(0, 2, 60)
    pool = two_level.fit(probs, targets, weights, families=list("abcd"))
    plain = log_linear.fit(probs, targets, weights)
    np.testing.assert_allclose(pool.weights, plain.weights, atol=1e-12)
    np.testing.assert_allclose(pool.predict(probs), plain.predict(probs), atol=1e-12)


def test_with_one_family_it_is_the_linear_pool_sharpened():
    probs, targets = a_problem(1, 60, 4)
    pool, blend = two_level.fit(probs, targets, families=["a"] * 4), linear.fit(probs, targets)
    sharpened = log_linear.fit(blend.predict(probs)[:, None], targets)
    np.testing.assert_array_equal(pool.inner, [blend.weights])
    np.testing.assert_allclose(pool.predict(probs), sharpened.predict(blend.predict(probs)[:, None]), rtol=1e-12)


def test_each_family_is_the_linear_pool_of_its_own():
    probs, targets = a_problem(2, 80, 5)
    pool = two_level.fit(probs, targets, families=FAMILIES)
    for row, own in zip(pool.inner, ([0, 2], [1, 3, 4]), strict=True):
        np.testing.assert_array_equal(row[own], linear.fit(probs[:, own], targets).weights)
        assert not np.delete(row, own).any()
    blends = np.stack([linear.pool(probs, row) for row in pool.inner], axis=1)
    np.testing.assert_allclose(pool.outer.weights, log_linear.fit(blends, targets).weights, atol=1e-12)
    np.testing.assert_allclose(pool.weights, pool.outer.weights @ pool.inner)
    assert pool.gap == pool.outer.gap < 1e-9


def test_what_families_are_called_does_not_matter():
    probs, targets = a_problem(3, 80, 5)
    named = two_level.fit(probs, targets, families=FAMILIES)
    renamed = two_level.fit(probs, targets, families=[{"eeg": "z", "image": "a"}[f] for f in FAMILIES])
    np.testing.assert_allclose(renamed.weights, named.weights, atol=1e-5)
    np.testing.assert_allclose(renamed.predict(probs), named.predict(probs), atol=1e-5)


def test_the_ridges_are_those_of_the_upper_level():
    probs, targets = a_problem(4, 80, 5)
    pool = two_level.fit(probs, targets, families=FAMILIES, ridge=1e6, bias_ridge=np.inf)
    np.testing.assert_allclose(pool.outer.weights, 0.5, atol=1e-5)
    np.testing.assert_allclose(pool.outer.bias, 0, atol=1e-9)
