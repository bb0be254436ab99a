"""Racing: verdicts are calibrated where the truth is known."""

import numpy as np
import pytest
from scipy.stats import t as student

from hms_ray.ensemble import bootstrap
from hms_ray.ensemble.pools import linear
from hms_ray.search.pruning import ensemble_gain
from tests.unlike_members import pooled_loss, simulate

ASK = {"look": 1, "looks": 2, "stop_rate": 0.2}


def true_gain(noise):
    """What the last of the members brings, measured on many patients."""
    targets, _, probs = simulate(np.random.default_rng(0), 15_000, noise)
    return pooled_loss(targets, probs[:, :-1]) - pooled_loss(targets, probs)


def stopped_share(noise, repetitions, looks, stop_rate, min_gain, patients_a_fold=50):
    """How often the last member is stopped at any of its looks."""
    stopped = 0
    for repetition in range(repetitions):
        rng = np.random.default_rng([1, repetition])
        targets, groups, probs = simulate(rng, patients_a_fold * (looks - 1), noise)
        for look in range(1, looks):
            rows = groups < patients_a_fold * look
            decide = ensemble_gain.judge_ensemble(
                targets[rows], groups[rows], probs[rows, -1], probs[rows, :-1],
                look=look, looks=looks, stop_rate=stop_rate, min_gain=min_gain,
            )  # fmt: skip
            if decide.stop:
                stopped += 1
                break
    return stopped / repetitions


@pytest.mark.parametrize(("looks", "stop_rate"), [(2, 0.1), (2, 0.4), (4, 0.2)])
def test_a_candidate_that_just_brings_enough_is_stopped_as_often_as_promised(looks, stop_rate):
    noise, repetitions = [1, 1, 1, 1.4], 200
    share = stopped_share(noise, repetitions, looks, stop_rate, true_gain(noise))
    chance = 3 * np.sqrt(stop_rate * (1 - stop_rate) / repetitions)
    assert 0.2 * stop_rate < share < stop_rate + chance


