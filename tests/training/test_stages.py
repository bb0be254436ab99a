"""Stages: which rows, weights and targets, with known answers."""

import numpy as np
import pytest
from pydantic import ValidationError

from hms_ray.errors import TrialFailed
from hms_ray.training.stages import WEIGHTS, Stage

VOTES = np.array([1, 3, 5, 10, 20, 20])


def stage(**changes):
    return Stage(**({"epochs": 1, "lr": 0.1} | changes))


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, [0, 2, 3, 4]),
        ({"min_votes": 5}, [2, 3, 4]),
        ({"max_votes": 5}, [0, 2]),
        ({"min_votes": 5, "max_votes": 10}, [2, 3]),
    ],
)
def test_rows_keep_to_both_limits_and_to_the_training_units(limits, expected):
    assert stage(**limits).rows(VOTES, np.array([0, 2, 3, 4])).tolist() == expected


def test_a_stage_without_rows_says_which_votes_there_are():
    with pytest.raises(TrialFailed, match=r"min_votes 11, max_votes 19 leaves no unit to train on; .* are 1 to 20"):
        stage(min_votes=11, max_votes=19).rows(VOTES, np.arange(6))
    with pytest.raises(TrialFailed, match="their votes are none"):
        stage().rows(VOTES, np.array([], int))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("none", [1, 1, 1, 1, 1, 1]),
        ("linear", [0.05, 0.15, 0.25, 0.5, 1, 1]),
        ("log", [0.693147, 1.386294, 1.791759, 2.397895, 3.044522, 3.044522]),
        ("capped", [1, 3, 5, 10, 10, 10]),
    ],
)
def test_weights_follow_the_votes(name, expected):
    np.testing.assert_allclose(WEIGHTS[name](VOTES.astype(float)), expected, rtol=1e-6)


@pytest.mark.parametrize("name", sorted(WEIGHTS))
def test_weights_have_mean_one_over_the_rows_of_the_stage(name):
    rows = np.array([0, 1, 3])
    weights = stage(weight=name).weights(VOTES, rows)
    assert weights[rows].mean() == pytest.approx(1, abs=1e-12)
    assert weights[4] / weights[1] == pytest.approx(
        WEIGHTS[name](np.array([20.0]))[0] / WEIGHTS[name](np.array([3.0]))[0]
    )


def test_smoothing_adds_votes_to_each_class():
    targets, votes = np.array([[1.0, 0.0], [0.25, 0.75]]), np.array([2, 4])
    smoothed = stage(smooth=0.02).targets(targets, votes)
    np.testing.assert_allclose(smoothed, [[2.02 / 2.04, 0.02 / 2.04], [1.02 / 4.04, 3.02 / 4.04]], rtol=1e-12)


def test_without_smoothing_targets_are_untouched():
    targets = np.array([[1.0, 0.0]])
    assert stage().targets(targets, np.array([3])) is targets


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"epochs": True},
        {"epochs": "3"},
        {"epochs": 2.0},
        {"lr": 0.0},
        {"lr": float("inf")},
        {"lr": float("nan")},
        {"warmup": 1.0},
        {"weight": "square"},
        {"min_votes": 0},
        {"max_votes": 0},
        {"smooth": -0.1},
        {"schedule": "step"},
        {"momentum": 0.9},
    ],
)
def test_impossible_stages_are_refused(change):
    with pytest.raises(ValidationError):
        stage(**change)
