"""What candidates count: by their score, and the plain mean keeps what few patients leave open."""

import numpy as np
import pytest

from hms_ray.core.seeds import stream
from hms_ray.ensemble import weighing

PLAIN = 0


@pytest.fixture
def rows(make_rows):
    return make_rows(n_groups=40, per_group=3, weight=np.tile([1.0, 2.0, 0.0], 40))


@pytest.fixture
def units(rows):
    return np.flatnonzero(rows.scored)


def blends(rows, units, *amounts):
    """Predictions (C, n, K): the targets, mixed with even ones by each of these amounts."""
    targets, even = rows.targets[units], np.full(rows.targets.shape[1], 1 / rows.targets.shape[1])
    return np.stack([(1 - amount) * targets + amount * even for amount in amounts])


def score(rows, units, predicted):
    return np.average(rows.losses(predicted, units), weights=rows.weight[units])


def test_shares_fall_by_a_factor_e_with_each_nat_of_all_patients(rows, units):
    predicted = blends(rows, units, 0.9, 0.2, 0.22, 0.25)
    expected = np.exp(-rows.n_groups * np.array([score(rows, units, each) for each in predicted]))
    found = weighing.average(rows, units, predicted, PLAIN)
    np.testing.assert_allclose(found[2:] / found[1], expected[2:] / expected[1], rtol=1e-9)
    assert found.sum() == pytest.approx(1, abs=1e-15)


def test_the_plain_mean_keeps_the_squared_ratio_of_error_and_gain(rows, units):
    """The error from its definition: the spread of the patients' weighted sums around the mean gain."""
    amounts = stream(0, "amounts").uniform(0.0, 0.75, 40)[rows.groups[units], None]
    predicted = np.stack([blends(rows, units, 0.5)[0], blends(rows, units, amounts)[0]])
    blend = np.exp(-40 * np.array([score(rows, units, each) for each in predicted]))
    blend /= blend.sum()
    pooled = blend[0] * predicted[0] + blend[1] * predicted[1]
    gain, weight = rows.losses(predicted[0], units) - rows.losses(pooled, units), rows.weight[units]
    mean = np.average(gain, weights=weight)
    by_patient = [((gain - mean) * weight)[rows.groups[units] == group].sum() for group in range(40)]
    kept = 1 - np.square(by_patient).sum() * 40 / 39 / weight.sum() ** 2 / mean**2
    assert mean > 0 and 0.1 < kept < 0.95, "or this would say little"
    np.testing.assert_allclose(weighing.average(rows, units, predicted, PLAIN)[1], kept * blend[1], rtol=1e-9)


def test_what_does_not_beat_the_plain_mean_gets_nothing(rows, units):
    assert weighing.average(rows, units, blends(rows, units, 0.3, 0.4, 0.6), PLAIN).tolist() == [1, 0, 0]


def test_what_beats_it_by_less_than_its_error_gets_nothing(rows, units):
    """It is far better for one patient, and a little worse for all others."""
    predicted = blends(rows, units, 0.5, 0.501)
    one = rows.groups[units] == 7
    predicted[1, one] = rows.targets[units][one]
    assert score(rows, units, predicted[1]) < score(rows, units, predicted[0])
    assert weighing.average(rows, units, predicted, PLAIN).tolist() == [1, 0]


def test_a_gain_that_all_patients_share_gets_nearly_all(rows, units):
    assert weighing.average(rows, units, blends(rows, units, 0.9, 0.1), PLAIN)[1] > 0.99


def test_of_one_patient_nothing_is_learnt(make_rows):
    rows = make_rows(n_groups=1, per_group=20)
    units = np.arange(20)
    assert weighing.average(rows, units, blends(rows, units, 0.9, 0.1), PLAIN).tolist() == [1, 0]


def test_tiny_shares_are_dropped(rows, units):
    predicted = blends(rows, units, 0.9, 0.1, 0.8)
    behind = score(rows, units, predicted[2]) - score(rows, units, predicted[1])
    assert np.exp(-40 * behind) < weighing.LEAST_SHARE
    assert weighing.average(rows, units, predicted, PLAIN)[2] == 0


def test_the_best_is_the_best_alone_and_the_first_of_equals(rows, units):
    assert weighing.best(rows, units, blends(rows, units, 0.5, 0.2, 0.2, 0.4)).tolist() == [0, 1, 0, 0]
