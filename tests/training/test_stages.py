"""Stages: which rows, weights and targets, with known answers."""

import numpy as np
import pytest
from pydantic import ValidationError

from hms_ray.core.errors import TrialFailed
from hms_ray.tasks import multilabel
from hms_ray.tasks import votes as votes_task
from hms_ray.training.stages import (
    OF_THE_FIRST,
    WEIGHTS,
    EarlyStopping,
    LowVotes,
    Pseudo,
    Stage,
    order_faults,
    schedule_group,
)

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
    assert stage(**limits).select_units(VOTES, np.array([0, 2, 3, 4])).tolist() == expected


def test_a_stage_without_rows_says_which_votes_there_are():
    with pytest.raises(TrialFailed, match=r"min_votes 11, max_votes 19 leaves no unit to train on; .* are 1 to 20"):
        stage(min_votes=11, max_votes=19).select_units(VOTES, np.arange(6))
    with pytest.raises(TrialFailed, match="their votes are none"):
        stage().select_units(VOTES, np.array([], int))


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
    smoothed = stage(smooth=0.02).targets(votes_task.Task(("a", "b")), targets, votes)
    np.testing.assert_allclose(smoothed, [[2.02 / 2.04, 0.02 / 2.04], [1.02 / 4.04, 3.02 / 4.04]], rtol=1e-12)


def test_without_smoothing_targets_are_untouched():
    targets = np.array([[1.0, 0.0]])
    assert stage().targets(votes_task.Task(("a", "b")), targets, np.array([3])) is targets


def test_smoothing_adds_votes_to_each_answer_of_a_question():
    """A label that holds stays likelier than one that does not, and labels of a unit do not share what they have."""
    targets = np.array([[1.0, 1.0, 0.0], [0.0, 0.5, 0.0]])
    smoothed = stage(smooth=0.5).targets(multilabel.Task(("a", "b", "c")), targets, np.array([1, 4]))
    np.testing.assert_allclose(smoothed, [[0.75, 0.75, 0.25], [0.1, 0.5, 0.1]], rtol=1e-12)


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
        {"max_votes": 4, "min_votes": 5},
        {"evaluations": 0},
        {"evaluations": 21},
        {"lr": None},
        {"low_votes": {"below": 1}},
        {"low_votes": {"start": 1.1}},
        {"low_votes": {"end": -0.1}},
        {"pseudo": {"parts": 1}},
        {"pseudo": {"share": 0.0}},
        {"pseudo": {"share": 1.1}},
        {"smooth": -0.1},
        {"class_weight": "equal"},
        {"focal": -0.1},
        {"focal": 10.1},
        {"early_stopping": {"share": 0.0}},
        {"early_stopping": {"share": 0.5}},
        {"early_stopping": {"patience": 0}},
        {"early_stopping": {"factor": 1.0}},
        {"early_stopping": {"factor": 0.0}},
        {"early_stopping": {"stop": 0}},
        {"early_stopping": {"every": 2}},
        {"schedule": "step"},
        {"momentum": 0.9},
    ],
)
def test_impossible_stages_are_refused(change):
    with pytest.raises(ValidationError):
        stage(**change)


LOW = LowVotes(below=10, start=0.5, end=0.1)


@pytest.mark.parametrize(
    ("epochs", "expected"), [(3, [0.5, 0.3, 0.1]), (2, [0.5, 0.1]), (1, [0.5]), (5, [0.5, 0.4, 0.3, 0.2, 0.1])]
)
def test_units_with_few_votes_count_less_from_epoch_to_epoch(epochs, expected):
    """Below ten votes by the factor, at ten and more as before: also under a weight of its own."""
    for name in WEIGHTS:
        plain, low = stage(epochs=epochs, weight=name), stage(epochs=epochs, weight=name, low_votes=LOW)
        before = plain.weights(VOTES, np.arange(6))
        for epoch, factor in enumerate(expected):
            ratios = low.weights(VOTES, np.arange(6), epoch) / before
            np.testing.assert_allclose(ratios / ratios[-1], [factor, factor, factor, 1, 1, 1], rtol=1e-12)


@pytest.mark.parametrize("name", sorted(WEIGHTS))
def test_weights_have_mean_one_in_every_epoch_of_a_curriculum(name):
    low, rows = stage(epochs=4, weight=name, low_votes=LOW), np.array([0, 2, 3])
    for epoch in range(4):
        assert low.weights(VOTES, rows, epoch)[rows].mean() == pytest.approx(1, abs=1e-12)


def test_units_that_count_for_nothing_are_possible():
    low = stage(epochs=2, low_votes=LowVotes(below=10, start=0, end=0))
    assert low.weights(VOTES, np.arange(6)).tolist() == [0, 0, 0, 2, 2, 2]
    with pytest.raises(TrialFailed, match="low_votes gives every unit of epoch 1 of its stage a loss weight of 0"):
        low.weights(VOTES, np.arange(3))


