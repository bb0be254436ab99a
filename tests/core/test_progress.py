"""Progress logs the first step, the last, and little between."""

import logging

import pytest

from hms_ray.core.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that Progress sees, in seconds."""
    now = [100.0]
    monkeypatch.setattr("hms_ray.core.progress.time.monotonic", lambda: now[0])
    return now


def test_one_line_every_five_seconds_with_an_estimate(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    progress = Progress("prepare", every_s=5)
    for done in range(1, 11):
        clock[0] += 2
        progress(done, 10)
    assert caplog.messages == [
        "prepare: 1 of 10, about 18 s left",
        "prepare: 4 of 10, about 12 s left",
        "prepare: 7 of 10, about 6 s left",
        "prepare: 10 of 10 in 20.0 s",
    ]


def test_nothing_done_and_nothing_to_do_divide_by_nothing(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    Progress("a")(0, 5)
    Progress("b")(0, 0)
    assert caplog.messages == ["a: 0 of 5", "b: 0 of 0 in 0.0 s"]


def test_steps_of_an_earlier_run_do_not_quicken_the_estimate(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    progress = Progress("prepare", every_s=5)
    clock[0] += 10
    progress(81, 100)
    assert caplog.messages == ["prepare: 81 of 100, about 190 s left"]
