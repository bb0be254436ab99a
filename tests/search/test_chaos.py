"""A search that is killed at random moments, again and again: in the end it is as if nothing had happened.

HMS_RAY_CHAOS: how many such searches; each draws its kills from a seed of its own, and prints them. Where it is set,
the other long tests run too: lost nodes, a full disk, every number of trials that share GPUs.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from hms_ray.study.folder import StudyFolder

FIRST = 12  # the seed of a node's loss among the trials, and of a worker's among the finalists
ROUNDS = int(os.environ.get("HMS_RAY_CHAOS") or 0)
KILLS = 3  # at most
WORKERS = ("ray::ImplicitFunc", "ray::RayTrainWorker")
NODE = "raylet/raylet"

Moment = tuple[int, float, str]


@pytest.mark.parametrize("seed", range(FIRST, FIRST + ROUNDS))
def test_whatever_is_killed_it_ends_as_if_undisturbed(run, undisturbed: StudyFolder, seed: int) -> None:
    study, command = run.raced(f"chaos-{seed}")
    moments = _moments(np.random.default_rng(seed), len(run.finished(undisturbed)))
    before, code = {}, None
    while code != 0:
        process = run.start(*command, **run.impatient)
        killed = _disturb(run, study, process, moments)
        _, err = process.communicate(timeout=180)
        code, after = process.returncode, run.finished(study)
        print(f"seed {seed}: {', '.join(killed) or 'undisturbed'}; exit code {code}, {len(after)} folds")
        assert (code == 0) == all(what == "worker" for what in killed), err
        assert before.items() <= after.items(), "a finished fold was trained again"
        before = after
    run.assert_same(study, undisturbed)


def _moments(rng: np.random.Generator, total: int) -> Iterator[Moment]:
    """Yield when to kill what: after so many of all folds are finished, and some seconds more."""
    for folds in sorted(rng.integers(0, total, rng.integers(1, KILLS, endpoint=True))):
        yield int(folds), rng.uniform(0, 1), str(rng.choice(["driver", "worker", "node"]))


def _disturb(run, study: StudyFolder, process: subprocess.Popen, moments: Iterator[Moment]) -> list[str]:
    """Kill until the driver cannot go on, or no moments are left; return what was killed."""
    killed = []
    for folds, seconds, what in moments:
        run.wait_for(lambda least=folds: len(run.finished(study)) >= least, process)
        time.sleep(seconds)
        if what == "driver":
            victims = [process.pid]
        else:
            victims = run.wait_for(lambda what=what: _find(run, process.pid, what), process)
        if process.poll() is not None:
            break
        run.kill(*victims)
        killed.append(what)
        if what != "worker":
            break
    return killed


def _find(run: Callable, driver: int, what: str) -> list[int]:
    """Return the processes to kill: one that trains, or a node's raylet with all that it started."""
    family = run.family(driver)
    if what == "worker":
        return [pid for pid, title in family.items() if title.startswith(WORKERS)][:1]
    nodes = [pid for pid, title in family.items() if title.endswith(NODE)]
    return [*nodes, *(pid for node in nodes for pid in run.family(node))]
