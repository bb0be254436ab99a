"""Inside a fold: limits that stop the hopeless alone, and estimates without the bias of an early score."""

import numpy as np
import pytest

from hms_ray.search.pruning import learning_curve
from hms_ray.search.pruning.learning_curve import Curve


def one_stage(scores, epochs=None):
    """The curve of a schedule of one stage, which is over unless it has more epochs."""
    return Curve(np.asarray(scores, dtype=float), (epochs or len(scores),))


def prune_thresholds(curves, epochs, rule):
    """Limits of a schedule of one stage."""
    return learning_curve.prune_thresholds(curves, (epochs,), rule)


def falling(end, epochs, height=0.4):
    """A curve that is linear in the share of its schedule."""
    return one_stage(end + height * (1 - np.arange(1, epochs + 1) / epochs))


FOUR = [falling(end, 10) for end in (0.25, 0.26, 0.27, 0.30)]


def test_limits_by_hand():
    """Bar of the ensemble: .30 + (.30 - .265); of the best: .25; at a share s every curve still falls by .4 (1 - s)."""
    shares = np.arange(1, 11) / 10
    lenient, strict = prune_thresholds(FOUR, 10, "ensemble"), prune_thresholds(FOUR, 10, "best")
    judged = slice(3, 9)
    np.testing.assert_allclose(lenient[judged], 0.335 + 0.4 * (1 - shares[judged]))
    np.testing.assert_allclose(strict[judged], 0.25 + 0.4 * (1 - shares[judged]))
    for limit in (lenient, strict):
        assert np.isinf(limit[[0, 1, 2, 9]]).all()


def test_the_one_that_falls_most_sets_the_limit():
    steep = [*FOUR, falling(0.27, 10, height=1.0)]
    assert prune_thresholds(steep, 10, "best")[4] == pytest.approx(0.25 + 0.5)


@pytest.mark.parametrize("epochs", [1, 2, 5, 7, 20])
def test_curves_are_compared_at_the_same_share_of_the_schedule(epochs):
    mixed = [falling(end, n) for end, n in ((0.25, 10), (0.26, 20), (0.27, 40), (0.30, 5))]
    limit = prune_thresholds(mixed, epochs, "ensemble")
    shares = np.arange(1, epochs + 1) / epochs
    judged = (shares >= 0.4) & (shares < 1)
    np.testing.assert_allclose(limit[judged], 0.335 + 0.4 * (1 - shares[judged]))
    assert np.isinf(limit[~judged]).all()


def test_too_few_curves_stop_nobody():
    broken = [*FOUR[:3], one_stage(np.full(10, np.nan)), one_stage([], 10)]
    assert np.isinf(prune_thresholds(broken, 10, "best")).all()
    assert np.isinf(prune_thresholds([], 3, "ensemble")).all()


def test_scores_that_are_not_finite_are_skipped():
    holes = [one_stage(curve.scores.copy()) for curve in FOUR]
    for curve, epoch in zip(holes, (0, 3, 5, 6), strict=True):
        curve.scores[epoch] = np.nan
    holes[0].scores[4] = np.inf
    np.testing.assert_allclose(prune_thresholds(holes, 10, "best"), prune_thresholds(FOUR, 10, "best"))


def real_like(rng, trials, epochs=10, worse=0.0):
    """Curves whose rank correlation with the end grows as it does in real searches: .15, .41, .81, .94 at e2 to e5."""
    ends = 0.26 + 0.015 * rng.normal(size=(trials, 1)) + worse
    share = np.arange(1, epochs + 1) / epochs
    noise = 0.015 * np.array([15, 6, 2.2, 0.7, 0.35, 0.3, 0.25, 0.2, 0.1, 0])
    return ends + 0.3 * np.exp(-6 * share) + noise * rng.normal(size=(trials, epochs))


def test_the_hopeless_are_stopped_in_mid_schedule_and_who_is_wanted_hardly_ever():
    """Wanted: by the ensemble whoever is like the others, by the best model whoever ends better than all of them."""
    rng = np.random.default_rng(0)
    stopped = {"like": [], "better": [], "hopeless": [], "worse": []}
    for _ in range(600):
        kept, own = [one_stage(scores) for scores in real_like(rng, 8)], real_like(rng, 1)[0]
        hopeless = real_like(rng, 1, worse=0.11)[0]
        lenient, strict = prune_thresholds(kept, 10, "ensemble"), prune_thresholds(kept, 10, "best")
        stopped["like"].append((own > lenient).any())
        stopped["hopeless"].append((hopeless > lenient)[:6].any())
        stopped["better" if own[-1] < min(k.end for k in kept) else "worse"].append((own > strict).any())
    assert np.mean(stopped["like"]) < 0.05
    assert np.mean(stopped["hopeless"]) > 0.9
    assert len(stopped["better"]) > 40
    assert np.mean(stopped["better"]) < 0.15
    assert np.mean(stopped["worse"]) > 0.8


def test_a_stopped_fold_is_projected_to_its_end():
    for epochs, known in ((10, 4), (40, 15)):
        stopped = one_stage(falling(0.28, epochs).scores[:known], epochs)
        assert learning_curve.projected_end(stopped, FOUR) == pytest.approx(0.28)
    assert learning_curve.projected_end(one_stage([0.5, 0.4, np.nan], 10), []) == 0.4
    assert np.isnan(learning_curve.projected_end(one_stage([np.nan, np.inf], 10), FOUR))