def test_limits_may_meet():
    assert stage(min_votes=10, max_votes=10).select_units(VOTES, np.arange(6)).tolist() == [3]


def test_limits_that_leave_nothing_say_so():
    with pytest.raises(ValidationError, match="max_votes 4 is below min_votes 5: no unit is left"):
        stage(min_votes=5, max_votes=4)


def test_a_stage_without_a_rate_continues_another():
    with pytest.raises(ValidationError, match="lr is missing; only a stage that `continues` another has none"):
        Stage(epochs=1)
    assert Stage(epochs=1, continues=True).lr is None


@pytest.mark.parametrize("own", [{"lr": 0.1}, {"schedule": "cosine"}, {"warmup": 0.5}])
def test_a_stage_that_continues_another_has_no_schedule_of_its_own(own):
    assert set(own) < set(OF_THE_FIRST)
    with pytest.raises(ValidationError, match="has its lr, schedule, warmup; leave out its own"):
        Stage(epochs=1, continues=True, **own)


@pytest.mark.parametrize(
    "fields",
    [
        {"lr": 0.1},
        {"continues": True},
        {"lr": 0.1, "schedule": "cosine", "warmup": 0.0, "evaluations": 3, "max_votes": 9, "augment": {}},
        {"continues": True, "low_votes": LowVotes(), "pseudo": Pseudo(parts=3), "augment": {"mixup": {"p": 0.1}}},
        {"lr": 0.1, "schedule": "plateau", "early_stopping": EarlyStopping(share=0.2, stop=None)},
        {"lr": 0.1, "class_weight": "balanced", "focal": 2.0, "early_stopping": EarlyStopping(factor=0.1)},
    ],
)
def test_a_stage_survives_the_trip_through_plain_values(fields):
    first = Stage(epochs=2, **fields)
    assert Stage.model_validate(first.model_dump()) == first


def test_augmentations_of_a_stage_without_anything_below_take_their_defaults():
    assert stage(augment={"mixup": None}).augment == {"mixup": {}}
    assert stage(augment={}).augment == {}
    assert stage().augment is None, "the run's"


def stages(continues):
    return [Stage(epochs=1, continues=True) if c else stage() for c in continues]


@pytest.mark.parametrize(
    ("continues", "expected"),
    [
        ([False], [(0, 1)]),
        ([False, False], [(0, 1), (1, 2)]),
        ([False, True], [(0, 2), (0, 2)]),
        ([False, True, True, False, True], [(0, 3), (0, 3), (0, 3), (3, 5), (3, 5)]),
        ([False, False, True, False], [(0, 1), (1, 3), (1, 3), (3, 4)]),
    ],
)
def test_a_chain_is_a_stage_and_those_that_continue_it(continues, expected):
    found = [schedule_group(stages(continues), number) for number in range(len(continues))]
    assert found == [range(*limits) for limits in expected]


def test_what_the_first_stage_cannot_be_is_said():
    assert order_faults(stages([False, True])) == []
    assert order_faults([stage(), stage(pseudo=Pseudo())]) == []
    assert order_faults([Stage(epochs=1, continues=True, pseudo=Pseudo())]) == [
        "stages.0.continues: the first stage has none before it",
        "stages.0.pseudo: the first stage has none before it",
    ]


def test_by_default_nothing_is_watched_weighed_or_focused():
    assert (stage().early_stopping, stage().class_weight, stage().focal) == (None, "none", 0.0)


def test_a_watch_that_means_nothing_is_refused():
    with pytest.raises(
        ValidationError, match="schedule plateau lowers the rate by a watched score; give the stage `early_stopping`"
    ):
        stage(schedule="plateau")
    with pytest.raises(ValidationError, match="a stage that continues another cannot have early_stopping"):
        Stage(epochs=1, continues=True, early_stopping=EarlyStopping())
    with pytest.raises(
        ValidationError,
        match=r"early_stopping.stop is null and the schedule is no plateau: early_stopping has no effect",
    ):
        stage(early_stopping=EarlyStopping(stop=None))
    with pytest.raises(
        ValidationError,
        match=r"early_stopping.stop 3 is not above early_stopping.patience 3: the stage would end before",
    ):
        stage(schedule="plateau", early_stopping=EarlyStopping(stop=3))
    assert stage(early_stopping=EarlyStopping(stop=3)).early_stopping.stop == 3, (
        "without a plateau nothing waits for patience"
    )


def test_a_watched_stage_is_not_continued():
    watched, after = stage(early_stopping=EarlyStopping()), Stage(epochs=1, continues=True)
    assert order_faults([watched, stage(), after]) == []
    assert order_faults([stage(), watched, after, after]) == [
        "stages.2.continues: the stage before has early_stopping, and may end before the schedule"
    ]


def test_evaluations_count_as_rows_of_the_curve():
    assert (stage(epochs=3).rounds, stage(epochs=3, evaluations=2).rounds) == (3, 6)
