"""Intervals by patient: the ratio's estimate and error by hand, invariances, and their coverage."""

from dataclasses import astuple

import numpy as np
import pytest

from hms_ray.core.seeds import stream
from hms_ray.ensemble import bootstrap
from hms_ray.ensemble.bootstrap import estimates

CODES = np.array([0, 0, 0, 1, 2, 2, 3, 3, 3, 3, 4, 5])
GROUPS = np.array(["p9", "p1", "p7", "p3", "p5", "p2"])[CODES]


def losses(seed=0, columns=2, groups=GROUPS):
    """Skewed losses (N, C), alike within a patient."""
    rng, (_, codes) = stream(seed, "bootstrap", columns), np.unique(groups, return_inverse=True)
    by_patient = rng.gamma(1.0, 0.5, (codes.max() + 1, columns))[codes]
    return by_patient + rng.gamma(0.5, 0.4, (len(groups), columns))


def estimate(values, groups=GROUPS, weight=None, seed=0, **options):
    """Estimate one column, a figure as a tuple."""
    weight = np.ones(len(groups)) if weight is None else weight
    values = values[:, None] if values.ndim == 1 else values
    return [astuple(e) for e in estimates(values, groups, weight, stream(seed, "draws"), **options)]


def test_sums_and_sizes_are_weighted_and_by_group():
    values, weight = np.arange(24.0).reshape(12, 2), np.arange(12.0)
    sums, sizes = bootstrap.by_group(values, GROUPS, weight)
    for row, name in enumerate(np.unique(GROUPS)):
        own = name == GROUPS
        np.testing.assert_allclose(sums[row], weight[own] @ values[own])
        assert sizes[row] == weight[own].sum()


@pytest.mark.parametrize("weight", [np.ones(12), np.arange(1.0, 13)], ids=["alike", "weighted"])
def test_the_value_is_sum_by_sum_and_the_error_that_of_a_ratio(weight):
    values = losses()
    sums, sizes = bootstrap.by_group(values, GROUPS, weight)
    for c, (value, error, low, high) in enumerate(estimate(values, weight=weight)):
        assert value == pytest.approx(sum(sums[:, c]) / sum(sizes), rel=1e-14)
        residuals = sums[:, c] - value * sizes
        by_hand = np.sqrt(6 / 5 * (residuals**2).sum()) / sizes.sum()
        assert error == pytest.approx(by_hand, rel=1e-12)
        assert bootstrap.standard_errors(sums, sizes)[c] == pytest.approx(by_hand, rel=1e-12)
        assert low < value < high


def test_with_one_unit_a_patient_the_error_is_that_of_a_mean():
    values = losses(columns=1)[:, 0]
    [(value, error, *_)] = estimate(values, np.arange(12))
    assert (value, error) == pytest.approx((values.mean(), values.std(ddof=1) / np.sqrt(12)), rel=1e-12)


def test_fewer_patients_make_a_wider_interval():
    widths = []
    for n in (8, 40, 400):
        groups = np.repeat(np.arange(n), 3)
        found = [estimate(losses(seed, 1, groups), groups)[0] for seed in range(5)]
        assert all(low < value < high for value, _, low, high in found)
        widths.append(np.mean([high - low for _, _, low, high in found]))
    assert widths[0] > 1.5 * widths[1] > 3 * widths[2]


def test_a_higher_level_is_wider_at_both_ends():
    [(*_, low, high)], [(*_, lower, higher)] = (estimate(losses(columns=1), level=level) for level in (0.8, 0.95))
    assert lower < low < high < higher


def test_the_longer_tail_of_losses_makes_the_longer_side():
    groups = np.repeat(np.arange(40), 3)
    for seed in range(5):
        [(value, _, low, high)] = estimate(losses(seed, 1, groups) ** 2, groups)
        assert high - value > 1.2 * (value - low), "many small losses may hide that large ones were missed"


def test_the_stream_decides():
    values = losses()
    assert estimate(values) == estimate(values)
    assert estimate(values) != estimate(values, seed=1)


def test_columns_share_their_draws():
    values = losses()
    together = estimate(np.column_stack([values, values[:, 0]]))
    assert together[0] == together[2]
    assert together[:2] == estimate(values)


