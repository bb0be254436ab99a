"""What counts in a fit: the clip, the units' weights, the pairs with a target, and slices of a bounded size."""

import numpy as np
import pytest

from hms_ray.core.seeds import stream
from hms_ray.ensemble import terms
from hms_ray.tasks import CLIP


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int64])
def test_clipped_predictions_are_float64_and_have_logarithms(dtype):
    probs = np.array([[0, 1], [1, 0]], dtype)
    found = terms.clipped(probs)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, [[CLIP, 1 - CLIP], [1 - CLIP, CLIP]])
    assert (np.log(found) < 0).all()
    assert probs.sum() == 2


def test_weights_sum_to_1():
    np.testing.assert_array_equal(terms.normalised(4), [0.25] * 4)
    np.testing.assert_array_equal(terms.normalised(3, np.array([1, 0, 3])), [0.25, 0, 0.75])


def test_without_any_weight_nothing_can_be_fitted():
    probs, targets, none = np.full((2, 1, 2), 0.5), np.full((2, 2), 0.5), np.zeros(2)
    with pytest.raises(AssertionError, match="no unit has weight"):
        terms.normalised(2, none)
    with pytest.raises(AssertionError, match="no unit has weight"):
        terms.scored_terms(probs, targets, none)


def test_pairs_without_a_target_are_left_out():
    probs = np.array([[[0.1, 0.9], [1.0, 0.0]], [[0.3, 0.7], [0.4, 0.6]]])  # (N, M, K)
    targets = np.array([[1.0, 0.0], [0.25, 0.75]])
    members, shares = terms.scored_terms(probs, targets, np.array([1.0, 3.0]))
    np.testing.assert_allclose(members, [[0.1, 1 - CLIP], [0.3, 0.4], [0.7, 0.6]], rtol=1e-15)
    np.testing.assert_allclose(shares, np.array([1, 0.75, 2.25]) / 4)


def test_units_without_weight_are_left_out():
    probs, targets = np.full((3, 2, 2), 0.5), np.array([[1.0, 0], [0.5, 0.5], [0, 1.0]])
    members, shares = terms.scored_terms(probs, targets, np.array([1.0, 0, 1.0]))
    assert members.shape == (2, 2)
    assert shares.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("tail", [(4,), (3, 2), (2, 3, 2)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_terms_make_up_the_mean_cross_entropy(tail, dtype):
    rng = stream(0, "terms", *tail)
    probs = rng.dirichlet(np.ones(tail[-1]), (30, 5, *tail[:-1])).astype(dtype)
    targets = np.eye(tail[-1])[rng.integers(0, tail[-1], (30, *tail[:-1]))]
    before, weights = probs.copy(), rng.uniform(0, 2, 30)
    members, shares = terms.scored_terms(probs, targets, weights)
    for m in range(5):
        rows = -(targets * np.log(probs[:, m].astype(float))).sum(-1).reshape(30, -1).mean(1)
        assert -np.log(members[:, m]) @ shares == pytest.approx(np.average(rows, weights=weights), rel=1e-12)
    np.testing.assert_array_equal(probs, before)


@pytest.mark.parametrize(("n_units", "entries", "sizes"), [(10, 3, [3, 3, 3, 1]), (2, 3, [2]), (3, 100, [1, 1, 1])])
def test_blocks_cover_each_unit_once_and_stay_small(n_units, entries, sizes, monkeypatch):
    monkeypatch.setattr(terms, "BLOCK", 10)
    units = [np.arange(n_units)[rows] for rows in terms.blocks(n_units, entries)]
    assert [len(rows) for rows in units] == sizes
    np.testing.assert_array_equal(np.concatenate(units), np.arange(n_units))


def test_no_units_make_no_blocks_and_no_entries_make_one():
    assert list(terms.blocks(0, 5)) == []
    assert len(list(terms.blocks(9, 0))) == 1
