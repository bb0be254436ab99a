"""Which epoch counts: against brute force, and blind to the fold that it is chosen for."""

import math

import numpy as np
import pytest
from pydantic import ValidationError

from hms_ray import epoch_choice
from hms_ray.epoch_choice import EVERY, Candidates, as_ended
from hms_ray.seeds import stream

NAN = math.nan


def choose(rule, scores, units, candidates=EVERY):
    return epoch_choice.choose(rule, candidates, scores, units)


def reachable(rule, scores, epochs, candidates=EVERY):
    return epoch_choice.reachable(rule, candidates, scores, epochs)


def curves(seed, folds=4, epochs=6):
    """Random scores (folds, epochs) and unequal numbers of units."""
    rng = stream(seed, "curves")
    return rng.uniform(0.2, 1.5, (folds, epochs)), rng.integers(1, 500, folds)


def by_brute_force(scores, units, fold):
    """The first epoch, counted from 1, at which the units of the other folds have the lowest mean; else the last."""
    others = [k for k in range(len(scores)) if k != fold and not any(math.isnan(score) for score in scores[k])]
    if not others:
        return len(scores[0])
    total = sum(units[k] for k in others)
    means = [sum(units[k] * scores[k][e] for k in others) / total for e in range(len(scores[0]))]
    return 1 + min(range(len(means)), key=lambda e: means[e])


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("folds", [2, 3, 5])
def test_the_cross_fitted_epoch_is_the_best_of_the_other_folds(seed, folds):
    scores, units = curves(seed, folds)
    assert choose("cross_fitted", scores, units) == [by_brute_force(scores, units, k) for k in range(folds)]


def test_units_weigh_the_folds():
    scores = np.array([[9.0, 9.0], [0.1, 0.2], [0.5, 0.3]])
    assert choose("cross_fitted", scores, np.array([5, 30, 10]))[0] == 1
    assert choose("cross_fitted", scores, np.array([5, 10, 30]))[0] == 2


@pytest.mark.parametrize("seed", range(20))
def test_a_fold_never_sees_its_own_scores(seed):
    scores, units = curves(seed)
    before = choose("cross_fitted", scores, units)
    for fold in range(len(scores)):
        for own in (stream(seed, "other", fold).uniform(0, 9, scores.shape[1]), np.full(scores.shape[1], NAN)):
            changed = scores.copy()
            changed[fold] = own
            assert choose("cross_fitted", changed, units)[fold] == before[fold]


def test_the_other_folds_decide():
    """The property above could be kept by looking at nothing."""
    found = {epoch for seed in range(20) for epoch in choose("cross_fitted", *curves(seed))}
    assert len(found) > 3


@pytest.mark.parametrize("seed", range(5))
def test_the_best_epoch_is_each_folds_own(seed):
    scores, units = curves(seed)
    assert choose("best", scores, units) == [1 + list(row).index(min(row)) for row in scores.tolist()]
    assert choose("last", scores, units) == [6] * 4


def test_a_fold_alone_has_its_last_epoch():
    assert choose("cross_fitted", np.array([[0.1, 0.5, 0.9]]), np.array([7])) == [3]


def test_folds_without_scored_units_do_not_choose():
    scores, units = np.array([[0.3, 0.1, 0.2], [NAN, NAN, NAN], [0.1, 0.2, 0.3]]), np.array([10, 0, 20])
    assert choose("cross_fitted", scores, units) == [1, 1, 2]
    assert choose("best", scores, units) == [2, 3, 1]
    assert choose("cross_fitted", scores[:2], units[:2]) == [3, 2]
    assert choose("cross_fitted", np.full((2, 3), NAN), np.zeros(2)) == [3, 3]


def test_of_equal_epochs_the_first_counts():
    scores, units = np.array([[0.2, 0.1, 0.1], [0.3, 0.2, 0.2], [0.1, 0.1, 0.1]]), np.array([3, 4, 5])
    assert choose("best", scores, units) == [2, 2, 1]
    assert choose("cross_fitted", scores, units) == [2, 2, 2]