def test_a_constant_shifts_the_interval_and_a_factor_stretches_it():
    [(value, error, low, high)] = estimate(losses(columns=1))
    [moved], [scaled] = estimate(losses(columns=1) + 3), estimate(losses(columns=1) * 2)
    assert moved == pytest.approx((value + 3, error, low + 3, high + 3), rel=1e-9)
    assert scaled == pytest.approx((2 * value, 2 * error, 2 * low, 2 * high), rel=1e-9)


def test_patients_are_drawn_whole():
    values = losses()
    expected = estimate(values)
    np.testing.assert_allclose(estimate(np.repeat(values, 3, axis=0), np.repeat(GROUPS, 3)), expected, rtol=1e-9)
    twice = np.append(np.arange(12), np.flatnonzero(GROUPS == "p3"))  # one patient's units twice, each for one half
    weight = np.where(GROUPS[twice] == "p3", 0.5, 1.0)
    np.testing.assert_allclose(estimate(values[twice], GROUPS[twice], weight), expected, rtol=1e-9)
    shuffled = stream(0, "order").permutation(12)
    np.testing.assert_allclose(estimate(values[shuffled], GROUPS[shuffled]), expected, rtol=1e-9)


def test_units_of_one_patient_count_as_one_patient():
    values = losses(columns=1)[:, 0]
    [(*_, low, high)], [(*_, lower, higher)] = estimate(values, np.arange(12)), estimate(values)
    assert higher - lower > high - low, "patients differ more than the units within them"


def test_of_a_single_patient_there_is_a_value_alone():
    assert estimate(np.array([1.0, 2.0, 6.0]), np.zeros(3)) == [(3.0, None, None, None)]


@pytest.mark.parametrize("n_groups", [2, 3])
def test_of_very_few_patients_there_is_no_interval(n_groups):
    groups = np.repeat(np.arange(n_groups), 4)
    [(value, error, *interval)] = estimate(losses(0, 1, groups), groups)
    assert value > 0 and error > 0
    assert interval == [None, None]


@pytest.mark.parametrize("n_groups", [4, 5, 6])
def test_draws_of_one_patient_alone_do_not_blow_an_interval_up(n_groups):
    groups = np.repeat(np.arange(n_groups), 3)
    for seed in range(30):
        values = losses(seed, 1, groups)
        [(value, error, low, high)] = estimate(values, groups)
        assert low < value < high
        assert high - low < 1e4 * error


def test_draws_of_patients_that_score_alike_do_not_blow_an_interval_up():
    groups = np.arange(4)
    [(value, error, low, high)] = estimate(np.array([0.3, 0.3 + 1e-7, 0.31, 1.4]), groups)
    assert low < value < high
    assert high - low < 20 * error


def test_an_interval_stays_within_what_the_values_can_be():
    values = np.array([0.0, 0.0, 0.1, 30.0, 0.0])
    for column, bounds in ((values, (0.0, 20.0)), (-values, (-20.0, 0.0))):
        [(value, _, low, high)], [(*_, free_low, free_high)] = (
            estimate(column, np.arange(5), **options) for options in ({"bounds": bounds}, {})
        )
        assert bounds[0] <= low < value < high <= bounds[1]
        assert free_low < bounds[0] and free_high > bounds[1], "without bounds it would not"


def test_what_does_not_vary_has_no_width():
    constant, zero = estimate(np.tile([0.3, 0.0], (12, 1)))
    assert constant == pytest.approx((0.3, 0, 0.3, 0.3), abs=1e-9)
    assert zero == (0, 0, 0, 0)


def test_intervals_cover_as_often_as_they_say():
    covered, rng = 0, stream(0, "coverage")
    for _ in range(300):
        sizes = rng.integers(1, 6, 40)
        groups = np.repeat(np.arange(40), sizes)
        values = rng.gamma(1.0, 0.5, 40)[groups] + rng.gamma(0.5, 1.0, len(groups))
        [found] = estimates(values[:, None], groups, np.ones(len(groups)), rng, draws=400)
        covered += found.low <= 1.0 <= found.high
    assert 0.92 <= covered / 300 <= 0.98
