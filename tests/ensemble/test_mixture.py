"""Mixture weights: what the certificate is made of, and a rough start. Optima are shown in test_linear_pool."""

import numpy as np
import pytest

from hms_ray.core.seeds import stream
from hms_ray.ensemble import mixture


def a_problem(n_terms, n_members):
    rng = stream(0, "mixture", n_terms, n_members)
    return rng.uniform(0.05, 1, (n_terms, n_members)), rng.dirichlet(np.ones(n_terms))


def test_at_the_optimum_gains_are_one_for_members_with_weight_and_at_most_one_for_others():
    members, shares = a_problem(300, 12)
    weights, gap, _ = mixture.fit(members, shares)
    gained = mixture.gains(shares, members, members @ weights)
    np.testing.assert_allclose(gained[weights > 0], 1, atol=1e-6)
    assert (weights == 0).any() and gained.max() - 1 == pytest.approx(gap, abs=1e-15) and gap < 1e-9


def test_gains_are_the_negative_gradient():
    members, shares = a_problem(50, 4)
    weights, step = np.array([0.1, 0.2, 0.3, 0.4]), 1e-6

    def loss(w):
        return -shares @ np.log(members @ w)

    numeric = [(loss(weights + step * e) - loss(weights - step * e)) / (2 * step) for e in np.eye(4)]
    np.testing.assert_allclose(mixture.gains(shares, members, members @ weights), -np.array(numeric), rtol=1e-6)


@pytest.mark.parametrize("gap", [1e-1, 1e-3, 1e-6])
def test_rough_weights_keep_the_gap_asked_for(gap):
    members, shares = a_problem(400, 30)
    weights = mixture.rough(members, shares, gap)
    assert weights.sum() == pytest.approx(1) and weights.min() >= 0
    assert mixture.gains(shares, members, members @ weights).max() - 1 < gap
