"""Cross-fitting: a fold never sees itself, in nothing that is fitted or chosen, and says so where it cannot fit."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from hms_ray.core.errors import ConfigError
from hms_ray.ensemble import methods, weighing
from hms_ray.ensemble import nested as _nested
from hms_ray.ensemble.members import Limits
from hms_ray.ensemble.methods import Candidate
from hms_ray.ensemble.nested import Fits, cross_fit
from hms_ray.ensemble.pools import _base

FAMILIES = ("a", "a", "b", "b")
UNEQUAL = (0.3, 0.5, 2.0, 3.0)  # noise of members whose plain mean is far from the best pool
BETTER, WORSE = Candidate("linear"), Candidate("best_single")
LIMITS = {
    "members": Limits(members=2),
    "families": Limits(per_family=1),
    "seconds": Limits(seconds=3, costs=(3, 1, 1, 1)),
    "tolerance": Limits(tolerance=0.01),
}


@pytest.fixture
def fits(monkeypatch):
    """Every call of Candidate.fit, as (candidate, number of units with weight, their targets' fingerprint)."""
    calls, fit = [], Candidate.fit

    def counted(self, probs, targets, weight, groups, start=None):
        calls.append((self, np.count_nonzero(weight), hash(targets[weight > 0].tobytes())))
        return fit(self, probs, targets, weight, groups, start)

    monkeypatch.setattr(Candidate, "fit", counted)
    return calls


def fitted(candidate, rows, mask):
    """The candidate's pool of the rows of a mask."""
    return candidate.fit(
        rows.probs[mask], rows.targets[mask], rows.weight[mask], rows.effective_groups(np.flatnonzero(mask))
    )


def inner_scores(rows, options, without):
    """Each option's cross-fitted score among the folds that remain, straight from the definition."""
    remain, scores = [k for k in rows.fold_numbers if k not in without], []
    for option in options:
        losses, weights = [], []
        for fold in remain:
            train = rows.scored & np.isin(rows.folds, [k for k in remain if k != fold])
            test = rows.scored & (rows.folds == fold)
            pool = fitted(option, rows, train)
            losses.append(rows.losses(pool.predict(rows.probs[test]), test))
            weights.append(rows.weight[test])
        scores.append(np.average(np.concatenate(losses), weights=np.concatenate(weights)))
    return np.array(scores)


def assert_blind(rows, other, method, limits=None):
    """Assert that the prediction of a fold is the same to the bit whatever its own targets are, and others' are not."""
    limits = limits or Limits()
    before = cross_fit(Fits(rows, limits), method)
    for fold in rows.fold_numbers:
        after = cross_fit(Fits(other(rows, rows.folds == fold), limits), method)
        np.testing.assert_array_equal(after.probs[rows.folds == fold], before.probs[rows.folds == fold])
        changed = (after.probs[rows.folds != fold] != before.probs[rows.folds != fold]).any()
        assert changed or method in ("uniform", "best_single"), "these targets matter to other folds"


@pytest.mark.parametrize("method", methods.names())
def test_a_fold_does_not_see_its_own_targets(method, make_rows, other_targets):
    assert_blind(make_rows(n_groups=30, families=FAMILIES, noise=UNEQUAL), other_targets, method)


@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
@pytest.mark.parametrize("method", ["linear", "calibrated", "greedy", "auto"])
def test_members_are_chosen_within_each_fold(method, limits, make_rows, other_targets):
    assert_blind(make_rows(n_groups=30, families=FAMILIES, noise=UNEQUAL), other_targets, method, limits)


@pytest.mark.parametrize("kind", ["multilabel", "binary"])
def test_labels_are_not_seen_either(kind, make_rows, other_targets):
    rows = make_rows(n_groups=60, kind=kind, n_classes=1 if kind == "binary" else 3, noise=UNEQUAL)
    assert_blind(rows, other_targets, "auto", Limits(members=3))


def test_a_fold_is_not_seen_where_members_and_units_are_screened(make_rows, other_targets, monkeypatch):
    monkeypatch.setattr(_nested, "MOST_MEMBERS", 2)
    monkeypatch.setattr(_nested, "MOST_UNITS", 10)
    assert_blind(make_rows(n_groups=40, n_folds=4, families=FAMILIES, noise=UNEQUAL), other_targets, "auto")


@pytest.mark.parametrize("method", ["linear", "auto"])
def test_units_that_do_not_count_are_predicted_and_never_learnt_from(method, make_rows, other_targets):
    rows = make_rows(weight=np.tile([1.0, 0.0], 24), families=FAMILIES)
    before = cross_fit(Fits(rows), method)
    after = cross_fit(Fits(other_targets(rows, ~rows.scored)), method)
    np.testing.assert_array_equal(before.probs, after.probs)
    np.testing.assert_allclose(before.probs[~rows.scored].sum(-1), 1, atol=1e-12)


@pytest.mark.parametrize("without", [{0}, {1, 2}])
def test_shares_do_not_depend_on_the_folds_left_out(without, make_rows, other_targets):
    rows = make_rows(n_groups=64, n_folds=4, families=FAMILIES, noise=UNEQUAL)
    options, without = methods.candidates("auto", FAMILIES), frozenset(without)
    before = Fits(rows).shares("auto", options, without)
    left_out = np.isin(rows.folds, list(without))
    np.testing.assert_array_equal(Fits(other_targets(rows, left_out)).shares("auto", options, without), before)
    assert (Fits(other_targets(rows, ~left_out)).shares("auto", options, without) != before).any()


def test_a_fold_is_predicted_by_the_pool_of_the_others(make_rows):
    rows = make_rows(n_groups=30, weight=np.tile([1.0, 1.0, 0.0, 2.0], 15))
    nested = cross_fit(Fits(rows), "linear")
    for fold in rows.fold_numbers:
        train, held_out = rows.scored & (rows.folds != fold), rows.folds == fold
        pool = fitted(BETTER, rows, train)
        np.testing.assert_array_equal(nested.probs[held_out], pool.predict(rows.probs[held_out]))
    assert nested.gap == max(pool.gap for pool in nested.pools.values()) < 1e-9
    assert nested.notes == ()


def test_methods_without_a_certificate_have_no_gap(make_rows):
    assert cross_fit(Fits(make_rows()), "greedy").gap is None


def test_each_candidate_is_fitted_once_without_each_set_of_folds(make_rows, fits):
    rows, told = make_rows(n_groups=16, n_folds=4, families=FAMILIES), []
    ours = Fits(rows, progress=lambda *figures: told.append(figures))
    for method in ("auto", "auto", *methods.names()):
        ours.chosen(method)
        cross_fit(ours, method)
    assert max(Counter(fits).values()) == 1
    auto = set(methods.candidates("auto", FAMILIES))
    each = 1 + 4 + 6
    assert sum(candidate in auto for candidate, *_ in fits) == len(auto) * each
    assert told == [(n + 1, len(auto) * each) for n in range(len(auto) * each)]


def test_the_best_alone_where_nothing_is_averaged(make_rows):
    rows, options = make_rows(), (WORSE, BETTER, Candidate("uniform"))
    best = np.argmin(inner_scores(rows, options, ()))
    assert Fits(rows).shares("log_linear", options, frozenset()).tolist() == np.eye(3)[best].tolist()
    assert _base.kind(Fits(rows).chosen("log_linear")) == "log_linear", "one pool, not an average of one"


@pytest.mark.parametrize(("method", "expected"), [("auto", [0, 0, 1]), ("log_linear", [1, 0, 0])])
def test_with_one_fold_to_fit_on_auto_is_the_plain_mean(method, expected, make_rows, fits):
    options = (WORSE, BETTER, Candidate("uniform"))
    ours = Fits(make_rows(n_folds=2))
    assert ours.shares(method, options, frozenset({0})).tolist() == expected
    assert fits == []


def test_a_weight_of_two_is_a_unit_twice(make_rows):
    once = make_rows(n_groups=12, weight=np.tile([2.0, 1.0], 12))
    again = np.repeat(np.arange(24), np.tile([2, 1], 12))
    fields = ("probs", "targets", "folds", "groups")
    twice = replace(once, **{name: getattr(once, name)[again] for name in fields}, weight=np.ones(36))
    options = tuple(Candidate(name) for name in ("linear", "tempered", "greedy", "uniform"))
    shares = [Fits(rows).shares("auto", options, frozenset()) for rows in (once, twice)]
    np.testing.assert_allclose(*shares, rtol=1e-6)
    probs = cross_fit(Fits(once), "tempered").probs[again]
    np.testing.assert_allclose(cross_fit(Fits(twice), "tempered").probs, probs, atol=1e-6)


def test_auto_is_the_average_of_its_candidates_by_their_shares(make_rows):
    rows = make_rows(n_groups=60, noise=UNEQUAL)
    ours, options = Fits(rows), methods.candidates("auto", rows.families)
    shares = ours.shares("auto", options, frozenset())
    expected = sum(s * ours.pool(o).predict(rows.probs) for s, o in zip(shares, options, strict=True))
    np.testing.assert_allclose(ours.chosen("auto").predict(rows.probs), expected, atol=1e-15)
    assert np.count_nonzero(shares) > 1 and shares.sum() == pytest.approx(1, abs=1e-15)


def test_shares_are_those_of_the_inner_predictions(make_rows):
    rows = make_rows(n_groups=60, n_folds=4, noise=UNEQUAL, weight=np.tile([1.0, 3.0, 0.0], 40))
    options = tuple(Candidate(name) for name in ("linear", "uniform", "average", "best_single"))
    for without in (frozenset(), frozenset({1})):
        remain = [k for k in rows.fold_numbers if k not in without]
        units = np.concatenate([np.flatnonzero(rows.scored & (rows.folds == k)) for k in remain])
        predicted = np.concatenate(
            [
                [
                    fitted(o, rows, rows.scored & np.isin(rows.folds, [j for j in remain if j != k])).predict(
                        rows.probs[rows.scored & (rows.folds == k)]
                    )
                    for o in options
                ]
                for k in remain
            ],
            axis=1,
        )
        expected = weighing.average(rows, units, predicted, plain=1)
        np.testing.assert_allclose(Fits(rows).shares("auto", options, without), expected, rtol=1e-6)


def test_a_fold_without_scored_units_elsewhere_is_averaged_and_noted(make_rows):
    rows = make_rows(families=FAMILIES)
    rows = replace(rows, weight=(rows.folds == 0).astype(float))
    nested = cross_fit(Fits(rows), "log_linear")
    first = rows.folds == 0
    np.testing.assert_allclose(nested.probs[first], rows.probs[first].mean(1), atol=1e-15)
    assert (nested.probs[~first] != rows.probs[~first].mean(1)).any(), "the others learn from fold 0"
    assert nested.notes == ("fold 0: no scored unit lies in the other folds, so its members are weighted uniformly",)


def test_with_two_folds_auto_says_that_it_scores_the_plain_mean(make_rows):
    rows = make_rows(n_groups=40, n_folds=2, noise=UNEQUAL)
    nested = cross_fit(Fits(rows), "auto")
    np.testing.assert_allclose(nested.probs, rows.probs.mean(1), atol=1e-15)
    assert nested.notes[0].startswith("with two folds, one fold is left to fit on, so auto has no choice")
    assert cross_fit(Fits(rows), "linear").notes == cross_fit(Fits(make_rows(n_folds=3)), "auto").notes == ()


def test_one_fold_is_refused(make_rows):
    rows = replace(make_rows(), folds=np.full(48, 3))
    with pytest.raises(ConfigError, match="cross-fitting needs units of 2 folds or more; these are all of fold 3"):
        cross_fit(Fits(rows), "linear")


def test_of_many_members_others_than_the_linear_pool_see_its_heaviest(make_rows, monkeypatch):
    monkeypatch.setattr(_nested, "MOST_MEMBERS", 2)
    rows = make_rows(noise=(0.9, 0.3, 1.0, 0.4, 0.8))
    ours = Fits(rows)
    for without in (frozenset(), frozenset({1}), frozenset({0, 2})):
        weights = ours.pool(_nested.LINEAR, without).weights
        heaviest = set(np.argsort(-weights)[:2])
        assert (weights > 0).sum() > 2, "or this would say nothing"
        for method in ("log_linear", "calibrated", "greedy"):
            found = ours.pool(methods.candidates(method, rows.families)[0], without).weights
            assert set(np.flatnonzero(found)) <= heaviest
    assert ours.pool(Candidate("uniform")).weights.tolist() == [0.2] * 5


def test_screened_families_stay_with_their_members(make_rows, monkeypatch):
    monkeypatch.setattr(_nested, "MOST_MEMBERS", 3)
    rows = make_rows(noise=(0.5, 0.5, 3.0, 0.5, 0.5), families=("b", "a", "a", "a", "b"))
    candidate = methods.candidates("two_level", rows.families)[0]
    ours = Fits(rows)
    heaviest = np.sort(np.argsort(-ours.pool(_nested.LINEAR).weights)[:3])
    groups = rows.effective_groups(np.arange(len(rows.targets)))
    expected = candidate.only(heaviest).fit(rows.probs[:, heaviest], rows.targets, rows.weight, groups)
    np.testing.assert_array_equal(ours.pool(candidate).inner[:, heaviest], expected.inner)


def test_only_fits_that_a_choice_depends_on_are_thinned(make_rows, fits, monkeypatch):
    monkeypatch.setattr(_nested, "MOST_UNITS", 9)
    ours = Fits(make_rows(n_groups=32, n_folds=4))
    for without in ((), (1,), (1, 2)):
        ours.pool(BETTER, frozenset(without))
    assert [units for _, units, _ in fits] == [64, 48, 8]