@pytest.mark.parametrize(
    ("rule", "scores", "expected"),
    [
        ("last", [], []),
        ("last", [0.1, 0.2], []),
        ("last", [0.1, 0.2, 0.3], [3]),
        ("best", [], []),
        ("best", [0.3, 0.1, 0.2], [2]),
        ("best", [0.2, 0.2], [1]),
        ("best", [NAN, NAN], [2]),
        ("cross_fitted", [], []),
        ("cross_fitted", [0.1, 0.2], [1, 2]),
        ("cross_fitted", [NAN, NAN, NAN], [1, 2, 3]),
    ],
)
def test_what_may_yet_be_chosen_is_kept(rule, scores, expected):
    assert reachable(rule, scores, 3) == expected


@pytest.mark.parametrize("rule", ["last", "best", "cross_fitted"])
@pytest.mark.parametrize("seed", range(10))
def test_what_is_chosen_in_the_end_was_reachable(rule, seed):
    """Whatever a fold keeps of its own curve, the choice among all folds finds its weights."""
    scores, units = curves(seed)
    scores[1] = NAN
    for fold, epoch in enumerate(choose(rule, scores, units)):
        assert epoch in reachable(rule, scores[fold], scores.shape[1])


@pytest.mark.parametrize("rule", ["last", "best", "cross_fitted"])
@pytest.mark.parametrize("seed", range(10))
def test_what_is_not_kept_at_its_time_is_never_wanted_again(rule, seed):
    """Weights that are dropped after an epoch cannot be brought back."""
    scores = curves(seed)[0][0]
    for done in range(1, len(scores)):
        later = set(reachable(rule, scores[: done + 1], len(scores)))
        assert later <= {*reachable(rule, scores[:done], len(scores)), done + 1}


THIRD = Candidates()


@pytest.mark.parametrize(
    ("candidates", "epochs", "expected"),
    [
        (THIRD, 1, [1]),
        (THIRD, 2, [2]),
        (THIRD, 3, [3]),
        (THIRD, 14, [10, 11, 12, 13, 14]),
        (THIRD, 20, [14, 15, 16, 17, 18, 19, 20]),
        (THIRD, 64, list(range(57, 65))),
        (Candidates(share=0.5, most=3), 10, [8, 9, 10]),
        (Candidates(share=1), 4, [1, 2, 3, 4]),
        (EVERY, 300, list(range(1, 301))),
    ],
)
def test_candidates_are_the_last_epochs_of_the_schedule(candidates, epochs, expected):
    assert reachable("cross_fitted", [0.5] * epochs, epochs, candidates) == expected
    assert reachable("cross_fitted", [0.5] * (epochs - 1), epochs, candidates) == expected[:-1]
    assert reachable("last", [0.5] * epochs, epochs, candidates) == [epochs]


@pytest.mark.parametrize("rule", ["last", "best", "cross_fitted"])
@pytest.mark.parametrize("seed", range(10))
def test_only_candidates_are_chosen_and_their_weights_are_there(rule, seed):
    """Of any candidates: the choice is that among the same epochs alone, and each was kept from its time on."""
    scores, units = curves(seed, folds=4, epochs=9)
    candidates = Candidates(share=(0.2, 0.5, 1)[seed % 3], most=(2, 8)[seed % 2])
    first = candidates.first(rule, 9)
    for fold, epoch in enumerate(choose(rule, scores, units, candidates)):
        assert epoch == choose(rule, scores[:, first - 1 :], units)[fold] + first - 1
        for done in range(epoch, 10):
            if done == epoch or rule != "best":
                assert epoch in reachable(rule, scores[fold, :done], 9, candidates)
    assert [reachable(rule, scores[0, :done], 9, candidates) for done in range(first)] == [[]] * first


def test_a_fold_that_ends_early_has_its_own_score_until_candidates_begin():
    scores = [0.5, 0.1, 0.9, NAN, 0.3, 0.7]
    half = Candidates(share=0.5)
    np.testing.assert_array_equal(as_ended("best", half, scores, 6), [0.5, 0.1, 0.9, NAN, 0.3, 0.3])
    np.testing.assert_array_equal(as_ended("best", half, scores[:2], 6), [0.5, 0.1])
    np.testing.assert_array_equal(as_ended("cross_fitted", half, scores, 6), scores)


@pytest.mark.parametrize("change", [{"share": 0}, {"share": 1.1}, {"most": 0}, {"last": 3}])
def test_impossible_candidates_are_refused(change):
    with pytest.raises(ValidationError):
        Candidates(**change)