def test_the_projection_is_unbiased_where_the_early_score_is_not():
    rng = np.random.default_rng(1)
    early, projected = [], []
    for _ in range(400):
        *kept, own = real_like(rng, 9)
        early.append(own[4] - own[-1])
        projected.append(learning_curve.projected_end(one_stage(own[:5], 10), [one_stage(k) for k in kept]) - own[-1])
    error = np.std(projected) / np.sqrt(len(projected))
    assert abs(np.mean(projected)) < 3 * error
    assert np.mean(early) > 10 * error


def two_stages(end, first, second, plateau=0.5, drop=0.15):
    """A schedule whose first stage ends on a plateau, and whose second brings it down at once, and then slowly."""
    before = plateau + 0.4 * np.exp(-np.arange(1, first + 1))
    after = end + (plateau - end - drop) * (1 - np.arange(1, second + 1) / second)
    return Curve(np.concatenate([before, after]), (first, second))


EARLY = [two_stages(end, 5, 10) for end in (0.25, 0.26, 0.27, 0.30)]  # their second stage begins at a third


@pytest.mark.parametrize("rule", ["ensemble", "best"])
def test_the_better_schedule_that_starts_its_second_stage_later_survives(rule):
    """While it is in its first stage, the others are in their second: that they are ahead there tells nothing."""
    better = two_stages(0.20, 10, 5)
    limit = learning_curve.prune_thresholds(EARLY, better.stages, rule)
    assert np.isinf(limit[:10]).all(), "no other is comparable before its last stage"
    assert np.isfinite(limit[10:14]).all() and (better.scores <= limit).all()


@pytest.mark.parametrize("rule", ["ensemble", "best"])
def test_a_hopeless_schedule_of_other_stages_is_stopped_in_its_last(rule):
    limit = learning_curve.prune_thresholds(EARLY, (10, 5), rule)
    hopeless = two_stages(0.60, 10, 5, plateau=0.9)
    assert (hopeless.scores > limit).any() and not (hopeless.scores > limit)[:10].any()


def test_equals_are_compared_in_all_their_stages():
    """Their limits before the last stage are as if the others were not there, but for the bar."""
    late = [two_stages(end, 10, 5) for end in (0.25, 0.26, 0.27, 0.30)]
    alone, mixed = (
        learning_curve.prune_thresholds(late, (10, 5), "best"),
        learning_curve.prune_thresholds([*late, *EARLY], (10, 5), "best"),
    )
    assert np.isfinite(alone[5:14]).all()
    np.testing.assert_array_equal(mixed[:10], alone[:10])
    assert (mixed[10:] >= alone[10:]).all()
    assert np.isinf(learning_curve.prune_thresholds([*late[:3], *EARLY], (10, 5), "best")[:10]).all(), (
        "three equals are too few"
    )


def test_a_stopped_fold_is_projected_by_what_is_comparable():
    late = [two_stages(end, 10, 5) for end in (0.25, 0.27)]
    for known, others in ((8, late), (8, [*late, *EARLY]), (13, [*late, *EARLY])):
        whole = two_stages(0.26, 10, 5)
        assert learning_curve.projected_end(Curve(whole.scores[:known], (10, 5)), others) == pytest.approx(
            0.26, abs=0.02
        )
    first = Curve(two_stages(0.26, 10, 5).scores[:8], (10, 5))
    assert learning_curve.projected_end(first, EARLY) == first.end, (
        "others in their second stage say nothing of its fall"
    )


def test_an_estimate_is_exact_in_an_additive_model():
    trials, folds, units = np.array([0.25, 0.27, 0.31]), np.array([0.03, -0.01, 0.0, -0.02]), np.array([50, 10, 30, 20])
    others = trials[:, None] + folds
    for done in (1, 2, 3, 4):
        own = 0.40 + folds[:done]
        assert learning_curve.estimate(own, others) == pytest.approx(0.40 + folds.mean())
        assert learning_curve.estimate(own, others, units) == pytest.approx(0.40 + np.average(folds, weights=units))


def test_a_raw_early_score_is_biased_and_the_estimate_is_not():
    rng = np.random.default_rng(0)
    folds = np.array([0.03, -0.01, -0.01, -0.01, 0.0])
    scores = 0.26 + 0.01 * rng.normal(size=(500, 1)) + folds + 0.005 * rng.normal(size=(500, 5))
    truth = scores.mean(1)
    raw = scores[:, 0] - truth
    estimated = [learning_curve.estimate(own[:1], scores[rng.choice(500, 20)]) for own in scores] - truth
    error = np.std(estimated) / np.sqrt(500)
    assert abs(np.mean(estimated)) < 3 * error
    assert np.mean(raw) > 20 * error


def test_without_others_the_estimate_is_the_own_mean():
    assert learning_curve.estimate(np.array([0.3, 0.4]), np.empty((0, 5))) == pytest.approx(0.35)
    assert learning_curve.estimate(np.array([0.3, 0.4]), np.empty((0, 5)), np.array([3, 1, 1, 1, 1])) == pytest.approx(
        0.325
    )
