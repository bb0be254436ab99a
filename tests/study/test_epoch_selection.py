"""Which epoch counts: against brute force, and blind to the fold that it is chosen for."""

import math

import numpy as np
import pytest
from pydantic import ValidationError

from hms_ray.core.seeds import stream
from hms_ray.study import epoch_selection
from hms_ray.study.epoch_selection import EVERY, Candidates, as_ended

NAN = math.nan


def choose(rule, scores, units, candidates=EVERY):
    return epoch_selection.choose(rule, candidates, scores, units)


def reachable(rule, scores, epochs, candidates=EVERY):
    return epoch_selection.reachable(rule, candidates, scores, epochs)


def curves(seed, folds=4, epochs=6):
    """Random scores (folds, epochs) and unequal numbers of units."""
    rng = stream(seed, "curves")
    return rng.uniform(0.2, 1.5, (folds, epochs)), rng.integers(1, 500, folds)


def by_brute_force(scores, units, fold):
    """The epoch, counted from 1, that is lowest on the units of the other folds when its distance to the last one has
    its standard error added: that of a weighted mean over folds."""
    others = [k for k in range(len(scores)) if k != fold and not any(math.isnan(score) for score in scores[k])]
    epochs = range(len(scores[0]))
    if len(others) < 2:
        return len(epochs)
    total = sum(units[k] for k in others)
    upper = []
    for e in epochs:
        apart = {k: scores[k][e] - scores[k][-1] for k in others}
        mean = sum(units[k] / total * apart[k] for k in others)
        variance = sum((units[k] / total * (apart[k] - mean)) ** 2 for k in others) * len(others) / (len(others) - 1)
        upper.append(mean + math.sqrt(variance))
    return 1 + min(epochs, key=lambda e: (upper[e], -e))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("folds", [2, 3, 5])
def test_the_cross_fitted_epoch_is_better_on_the_other_folds_by_more_than_its_error(seed, folds):
    scores, units = curves(seed, folds)
    assert choose("cross_fitted", scores, units) == [by_brute_force(scores, units, k) for k in range(folds)]


def test_where_epochs_differ_by_chance_the_last_one_counts_mostly_and_costs_least():
    """Choosing the best of the other folds among epochs that are equally good makes no score better."""
    rng = stream(0, "chance")
    plain, ours = [], []
    for _ in range(300):
        scores, units = 0.5 + rng.normal(0, 0.05, (5, 1)) + rng.normal(0, 0.01, (5, 6)), np.ones(5)
        ours.append(choose("cross_fitted", scores, units))
        means = np.array([np.delete(scores, k, 0).mean(0) for k in range(5)])
        plain.append((means.argmin(1) + 1).tolist())
    assert np.mean(np.array(ours) == 6) > 0.5 > np.mean(np.array(plain) == 6)


def test_of_schedules_that_go_on_too_long_the_earlier_epoch_counts():
    rng = stream(0, "too long")
    overfitted = 0.5 + rng.normal(0, 0.05, (5, 1)) + [0.05, 0.01, 0.0, 0.02, 0.04] + rng.normal(0, 0.004, (5, 5))
    assert choose("cross_fitted", overfitted, np.array([30, 40, 50, 60, 70])) == [3] * 5


def test_units_weigh_the_folds():
    scores = np.array([[9.0, 9.0], [0.1, 0.25], [0.5, 0.45], [0.5, 0.45]])
    assert choose("cross_fitted", scores, np.array([5, 300, 10, 10]))[0] == 1
    assert choose("cross_fitted", scores, np.array([5, 10, 30, 30]))[0] == 2


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


def test_with_one_other_fold_or_none_the_last_epoch_counts():
    assert choose("cross_fitted", np.array([[0.1, 0.5, 0.9]]), np.array([7])) == [3]
    assert choose("cross_fitted", np.array([[0.1, 0.5, 0.9]] * 2), np.array([7, 7])) == [3, 3]


def test_folds_without_scored_units_do_not_choose():
    scores, units = np.array([[0.3, 0.1, 0.2], [NAN, NAN, NAN], [0.1, 0.2, 0.3]]), np.array([10, 0, 20])
    assert choose("cross_fitted", scores, units) == [3, 2, 3], "of the two others of fold 1, both have .1 less"
    assert choose("best", scores, units) == [2, 3, 1]
    assert choose("cross_fitted", np.full((3, 3), NAN), np.zeros(3)) == [3, 3, 3]


def test_of_equal_epochs_the_best_is_the_first_and_the_chosen_the_later():
    scores, units = np.array([[0.2, 0.1, 0.1], [0.3, 0.2, 0.2], [0.1, 0.1, 0.1]]), np.array([3, 4, 5])
    assert choose("best", scores, units) == [2, 2, 1]
    assert choose("cross_fitted", scores, units) == [3, 3, 3]


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
        (THIRD, 6, [5, 6]),
        (THIRD, 14, [10, 12, 14]),
        (THIRD, 20, [14, 17, 20]),
        (THIRD, 64, [43, 54, 64]),
        (Candidates(share=0.5, most=4), 10, [6, 7, 9, 10]),
        (Candidates(share=0.5, most=1), 10, [10]),
        (Candidates(share=1, most=8), 4, [1, 2, 3, 4]),
        (EVERY, 300, list(range(1, 301))),
    ],
)
def test_candidates_lie_at_equal_distances_up_to_the_last_epoch(candidates, epochs, expected):
    assert reachable("cross_fitted", [0.5] * epochs, epochs, candidates) == expected
    assert reachable("cross_fitted", [0.5] * (epochs - 1), epochs, candidates) == expected[:-1]
    assert reachable("last", [0.5] * epochs, epochs, candidates) == [epochs]
    assert candidates.files("cross_fitted", epochs) == len(expected)
    assert candidates.files("last", epochs) == candidates.files("best", epochs) == 1


@pytest.mark.parametrize("rule", ["last", "best", "cross_fitted"])
@pytest.mark.parametrize("seed", range(10))
def test_only_candidates_are_chosen_and_their_weights_are_there(rule, seed):
    """Of any candidates: the choice is that among the same epochs alone, and each was kept from its time on."""
    scores, units = curves(seed, folds=4, epochs=9)
    candidates = Candidates(share=(0.2, 0.5, 1)[seed % 3], most=(2, 8)[seed % 2])
    there = candidates.epochs(rule, 9)
    for fold, epoch in enumerate(choose(rule, scores, units, candidates)):
        assert epoch == there[choose(rule, scores[:, np.array(there) - 1], units)[fold] - 1]
        for done in range(epoch, 10):
            if done == epoch or rule != "best":
                assert epoch in reachable(rule, scores[fold, :done], 9, candidates)
    assert [reachable(rule, scores[0, :done], 9, candidates) for done in range(there[0])] == [[]] * there[0]


@pytest.mark.parametrize("seed", range(5))
def test_of_the_best_epochs_none_is_passed_over(seed):
    """Only the weights of the best one so far are kept, however many may be chosen."""
    scores, units = curves(seed, folds=4, epochs=30)
    expected = [21 + int(row[20:].argmin()) for row in scores]
    assert choose("best", scores, units, THIRD) == expected


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
