"""Limits on members against brute force, what each member is worth, and how alike errors are."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from hms_ray.core.errors import ConfigError
from hms_ray.ensemble import members as _members
from hms_ray.ensemble.members import Limits
from hms_ray.ensemble.nested import Fits, cross_fit
from hms_ray.ensemble.pools import linear

EQUAL = (0.7, 0.8, 0.9, 0.8, 0.7, 0.8, 0.9)
COSTS = (5.0, 1.0, 3.0, 2.0, 4.0, 1.0, 2.0)


def seven(make_rows, seed, **changes):
    """Seven members of about the same worth, so that each choice of them is a close one."""
    return make_rows(n_groups=40, noise=EQUAL, seed=seed, **changes)


def loss_of(rows, members):
    """The KL of the best linear pool of some members on these rows."""
    probs = rows.probs[:, list(members)]
    return rows.score(linear.fit(probs, rows.targets, rows.weight).predict(probs))


def select(rows, limits):
    return _members.select(rows, np.flatnonzero(rows.scored), limits)


def best_of(rows, allowed):
    """The lowest loss among all sets of members that are allowed."""
    sets = (s for size in range(1, rows.n_members + 1) for s in combinations(range(rows.n_members), size))
    return min(loss_of(rows, s) for s in sets if allowed(s))


def test_without_limits_all_may_be_used(make_rows):
    assert select(make_rows(), Limits()).tolist() == [0, 1, 2, 3]
    assert not Limits()
    assert all([Limits(members=9), Limits(per_family=9), Limits(seconds=1.0, costs=(1.0,)), Limits(tolerance=0.0)])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("most", [1, 2, 3])
def test_so_many_members_are_nearly_the_best_so_many(make_rows, seed, most):
    rows = seven(make_rows, seed)
    kept = select(rows, Limits(members=most))
    assert 1 <= len(kept) <= most
    assert loss_of(rows, kept) <= 1.04 * best_of(rows, lambda s: len(s) <= most)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("seconds", [1.0, 4.0, 7.5])
def test_what_fits_into_the_seconds_is_nearly_the_best_that_fits(make_rows, seed, seconds):
    rows = seven(make_rows, seed)
    kept = select(rows, Limits(seconds=seconds, costs=COSTS))
    assert sum(COSTS[m] for m in kept) <= seconds
    assert loss_of(rows, kept) <= 1.03 * best_of(rows, lambda s: sum(COSTS[m] for m in s) <= seconds)


@pytest.mark.parametrize("seed", range(4))
def test_so_many_of_a_family_are_nearly_the_best(make_rows, seed):
    rows = seven(make_rows, seed, families="aaabbcc")
    kept = select(rows, Limits(per_family=1))
    families = [rows.families[m] for m in kept]
    assert len(families) == len(set(families))
    allowed = best_of(rows, lambda s: len({rows.families[m] for m in s}) == len(s))
    assert loss_of(rows, kept) <= 1.02 * allowed


def test_all_limits_hold_together(make_rows):
    rows = seven(make_rows, 0, families="aaabbcc")
    kept = select(rows, Limits(members=3, per_family=1, seconds=6.0, costs=COSTS))
    assert 1 <= len(kept) <= 3
    assert len({rows.families[m] for m in kept}) == len(kept)
    assert sum(COSTS[m] for m in kept) <= 6


@pytest.mark.parametrize("tolerance", [0.0, 1e-4, 1e-3, 1e-2, 10.0])
def test_members_go_while_the_loss_stays_within_the_tolerance(make_rows, tolerance):
    rows = seven(make_rows, 1)
    kept = select(rows, Limits(tolerance=tolerance))
    assert loss_of(rows, kept) <= loss_of(rows, range(7)) + tolerance + 2e-9
    fewer = [loss_of(rows, np.delete(kept, i)) for i in range(len(kept))] if len(kept) > 1 else [np.inf]
    assert min(fewer) > loss_of(rows, range(7)) + tolerance, "or another one could go"
    assert len(kept) == 1 or tolerance < 10


def test_a_larger_tolerance_keeps_fewer(make_rows):
    rows = seven(make_rows, 2)
    counts = [len(select(rows, Limits(tolerance=t))) for t in (0, 1e-3, 3e-3, 1e-2, 1e-1)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1]


def test_a_limit_that_nothing_exceeds_keeps_the_optimum(make_rows):
    rows = seven(make_rows, 3)
    optimum = np.flatnonzero(linear.fit(rows.probs, rows.targets).weights)
    for limits in (Limits(members=7), Limits(per_family=7), Limits(tolerance=0.0), Limits(seconds=99, costs=COSTS)):
        np.testing.assert_array_equal(select(rows, limits), optimum)


@pytest.mark.filterwarnings("error")
def test_a_member_that_costs_nothing_is_weighed_beside_one_that_costs_much(make_rows):
    rows = seven(make_rows, 0)
    costs = (1e6, 0.0, 0.0, 0.0, 0.0, 0.0, 1e6)
    kept = select(rows, Limits(seconds=1e6, costs=costs))
    assert sum(costs[m] for m in kept) <= 1e6
    assert loss_of(rows, kept) <= 1.02 * best_of(rows, lambda s: sum(costs[m] for m in s) <= 1e6)


def test_only_the_given_units_choose(make_rows, other_targets):
    rows = seven(make_rows, 0)
    units, rest = np.arange(50), np.arange(80) >= 50
    limits = Limits(members=2)
    before = _members.select(rows, units, limits)
    np.testing.assert_array_equal(_members.select(other_targets(rows, rest), units, limits), before)


@pytest.mark.parametrize("limits", [Limits(members=2), Limits(per_family=1), Limits(seconds=3, costs=(3, 2, 1, 1))])
@pytest.mark.parametrize("method", ["auto", "linear", "two_level", "greedy", "uniform"])
def test_every_pool_keeps_the_limits(make_rows, method, limits):
    rows = make_rows(families="aabb")
    used = np.flatnonzero(Fits(rows, limits).chosen(method).weights)
    assert not len(limits.too_many(used, np.array(rows.families)))


def test_every_fault_of_limits_is_named_at_once():
    with pytest.raises(ConfigError) as error:
        Limits(members=0, per_family=-1, tolerance=-0.5, seconds=2.0, costs=(3.0, 4.0)).check(2)
    for sentence in (
        "limits: 4 faults",
        "max_members must be 1 or more, but got 0",
        "max_per_family must be 1 or more, but got -1",
        "tolerance must be 0 or more nats, but got -0.5",
        "max_seconds is 2, but the cheapest member takes 3",
    ):
        assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        (Limits(seconds=2.0), "max_seconds needs costs"),
        (Limits(costs=(1.0, 2.0)), "costs need max_seconds"),
        (Limits(seconds=2.0, costs=(1.0,)), r"costs must be 2 numbers of 0 or more, one a member, but got \(1.0,\)"),
        (Limits(seconds=2.0, costs=(1.0, -1.0)), "costs must be 2 numbers of 0 or more"),
        (Limits(seconds=2.0, costs=(1.0, np.nan)), "costs must be 2 numbers of 0 or more"),
        (Limits(seconds=np.nan, costs=(1.0, 2.0)), "max_seconds is nan, but the cheapest member takes 1"),
        (Limits(tolerance=np.nan), "tolerance must be 0 or more nats, but got nan"),
        (Limits(tolerance=np.inf), "but got inf"),
    ],
)
def test_limits_that_cannot_be_kept_are_refused(limits, sentence):
    with pytest.raises(ConfigError, match=sentence):
        limits.check(2)


def test_sound_limits_pass():
    for limits in (Limits(), Limits(members=1, per_family=1, tolerance=0), Limits(seconds=1, costs=(1, 5))):
        limits.check(2)


def linear_weights(rows):
    return {fold: pool.weights for fold, pool in cross_fit(Fits(rows), "linear").pools.items()}


def without(rows, member):
    """Rows that never had the member."""
    others = [m for m in range(rows.n_members) if m != member]
    names, families = (tuple(getattr(rows, name)[m] for m in others) for name in ("names", "families"))
    return replace(rows, probs=rows.probs[:, others], names=names, families=families)


def cross_fitted(rows):
    return rows.score(cross_fit(Fits(rows), "linear").probs)


@pytest.mark.parametrize("kind", ["votes", "multilabel"])
def test_leaving_one_out_is_fitting_anew_without_it(make_rows, kind):
    rows = make_rows(n_groups=60, kind=kind, noise=(0.6, 0.7, 0.8, 0.9), weight=np.tile([1.0, 0.0, 2.0], 40))
    weights = linear_weights(rows)
    assert np.any([w > 0 for w in weights.values()], axis=0).all(), "or one could stand in that is not asked"
    naive = [cross_fitted(without(rows, m)) for m in range(4)]
    np.testing.assert_allclose(_members.leave_one_out(rows, weights), naive, atol=1e-6)
    assert np.ptp(naive) > 1e-3


def test_who_carries_no_weight_is_not_missed(make_rows):
    rows = make_rows(n_members=3)
    rows.probs[:, 2] = rows.probs[:, 0]
    weights = linear_weights(rows)
    assert all(w[2] == 0 for w in weights.values())
    assert _members.leave_one_out(rows, weights)[2] == pytest.approx(cross_fitted(rows), rel=1e-14)


def test_the_only_member_leaves_nobody_to_stand_in(make_rows):
    rows = make_rows(n_members=1)
    assert np.isnan(_members.leave_one_out(rows, linear_weights(rows))).tolist() == [True]


def test_a_fold_that_nothing_was_fitted_for_loses_a_member_of_its_average(make_rows):
    rows = make_rows(n_members=3)
    rows = replace(rows, weight=(rows.folds == 0).astype(float))
    naive = [cross_fitted(without(rows, m)) for m in range(3)]
    np.testing.assert_allclose(_members.leave_one_out(rows, linear_weights(rows)), naive, rtol=1e-12)


@pytest.mark.parametrize("kind", ["votes", "multilabel"])
def test_correlations_are_those_of_prediction_minus_target(make_rows, kind):
    rows = make_rows(kind=kind, weight=np.tile([1.0, 0.0], 24))
    errors = [(rows.probs[::2, m] - rows.targets[::2]).ravel() for m in (3, 0, 2)]
    found = _members.error_correlation(rows, np.array([3, 0, 2]))
    np.testing.assert_allclose(found, np.corrcoef(errors), atol=1e-12)


def test_duplicates_correlate_fully_and_one_member_with_itself(make_rows):
    rows = make_rows(n_members=3)
    rows.probs[:, 1] = rows.probs[:, 0]
    found = _members.error_correlation(rows, np.arange(3))
    assert found[0, 1] == pytest.approx(1, abs=1e-12) and abs(found[0, 2]) < 0.9
    assert _members.error_correlation(rows, np.array([2])).tolist() == [[pytest.approx(1)]]


@pytest.mark.filterwarnings("error")
def test_a_member_without_errors_correlates_with_nobody(make_rows):
    rows = make_rows(n_members=3)
    rows.probs[:, 1] = rows.targets
    found = _members.error_correlation(rows, np.arange(3))
    np.testing.assert_array_equal(found[1], [0, 1, 0])
    assert 0 < abs(found[0, 2]) < 1