def test_a_hopeless_candidate_is_stopped_and_a_helpful_one_is_not():
    """Hopeless: the predictions of other units, which know the classes' shares at most."""
    bar, hopeless, helpful = true_gain([1, 1, 1, 1.4]), [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        targets, groups, probs = simulate(rng, 150, [1, 1, 1, 0.3])
        for verdicts, candidate in ((hopeless, rng.permutation(probs[:, 0])), (helpful, probs[:, 3])):
            decide = ensemble_gain.judge_ensemble(targets, groups, candidate, probs[:, :3], **ASK, min_gain=bar)
            verdicts.append(decide.stop)
    assert np.mean(hopeless) > 0.95
    assert not any(helpful)


@pytest.fixture(scope="module")
def scene():
    return simulate(np.random.default_rng(3), 80, [1, 1.2, 1.1, 1.6])


def test_the_bound_lies_safely_above_the_quantile_of_refits_to_resampled_patients(scene):
    targets, groups, probs = scene
    rng, gains = np.random.default_rng(5), []
    for _ in range(200):
        weight = np.bincount(rng.integers(0, 80, 80), minlength=80)[groups].astype(float)
        losses = [
            -(weight @ (targets * np.log(linear.fit(p, targets, weight).predict(p))).sum(-1)) / weight.sum()
            for p in (probs[:, :-1], probs)
        ]
        gains.append(losses[0] - losses[1])
    decide = ensemble_gain.judge_ensemble(targets, groups, probs[:, -1], probs[:, :-1], **ASK, min_gain=0.001)
    assert 1 < decide.upper / np.quantile(gains, 0.8) < 1.3


def test_with_one_kept_and_nothing_asked_the_slope_and_its_error_decide():
    stops = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        _, groups, probs = simulate(rng, 30, [1, 1])
        targets = rng.multinomial(12, probs[:, 0]) / 12  # the kept one is the truth: no other can help it
        slope = (targets * probs[:, 1] / probs[:, 0]).sum(-1) - 1
        sizes = np.bincount(groups)
        error = np.sqrt((np.bincount(groups, slope - slope.mean()) ** 2).sum() * 30 / 29) / len(slope)
        quantile = student.isf(0.2, sizes.sum() ** 2 / (sizes**2).sum() - 1)
        decide = ensemble_gain.judge_ensemble(targets, groups, probs[:, 1], probs[:, :1], **ASK, min_gain=0)
        assert decide.stop == (slope.mean() + quantile * error < 0)
        stops.append(decide.stop)
    assert 0 < sum(stops) < 20


def test_the_gain_is_what_two_fits_say(scene):
    targets, groups, probs = scene
    expected = pooled_loss(targets, probs[:, :-1]) - pooled_loss(targets, probs)
    assert expected > 1e-4
    assert ensemble_gain.gain(targets, probs[:, -1], probs[:, :-1]) == pytest.approx(expected, abs=1e-8)
    decide = ensemble_gain.judge_ensemble(targets, groups, probs[:, -1], probs[:, :-1], **ASK, min_gain=0.001)
    assert decide.gain == pytest.approx(expected, abs=1e-8)
    assert decide.gain < decide.upper


def test_without_others_the_gain_is_over_the_best_constant(scene):
    targets, _, probs = scene
    prior = np.tile(targets.mean(0), (len(targets), 1))
    brought = ensemble_gain.gain(targets, probs[:, 0], probs[:, :0])
    assert brought == pytest.approx(ensemble_gain.gain(targets, probs[:, 0], prior[:, None]))
    assert brought >= (ensemble_gain.row_kl(targets, prior) - ensemble_gain.row_kl(targets, probs[:, 0])).mean() > 0
    assert ensemble_gain.gain(targets, prior, probs[:, :0]) == pytest.approx(0, abs=1e-8)


def test_a_copy_of_a_kept_member_is_stopped_and_the_reason_has_the_numbers(scene):
    targets, groups, probs = scene
    decide = ensemble_gain.judge_ensemble(targets, groups, probs[:, 0], probs[:, :3], **ASK, min_gain=1e-6)
    assert decide.stop
    assert decide.gain == pytest.approx(0, abs=1e-8)
    assert decide.reason.startswith("to the pool of 3 kept it brings at most 0.00000 (gain ")
    assert decide.reason.endswith(f"{len(targets)} units of 80 patients); 1e-06 is asked for")


def test_nobody_is_stopped_where_there_is_nothing_to_judge_by(scene):
    targets, groups, probs = scene
    alone = ensemble_gain.judge_ensemble(targets, groups, probs[:, 0], probs[:, :0], **ASK, min_gain=1)
    assert not alone.stop
    assert "nothing is kept yet" in alone.reason
    one_patient = np.zeros_like(groups)
    for decide in (
        ensemble_gain.judge_ensemble(targets, one_patient, probs[:, 0], probs[:, :3], **ASK, min_gain=1),
        ensemble_gain.judge_best(targets, one_patient, probs[:, 3], probs[:, 0], **ASK),
    ):
        assert not decide.stop
        assert "too few patients" in decide.reason


def test_the_last_look_has_nothing_to_decide(scene):
    targets, groups, probs = scene
    with pytest.raises(AssertionError, match="look 2 of 2"):
        ensemble_gain.judge_best(targets, groups, probs[:, 0], probs[:, 1], look=2, looks=2, stop_rate=0.1)


def test_a_stricter_rate_bounds_higher(scene):
    targets, groups, probs = scene

    def upper(looks, stop_rate):
        given = targets, groups, probs[:, -1], probs[:, :-1]
        return ensemble_gain.judge_ensemble(*given, look=1, looks=looks, stop_rate=stop_rate, min_gain=0).upper

    assert upper(2, 0.4) < upper(2, 0.1) < upper(2, 0.01)
    assert upper(4, 0.3) == pytest.approx(upper(2, 0.1))


def test_as_good_a_candidate_is_stopped_as_often_as_promised_and_a_worse_one_nearly_always():
    def share(noise, repetitions=500):
        verdicts = []
        for repetition in range(repetitions):
            targets, groups, probs = simulate(np.random.default_rng([2, repetition]), 60, [1, noise])
            verdicts.append(ensemble_gain.judge_best(targets, groups, probs[:, 1], probs[:, 0], **ASK).stop)
        return np.mean(verdicts)

    assert share(1) == pytest.approx(0.2, abs=3 * np.sqrt(0.2 * 0.8 / 500))
    assert share(1.6, 100) > 0.95
    assert share(0.6, 100) == 0


def test_the_error_counts_patients_not_their_copies():
    rng = np.random.default_rng(0)
    values, groups = rng.normal(size=50), np.arange(50)
    error = bootstrap.standard_error(values, groups)
    assert error == pytest.approx(values.std(ddof=1) / np.sqrt(50))
    assert bootstrap.standard_error(np.repeat(values, 7), np.repeat(groups, 7)) == pytest.approx(error)


def several_questions(rng, n_patients=120, labels=3, noise=(1, 1, 0.4)):
    """Patients of two units, of which three yes-or-no questions are asked: outcomes (N, 3, 2), members (N, M, 3, 2)."""
    groups = np.repeat(np.arange(n_patients), 2)
    logits = rng.normal(0, 1.5, (len(groups), labels))
    held = rng.random(logits.shape) < 1 / (1 + np.exp(-logits))
    errors = rng.normal(0, 1, (len(groups), len(noise), labels)) * np.asarray(noise)[:, None]
    probs = 1 / (1 + np.exp(-(logits[:, None] + errors)))
    return np.stack([held, ~held], -1).astype(float), groups, np.stack([probs, 1 - probs], -1)


def test_of_several_questions_a_unit_has_the_mean():
    targets, _, probs = several_questions(np.random.default_rng(0))
    by_question = [ensemble_gain.row_kl(targets[:, q], probs[:, 0, q]) for q in range(3)]
    np.testing.assert_allclose(ensemble_gain.row_kl(targets, probs[:, 0]), np.mean(by_question, 0), rtol=1e-12)


def test_questions_asked_of_a_unit_race_as_classes_do():
    targets, groups, probs = several_questions(np.random.default_rng(0))
    helpful = ensemble_gain.judge_ensemble(targets, groups, probs[:, 2], probs[:, :2], **ASK, min_gain=1e-3)
    before, after = (
        ensemble_gain.row_kl(targets, linear.fit(p, targets).predict(p)).mean() for p in (probs[:, :2], probs)
    )
    assert not helpful.stop and helpful.gain == pytest.approx(before - after, abs=1e-9)
    rng = np.random.default_rng(1)
    hopeless = ensemble_gain.judge_ensemble(targets, groups, rng.permutation(probs[:, 0]), probs, **ASK, min_gain=1e-3)
    assert hopeless.stop
    assert ensemble_gain.judge_best(targets, groups, probs[:, 0], probs[:, 2], **ASK).stop
    assert ensemble_gain.gain(targets, probs[:, 2], probs[:, :0]) > 0
