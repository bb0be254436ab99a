"""The former choice of finalists: the best of all choices, and on few units better than by fitted weights."""

from itertools import combinations

import numpy as np
import pytest

from tests.unlike_members import pooled_loss, simulate


@pytest.fixture
def backward(bench_named):
    return bench_named("_backward")


def test_the_chosen_are_the_best_of_all_choices(backward):
    targets, _, probs = simulate(np.random.default_rng(1), 500, [1.0, 1.5, 0.8, 3.0, 1.2, 0.9, 2.0])
    for count in (2, 3, 4):
        best = min(combinations(range(7), count), key=lambda c: pooled_loss(targets, probs[:, c]))
        assert backward.choose(targets, probs, count) == list(best)


def test_copies_and_members_that_bring_nothing_are_left_out(backward):
    targets, _, probs = simulate(np.random.default_rng(1), 200, [1, 1, 8])
    copies = probs[:, [0, 1, 0, 1, 2]]
    assert sorted(m % 2 for m in backward.choose(targets, copies, 2)) == [0, 1]
    assert backward.choose(targets, copies, 5) == [0, 1, 2, 3, 4]
    worth = backward.choose(targets, copies, 5, min_gain=0.01)
    assert sorted(m % 2 for m in worth) == [0, 1]
    assert 4 not in worth
    assert len(backward.choose(targets, copies, 5, min_gain=100)) == 1


def test_on_few_units_shrinking_chooses_better_than_fitted_weights(backward, monkeypatch):
    """Four good and four slightly worse members, judged on 15 patients: what the choice loses on many others."""
    noise = [1, 1, 1, 1, 1.3, 1.3, 1.3, 1.3]
    targets, _, probs = simulate(np.random.default_rng(0), 2000, noise)

    def mean_loss():
        choices = []
        for seed in range(25):
            few, _, its_probs = simulate(np.random.default_rng([9, seed]), 15, noise)
            choices.append(backward.choose(few, its_probs, 4))
        return np.mean([pooled_loss(targets, probs[:, choice]) for choice in choices])

    shrunk = mean_loss()
    monkeypatch.setattr(backward, "SHRINKAGE", 1e-9)
    assert shrunk < mean_loss()


def test_the_same_members_are_chosen_twice(backward):
    targets, _, probs = simulate(np.random.default_rng(1), 200, [1.0, 1.5, 0.8])
    assert backward.choose(targets, probs, 2) == backward.choose(targets.copy(), probs.copy(), 2)
