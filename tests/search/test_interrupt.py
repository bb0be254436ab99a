"""Ctrl-C once, Ctrl-C twice, and a full disk: nothing finished is lost, and the same command goes on."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hms_ray.study.folder import StudyFolder
from hms_ray.study.trials_table import trials_table

pytestmark = pytest.mark.skipif(not os.environ.get("HMS_RAY_CHAOS"), reason="minutes long; HMS_RAY_CHAOS=1 runs it")
SAID = "interrupted; everything finished is kept, the same command goes on"
SEVERAL_MB = 8


def in_flight(study: StudyFolder, fold: str = "*") -> set[Path]:
    """Return the folders of the folds that have a checkpoint: they are begun, and not finished."""
    return {path.parents[1] for path in study.root.glob(f"trials/*/folds/{fold}/state/checkpoint.pt")}


def states(study: StudyFolder) -> set[str]:
    return set(trials_table(study)["state"])


def test_interrupted_once_it_finishes_what_is_in_flight_and_twice_it_stops(run, undisturbed) -> None:
    """A terminal sends Ctrl-C to the whole process group: at first among the trials, then to the worker group."""
    study, command = run.raced("interrupted")
    process = run.start(*command)
    begun = run.wait_for(lambda: len(run.finished(study)) > 2 and in_flight(study, "0"), process)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err.splitlines()[-1]) == (130, SAID)
    assert begun and all((fold / "oof.parquet").is_file() for fold in begun), "folds in flight were finished"
    assert not in_flight(study)
    assert "RUNNING" in states(study) <= {"RUNNING", "COMPLETE", "PRUNED"}, "trials wait to be taken up again"

    before = run.finished(study)
    process = run.start(*command)
    run.wait_for(lambda: in_flight(study, "3"), process)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err.splitlines()[-1]) == (130, SAID)
    assert before.items() <= run.finished(study).items()

    before = run.finished(study)
    code, _, err = run(*command)
    assert code == 0, err
    assert before.items() <= run.finished(study).items(), "a finished fold was trained again"
    run.assert_same(study, undisturbed)


@pytest.fixture
def small_disk(run) -> Iterator[Path]:
    """A disk of some megabytes."""
    folder = run.folder / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SEVERAL_MB}m", "none", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_is_said_and_blamed_on_no_trial(run, undisturbed, small_disk) -> None:
    _, command = run.raced("full")
    study = StudyFolder(small_disk / "study")
    command = (*command[:-1], study.root)
    process = run.start(*command)
    run.wait_for(lambda: len(run.finished(study)) > 2, process)
    ballast = small_disk / "ballast"
    with open(ballast, "wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert "No space left on device" in err.splitlines()[-1]
    assert "make room" in err.splitlines()[-1].lower() and "Traceback" not in err
    before = run.finished(study)
    assert "RUNNING" in states(study) <= {"RUNNING", "COMPLETE", "PRUNED"}
    ballast.unlink()
    code, _, err = run(*command)
    assert code == 0, err
    assert before.items() <= run.finished(study).items(), "a finished fold was trained again"
    run.assert_same(study, undisturbed)
