"""The macro AUROC and its interval: scikit-learn's figures, known answers, and patients who are drawn whole."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from hms_ray.core.seeds import stream
from hms_ray.ensemble import auroc


@pytest.fixture
def drawn():
    """Labels (120, 3), predictions (2, 120, 3) of which the first are better and the second have ties, 60 groups."""
    rng = stream(0, "auroc")
    truth = rng.random((120, 3)) < [0.5, 0.3, 0.1]
    better, worse = (truth + rng.normal(0, spread, truth.shape) for spread in (0.7, 3.0))
    return truth, np.stack([better, worse.round(1)]), np.repeat(np.arange(60), 2)


def test_whole_weights_count_as_repeated_rows(drawn):
    truth, probs, _ = drawn
    weights = stream(1, "weights").integers(0, 4, (5, 120)).astype(float)
    found = auroc.macro_aurocs(weights, truth, probs)
    for d in range(5):
        rows = np.repeat(np.arange(120), weights[d].astype(int))
        for p in range(2):
            assert found[d, p] == pytest.approx(roc_auc_score(truth[rows], probs[p, rows], average="macro"), rel=1e-12)


def test_a_class_of_one_outcome_is_left_out_and_without_classes_there_is_no_figure(drawn):
    truth, probs, _ = drawn
    truth = truth.copy()
    truth[:, 2] = False
    found = auroc.macro_aurocs(np.ones((1, 120)), truth, probs)
    assert found[0, 0] == pytest.approx(roc_auc_score(truth[:, :2], probs[0, :, :2], average="macro"), rel=1e-12)
    assert np.isnan(auroc.macro_aurocs(np.ones((1, 120)), np.zeros_like(truth), probs)).all()


def test_estimates_hold_their_values_and_the_difference_that_of_the_two(drawn):
    ours, theirs, gain = auroc.estimates(*drawn, stream(0, "draws"))
    truth, probs, _ = drawn
    assert ours.value == pytest.approx(roc_auc_score(truth, probs[0]), rel=1e-12)
    assert gain.value == pytest.approx(ours.value - theirs.value, rel=1e-12)
    for estimate in (ours, theirs, gain):
        assert estimate.low < estimate.value < estimate.high
    assert gain.low > 0, "0.7 against 3 of noise is no chance with 120 units"


def test_estimates_are_the_same_again_and_of_the_same_draws_with_one_predictor_or_two(drawn):
    truth, probs, groups = drawn
    both, again = (auroc.estimates(truth, probs, groups, stream(0, "draws")) for _ in range(2))
    [alone] = auroc.estimates(truth, probs[:1], groups, stream(0, "draws"))
    assert both == again and both[0] == alone


def test_a_predictor_does_not_differ_from_itself(drawn):
    truth, probs, groups = drawn
    *_, gain = auroc.estimates(truth, probs[[0, 0]], groups, stream(0, "draws"))
    assert (gain.value, gain.error, gain.low, gain.high) == (0, 0, 0, 0)


def test_patients_are_drawn_whole(drawn):
    """The same units over again in the same groups carry no more knowledge, in groups of their own they seem to."""
    truth, probs, groups = drawn
    twice = np.vstack([truth, truth]), np.concatenate([probs, probs], axis=1)
    [once, *_] = auroc.estimates(truth, probs, groups, stream(0, "draws"))
    [same, *_] = auroc.estimates(*twice, np.tile(groups, 2), stream(0, "draws"))
    [apart, *_] = auroc.estimates(*twice, np.concatenate([groups, groups + 60]), stream(0, "draws"))
    assert same.error == pytest.approx(once.error, rel=1e-9)
    assert apart.error == pytest.approx(once.error / np.sqrt(2), rel=0.15)


def test_the_interval_covers_as_often_as_it_says():
    """Normal scores one apart have an AUROC of Phi(1 / sqrt 2); two of 40 intervals miss it in the mean."""
    rng, missed = stream(2, "coverage"), 0
    for _ in range(40):
        truth = rng.random((80, 1)) < 0.4
        [found] = auroc.estimates(truth, (truth + rng.normal(size=truth.shape))[None], np.arange(80), rng, 200)
        missed += not found.low <= 0.76025 <= found.high
    assert missed <= 6


def test_few_patients_have_no_interval_and_one_outcome_no_figure(drawn):
    truth, probs, groups = drawn
    [found, *_] = auroc.estimates(truth, probs, groups % 3, stream(0, "draws"))
    assert (found.error, found.low, found.high) == (None, None, None) and found.value > 0.7
    [nothing, *_] = auroc.estimates(np.zeros_like(truth), probs, groups, stream(0, "draws"))
    assert np.isnan(nothing.value) and nothing.low is None
