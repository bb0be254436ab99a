"""Progress of a search: what is trained, saved and still to come, and the time that this takes."""

import math

import pytest

from hms_ray.search.search_progress import SearchProgress, duration


class Clock:
    """Seconds that only the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def progress(
    clock: Clock, trials: int = 10, trial_folds: int = 2, finalist_folds: int = 6, **earlier
) -> SearchProgress:
    return SearchProgress(
        trials, trial_folds, finalist_folds, **({"ended": {}, "trained": 0.0, "saved": 0.0} | earlier), clock=clock
    )


def train(counted: SearchProgress, trial: str, folds: int) -> None:
    for fold in range(folds):
        counted.started(trial, fold, 4)
        counted.epoch(trial, fold, 4, 0.5, None)
        counted.fold_done(trial, fold)


def test_everything_is_to_come_before_anything_began(clock):
    counted = progress(clock)
    assert counted.to_come() == 10 * 2 + 6
    assert (counted.work(), counted.trained(), counted.left_s()) == (0, 0, None)


def test_epochs_count_as_parts_of_a_fold(clock):
    counted = progress(clock)
    counted.started("a", 0, 4)
    counted.epoch("a", 0, 1, math.nan, None)
    assert counted.work() == 0.25
    assert counted.to_come() == 25.75
    assert counted.left_s() is None, "no fold is finished"


def test_epochs_of_teachers_count_as_well(clock):
    counted = progress(clock)
    counted.taught("a", 0)  # the driver began after it
    counted.started("a", 0, 8)
    counted.taught("a", 0)
    counted.epoch("a", 0, 1, math.nan, None)
    counted.taught("a", 0)
    assert (counted.running["a", 0].done, counted.work()) == (3, 3 / 8)


def test_a_finished_fold_leaves_the_rest_of_its_trial(clock):
    counted = progress(clock)
    train(counted, "a", 1)
    assert (counted.trained(), counted.to_come(), counted.running) == (1, 25, {})
    counted.fold_done("a", 1)
    counted.ended("a", "COMPLETE")
    assert counted.to_come() == 9 * 2 + 6


def test_the_time_left_is_at_the_speed_so_far(clock):
    counted = progress(clock, trials=2, finalist_folds=0)
    counted.started("a", 0, 4)
    clock.now += 30
    counted.epoch("a", 0, 4, 0.5, None)
    counted.fold_done("a", 0)
    assert counted.left_s() == pytest.approx(3 * 30)
    counted.started("a", 1, 4)
    clock.now += 15
    counted.epoch("a", 1, 2, 0.5, None)
    assert counted.left_s() == pytest.approx(2.5 * 30)


def test_the_clock_begins_with_the_first_fold(clock):
    counted = progress(clock, trials=1, finalist_folds=0)
    clock.now += 500  # Ray starts
    counted.started("a", 0, 4)
    clock.now += 10
    counted.fold_done("a", 0)
    assert counted.left_s() == pytest.approx(10)


def test_what_racing_saves_on_average_shortens_what_is_to_come(clock):
    counted = progress(clock, trials=10, trial_folds=4, finalist_folds=0)
    for trial in ("a", "b"):
        train(counted, trial, 1)
        counted.fold_broken(trial, None)
        counted.ended(trial, "PRUNED")
    assert counted.to_come() == 8 * 1
    train(counted, "c", 4)
    counted.ended("c", "COMPLETE")
    assert counted.to_come() == 7 * (1 + 1 + 4) / 3


def test_a_fold_stopped_inside_counts_as_far_as_it_came(clock):
    counted = progress(clock, trials=2, trial_folds=1, finalist_folds=0)
    counted.started("a", 0, 10)
    counted.epoch("a", 0, 4, 0.9, None)
    counted.fold_broken("a", 0)
    counted.ended("a", "PRUNED")
    assert counted.running == {}
    assert counted.work() == pytest.approx(0.4)
    assert counted.to_come() == pytest.approx(0.4), "the other trial is expected to end like it"


def test_finalists_replace_the_forecast(clock):
    counted = progress(clock, trials=1, trial_folds=1, finalist_folds=6)
    train(counted, "a", 1)
    counted.ended("a", "COMPLETE")
    assert counted.to_come() == 6
    counted.finalists(4)
    assert counted.to_come() == 4
    counted.started("a", 1, 4)
    counted.epoch("a", 1, 2, 0.5, None)
    assert counted.to_come() == 3.5
    counted.fold_done("a", 1)
    assert counted.to_come() == 3


def test_earlier_runs_shorten_the_search_but_do_not_speed_it_up(clock):
    counted = progress(clock, ended={"COMPLETE": 3, "PRUNED": 4}, trained=10.0, saved=4.0, finalist_folds=0)
    assert (counted.to_come(), counted.trained(), counted.saved) == (3 * 2, 10, 4)
    counted.started("h", 0, 4)
    clock.now += 20
    counted.fold_done("h", 0)
    assert counted.left_s() == pytest.approx(5 * 20)


def test_a_lost_worker_s_fold_begins_again(clock):
    counted = progress(clock)
    counted.started("a", 0, 4)
    counted.epoch("a", 0, 3, 0.5, None)
    counted.started("a", 0, 4)
    assert counted.work() == 0
    assert len(counted.running) == 1


def test_a_fold_that_nobody_announced_is_in_flight_without_a_share(clock):
    counted = progress(clock)
    counted.epoch("a", 0, 3, 0.5, 2.0)
    assert (counted.running["a", 0].epoch, counted.work(), counted.memory_gb) == (3, 0, 2.0)


def test_the_memory_is_the_highest_peak(clock):
    counted = progress(clock)
    for peak in (1.5, 3.25, None, 2.0):
        counted.epoch("a", 0, 1, 0.5, peak)
    assert counted.memory_gb == 3.25


def test_more_trials_than_the_budget_leave_nothing_negative(clock):
    counted = progress(clock, trials=1, trial_folds=1, finalist_folds=0)
    for trial in ("a", "b"):
        train(counted, trial, 2)
        counted.ended(trial, "COMPLETE")
    assert counted.to_come() == 0
    counted.finalists(1)
    train(counted, "a", 3)
    assert counted.to_come() == 0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "?"),
        (0, "about 0 s"),
        (89, "about 89 s"),
        (90, "about 2 min"),
        (5399, "about 90 min"),
        (5400, "about 1.5 h"),
        (360000, "about 100.0 h"),
    ],
)
def test_durations_have_the_unit_that_suits_them(seconds, words):
    assert duration(seconds) == words
