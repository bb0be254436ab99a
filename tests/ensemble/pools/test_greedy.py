"""Greedy selection: as a plain loop over whole rows would choose."""

import numpy as np
import pytest

from hms_ray.core.seeds import stream
from hms_ray.ensemble.pools import greedy


def a_problem(seed, n_units, n_members, tail=(3,)):
    """Predictions (N, M, ..., K) and targets (N, ..., K)."""
    rng = stream(seed, "pool", n_units, n_members, *tail)
    probs = rng.dirichlet(np.full(tail[-1], 0.5), (n_units, n_members, *tail[:-1]))
    return probs, rng.dirichlet(np.full(tail[-1], 0.4), (n_units, *tail[:-1]))


def chosen_one_by_one(probs, targets, sample_weight, steps):
    """Return the members in the order of their choice."""
    chosen = []
    for _ in range(steps):
        losses = []
        for m in range(probs.shape[1]):
            mean = np.clip(probs[:, [*chosen, m]], 1e-15, 1 - 1e-15).mean(1)
            rows = -(targets * np.log(mean)).sum(-1).reshape(len(targets), -1).mean(1)
            losses.append(np.average(rows, weights=sample_weight))
        chosen.append(int(np.argmin(losses)))
    return chosen


@pytest.mark.parametrize("tail", [(3,), (4, 2)])
@pytest.mark.parametrize("seed", range(5))
def test_it_chooses_as_a_plain_loop_does(seed, tail):
    probs, targets = a_problem(seed, 40, 6, tail)
    sample_weight = stream(seed, "weights").uniform(0, 2, 40) if seed % 2 else None
    for steps in (1, 2, 25):
        chosen = chosen_one_by_one(probs, targets, sample_weight, steps)
        pool = greedy.fit(probs, targets, sample_weight, steps=steps)
        np.testing.assert_allclose(pool.weights, np.bincount(chosen, minlength=6) / steps)
        assert pool.gap is None


def test_25_members_are_chosen_unless_told_otherwise():
    weights = greedy.fit(*a_problem(5, 40, 6)).weights
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(weights * 25, np.round(weights * 25))


def test_the_first_of_equals_is_chosen():
    probs, targets = a_problem(6, 40, 1)
    assert greedy.fit(probs.repeat(3, axis=1), targets).weights.tolist() == [1, 0, 0]
