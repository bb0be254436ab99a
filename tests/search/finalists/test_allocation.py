"""Allocation: folds go to configurations that the ensemble needs, and no further than their price."""

import numpy as np
import pytest

from hms_ray.search.finalists import allocation


def softmax(logits):
    odds = np.exp(logits)
    return odds / odds.sum(-1, keepdims=True)


def simulate(noise, n_patients=150, n_folds=5, seed=0, n_classes=4):
    """Return (targets, probs, groups, folds) of members whose errors are independent and as large as `noise` (M,)."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_patients), rng.integers(1, 7, n_patients))
    logits = rng.normal(0, 2, (n_patients, n_classes))[groups] + rng.normal(0, 1, (len(groups), n_classes))
    errors = rng.normal(0, 0.7, (n_patients, len(noise), n_classes))[groups]
    errors += rng.normal(0, 0.7, (len(groups), len(noise), n_classes))
    probs = softmax(logits[:, None] + errors * np.asarray(noise)[:, None])
    return rng.multinomial(12, softmax(logits)) / 12, probs, groups, groups % n_folds


def near_copies(probs, member, count, seed=1):
    rng = np.random.default_rng(seed)
    copies = np.repeat(probs[:, [member]], count, axis=1)
    return np.concatenate([probs, softmax(np.log(copies) + rng.normal(0, 0.02, copies.shape))], axis=1)


def play(targets, probs, groups, folds, n_folds=5, **options):
    """Train what is planned until nothing is left; predictions appear as pairs are trained."""
    trained, rounds = np.zeros((probs.shape[1], n_folds), dtype=bool), []
    while True:
        hidden = ~trained[:, folds].T
        known = np.where(hidden.reshape(*hidden.shape, *[1] * (probs.ndim - 2)), np.nan, probs)
        pairs = allocation.plan(targets, known, groups, folds, trained, **options).pairs
        if not pairs:
            return trained, rounds
        assert not any(trained[pair] for pair in pairs)
        trained[tuple(zip(*pairs, strict=True))] = True
        rounds.append(pairs)


def complete(trained):
    return np.flatnonzero(trained.all(1)).tolist()


def test_the_first_fold_of_all_comes_first():
    _, rounds = play(*simulate([0.5, 0.8, 1.0]))
    assert rounds[0] == [(0, 0), (1, 0), (2, 0)]
    assert all(len({fold for _, fold in pairs}) == 1 for pairs in rounds)


def test_a_hopeless_configuration_trains_one_fold():
    trained, _ = play(*simulate([0.5, 0.5, 4.0]))
    assert trained.sum(1).tolist() == [5, 5, 1]


def test_of_near_copies_few_are_trained():
    targets, probs, groups, folds = simulate([0.6, 0.6])
    trained, _ = play(targets, near_copies(probs, 0, 10), groups, folds)
    assert len(complete(trained)) <= 3
    assert 1 in complete(trained)
    assert trained.mean() < 0.5


def test_different_members_of_equal_worth_are_all_trained():
    trained, _ = play(*simulate([0.9] * 4))
    assert trained.all()


def test_a_dropped_one_returns_when_what_was_kept_disappoints():
    targets, probs, groups, folds = simulate([0.5, 0.8, 0.8])
    probs = probs[:, [0, 1, 1, 2]]
    worse = folds == 1
    probs[folds == 0, 2] = softmax(np.log(probs[folds == 0, 1]) + 0.01)
    lucky = folds == 0
    probs[lucky, 1] = softmax(np.log(np.maximum(probs[lucky, 1], 1e-9)) + 0.3 * np.log(targets[lucky] + 0.05))
    probs[worse | (folds > 1), 1] = 1 / 4
    trained, rounds = play(targets, probs, groups, folds)
    second = [member for member, fold in rounds[1] if fold == 1]
    assert 1 in second and 2 not in second
    assert trained[1].sum() == 2
    assert trained[2].all()


@pytest.mark.parametrize("budget", [0.35, 0.45, 0.6, 0.8])
def test_the_budget_is_never_exceeded_and_used_where_nothing_has_a_price(budget):
    trained, _ = play(*simulate([0.9] * 6), price=0, budget=budget)
    assert trained.sum() <= budget * 30 < trained.sum() + 4
    assert (trained.sum(1) > 1).sum() == len(complete(trained))


def test_one_configuration_is_completed_whatever_the_budget():
    trained, _ = play(*simulate([0.9] * 4), budget=0.25)
    assert len(complete(trained)) == 1


@pytest.mark.parametrize("most", [1, 2, 5, 6, 9])
def test_no_more_than_the_most_are_completed(most):
    trained, _ = play(*simulate([0.9] * 6), price=0, most=most)
    assert len(complete(trained)) == min(6, most)
    assert trained.sum() >= 6 + 4 * min(6, most)


def test_of_those_with_all_folds_the_most_are_kept():
    targets, probs, groups, folds = simulate([4.0, 0.5, 0.5, 4.0])
    trained = np.ones((4, 5), dtype=bool)
    assert allocation.plan(targets, probs, groups, folds, trained) == allocation.Plan([], [0, 1, 2, 3])
    assert allocation.plan(targets, probs, groups, folds, trained, most=2) == allocation.Plan([], [1, 2])
    assert len(allocation.plan(targets[:0], probs[:0], groups[:0], folds[:0], trained, most=2).kept) == 2


def test_a_higher_price_trains_less():
    shares = [play(*simulate([0.5, 0.6, 0.8, 1.0, 1.2, 1.5]), price=price)[0].mean() for price in (0, 1e-2, 1e-1, 10)]
    assert shares[0] == 1
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == (6 + 4) / 30


def test_the_plan_is_deterministic_and_knows_no_order_of_configurations():
    targets, probs, groups, folds = simulate([0.5, 0.6, 0.8, 1.0, 1.2, 1.5, 3.0])
    trained, rounds = play(targets, probs, groups, folds, price=0.02)
    again, same = play(targets, probs, groups, folds, price=0.02)
    assert rounds == same and (trained == again).all()
    order = np.random.default_rng(0).permutation(probs.shape[1])
    other, _ = play(targets, probs[:, order], groups, folds, price=0.02)
    assert (other == trained[order]).all()
    assert 0.2 < trained.mean() < 1


def test_an_interrupted_round_is_finished_first():
    targets, probs, groups, folds = simulate([0.9] * 4)
    trained = np.zeros((4, 5), dtype=bool)
    trained[:, 0] = trained[:2, 1] = True
    pairs = allocation.plan(targets, probs, groups, folds, trained).pairs
    assert sorted(pairs) == [(2, 1), (3, 1)]


def test_a_configuration_alone_trains_all_folds():
    trained, rounds = play(*simulate([1.0]))
    assert rounds == [[(0, fold)] for fold in range(5)]
    assert trained.all()


@pytest.mark.parametrize("n_folds", [2, 3, 10])
def test_any_number_of_folds(n_folds):
    trained, _ = play(*simulate([0.5, 0.5, 4.0], n_folds=n_folds), n_folds=n_folds)
    assert trained.sum(1).tolist() == [n_folds, n_folds, 1]


def test_few_patients_drop_nobody():
    trained, _ = play(*simulate([0.5, 0.5, 4.0], n_patients=25))
    assert trained[:, :2].all()


def test_folds_without_scored_units():
    targets, probs, groups, folds = simulate([0.5, 0.5, 4.0])
    some = folds > 1
    trained, _ = play(targets[some], probs[some], groups[some], folds[some])
    assert trained.sum(1).tolist() == [5, 5, 3]
    trained, _ = play(targets[:0], probs[:0], groups[:0], folds[:0], budget=0.5)
    assert complete(trained) == [0]


def test_several_questions_are_asked_of_a_unit():
    targets, probs, groups, folds = simulate([0.5, 0.5, 4.0])
    two, both = np.stack([targets, targets], axis=1), np.stack([probs, probs], axis=2)
    once, _ = play(targets, probs, groups, folds)
    twice, _ = play(two, both, groups, folds)
    assert (once == twice).all()


def test_hundreds_of_near_copies_are_decided_soon():
    targets, probs, groups, folds = simulate([0.6, 0.7])
    trained, _ = play(targets, near_copies(probs, 0, 78), groups, folds)
    assert trained.mean() < 0.4
