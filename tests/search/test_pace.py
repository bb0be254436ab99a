"""Inside a fold: limits that stop the hopeless alone, and estimates without the bias of an early score."""

import numpy as np
import pytest

from hms_ray.search import pace


def falling(end, epochs, height=0.4):
    """A curve that is linear in the share of its schedule."""
    return end + height * (1 - np.arange(1, epochs + 1) / epochs)


FOUR = [falling(end, 10) for end in (0.25, 0.26, 0.27, 0.30)]


def test_limits_by_hand():
    """Bar of the ensemble: .30 + (.30 - .265); of the best: .25; at a share s every curve still falls by .4 (1 - s)."""
    shares = np.arange(1, 11) / 10
    lenient, strict = pace.limits(FOUR, 10, "ensemble"), pace.limits(FOUR, 10, "best")
    judged = slice(3, 9)
    np.testing.assert_allclose(lenient[judged], 0.335 + 0.4 * (1 - shares[judged]))
    np.testing.assert_allclose(strict[judged], 0.25 + 0.4 * (1 - shares[judged]))
    for limit in (lenient, strict):
        assert np.isinf(limit[[0, 1, 2, 9]]).all()


def test_the_one_that_falls_most_sets_the_limit():
    steep = [*FOUR, falling(0.27, 10, height=1.0)]
    assert pace.limits(steep, 10, "best")[4] == pytest.approx(0.25 + 0.5)


@pytest.mark.parametrize("epochs", [1, 2, 5, 7, 20])
def test_curves_are_compared_at_the_same_share_of_the_schedule(epochs):
    mixed = [falling(end, n) for end, n in ((0.25, 10), (0.26, 20), (0.27, 40), (0.30, 5))]
    limit = pace.limits(mixed, epochs, "ensemble")
    shares = np.arange(1, epochs + 1) / epochs
    judged = (shares >= 0.4) & (shares < 1)
    np.testing.assert_allclose(limit[judged], 0.335 + 0.4 * (1 - shares[judged]))
    assert np.isinf(limit[~judged]).all()


def test_too_few_curves_stop_nobody():
    broken = [*FOUR[:3], np.full(10, np.nan), np.array([])]
    assert np.isinf(pace.limits(broken, 10, "best")).all()
    assert np.isinf(pace.limits([], 3, "ensemble")).all()


def test_scores_that_are_not_finite_are_skipped():
    holes = [curve.copy() for curve in FOUR]
    for curve, epoch in zip(holes, (0, 3, 5, 6), strict=True):
        curve[epoch] = np.nan
    holes[0][4] = np.inf
    np.testing.assert_allclose(pace.limits(holes, 10, "best"), pace.limits(FOUR, 10, "best"))


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
        kept, own = list(real_like(rng, 8)), real_like(rng, 1)[0]
        hopeless = real_like(rng, 1, worse=0.11)[0]
        lenient, strict = pace.limits(kept, 10, "ensemble"), pace.limits(kept, 10, "best")
        stopped["like"].append((own > lenient).any())
        stopped["hopeless"].append((hopeless > lenient)[:6].any())
        stopped["better" if own[-1] < min(k[-1] for k in kept) else "worse"].append((own > strict).any())
    assert np.mean(stopped["like"]) < 0.05
    assert np.mean(stopped["hopeless"]) > 0.9
    assert len(stopped["better"]) > 40
    assert np.mean(stopped["better"]) < 0.15
    assert np.mean(stopped["worse"]) > 0.8


def test_a_stopped_fold_is_projected_to_its_end():
    assert pace.projected_end(falling(0.28, 10)[:4], FOUR, 10) == pytest.approx(0.28)
    assert pace.projected_end(falling(0.28, 40)[:15], FOUR, 40) == pytest.approx(0.28)
    assert pace.projected_end(np.array([0.5, 0.4, np.nan]), [], 10) == 0.4
    assert np.isnan(pace.projected_end(np.array([np.nan, np.inf]), FOUR, 10))


def test_the_projection_is_unbiased_where_the_early_score_is_not():
    rng = np.random.default_rng(1)
    early, projected = [], []
    for _ in range(400):
        *kept, own = real_like(rng, 9)
        early.append(own[4] - own[-1])
        projected.append(pace.projected_end(own[:5], kept, 10) - own[-1])
    error = np.std(projected) / np.sqrt(len(projected))
    assert abs(np.mean(projected)) < 3 * error
    assert np.mean(early) > 10 * error


def test_an_estimate_is_exact_in_an_additive_model():
    trials, folds, units = np.array([0.25, 0.27, 0.31]), np.array([0.03, -0.01, 0.0, -0.02]), np.array([50, 10, 30, 20])
    others = trials[:, None] + folds
    for done in (1, 2, 3, 4):
        own = 0.40 + folds[:done]
        assert pace.estimate(own, others) == pytest.approx(0.40 + folds.mean())
        assert pace.estimate(own, others, units) == pytest.approx(0.40 + np.average(folds, weights=units))


def test_a_raw_early_score_is_biased_and_the_estimate_is_not():
    rng = np.random.default_rng(0)
    folds = np.array([0.03, -0.01, -0.01, -0.01, 0.0])
    scores = 0.26 + 0.01 * rng.normal(size=(500, 1)) + folds + 0.005 * rng.normal(size=(500, 5))
    truth = scores.mean(1)
    raw = scores[:, 0] - truth
    estimated = [pace.estimate(own[:1], scores[rng.choice(500, 20)]) for own in scores] - truth
    error = np.std(estimated) / np.sqrt(500)
    assert abs(np.mean(estimated)) < 3 * error
    assert np.mean(raw) > 20 * error


def test_without_others_the_estimate_is_the_own_mean():
    assert pace.estimate(np.array([0.3, 0.4]), np.empty((0, 5))) == pytest.approx(0.35)
    assert pace.estimate(np.array([0.3, 0.4]), np.empty((0, 5)), np.array([3, 1, 1, 1, 1])) == pytest.approx(0.325)
