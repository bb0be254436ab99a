"""A tiny study: 6 patients, small images, a network of a few hundred weights, and folds trained in this process.

Also whole searches, for tests of what only real processes show: each is the command line in a process of its own.
"""

import contextlib
import copy
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from hms_ray.execution.events import EpochDone, EpochWeights, FoldDone
from hms_ray.search.open_study import OpenStudy, open_study
from hms_ray.search.recorder import Recorder
from hms_ray.search.space.space import parse
from hms_ray.study.folder import StudyFolder
from hms_ray.study.oof import OofTable
from hms_ray.study.trials_table import trials_table
from hms_ray.training.distributed import Replica
from hms_ray.training.run_job import predict_job, train_job

BASE = {
    "data": {"name": "hms"},
    "feature": {"name": "kaggle_spectrogram", "pool": 4},
    "model": {"name": "basic_cnn", "width": 4, "depth": 2},
    "optim": {"batch": 8},
    "stages": [{"epochs": 1, "lr": 0.01}, {"epochs": 1, "lr": 0.01, "min_votes": 10}],
    "epoch_candidates": {"share": 1.0},
    "folds": 3,
}
# A search that stops some of its trials, and whose ensemble needs several.
RACED = {
    "base": BASE
    | {
        "model": {"name": "basic_cnn", "width": 8, "depth": 2},
        "augment": {"mirror_sides": {}, "mixup": {}},
        "optim": {"batch": 8, "ema": 0.5},
        "stages": [{"epochs": 18, "lr": 1e-2}, {"epochs": 7, "lr": 3e-3, "min_votes": 5}],
        "score": {"min_votes": 2},
        "folds": 4,
        "seed": 5,
    },
    "search": {
        "stages.0.lr": {"log_uniform": [1e-3, 1]},
        "model.width": {"choice": [4, 8]},
        "augment.mixup.p": {"uniform": [0, 1]},
    },
    "budget": {"trials": 9, "trial_folds": 2, "finalists": 3},
    "race": {"rule": "ensemble", "stop_rate": 0.3, "min_gain": 0.003},
}
CONSOLE = "from hms_ray.cli import console; console()"
# In one process, one fold after the other, but with what is known of earlier trials on a Ray of so many CPUs.
HERE = """
import json, os
from hms_ray.cli import console
from hms_ray.execution.executor import LocalExecutor
from hms_ray.search import driver

at_once = json.loads(os.environ["RAY_OVERRIDE_RESOURCES"])["CPU"]
driver.LocalExecutor.of = lambda wanted, labels, fold_s: LocalExecutor(labels, wanted.cpus, fold_s, at_once)
console()
"""


def make_space(name="toy", search=None, **base):
    """A space whose base is BASE with other sections."""
    return parse(name, {"base": copy.deepcopy(BASE) | base, "search": search or {}})


def ignore(event: Any) -> None:
    """Nobody looks."""


def train(study, space, fold, store=None, trial=None, publish=ignore):
    """Train one fold in this process; what it sends goes to the trial store."""
    trial = trial or f"{space.name}-base"
    handle = Recorder(store, publish).handle if store else ignore
    job = study.job(trial, space.run, fold)
    result = train_job(job, study.labels, Replica(torch.device("cpu")), lambda row: handle(EpochDone(trial, row)))
    for epoch, path in result.weights.items():
        handle(EpochWeights(trial, fold, epoch, path.read_bytes()))
    handle(FoldDone(trial, result))
    return result


def predict(study, space, store, trial=None):
    """Predict in this process what the trial's chosen epochs still lack, and return their numbers by fold."""
    trial = trial or f"{space.name}-base"
    missing = store.unpredicted(trial)
    for fold, epoch in missing.items():
        job = study.prediction_job(trial, space.run, fold, epoch)
        store.add_predictions(trial, fold, epoch, predict_job(job, study.labels, torch.device("cpu")))
    return missing


def begin(folder: StudyFolder, spaces: list, root: Path) -> OpenStudy:
    """Open a study and write it, as the driver does once the cluster can do the work."""
    study = open_study(folder, spaces, root)
    study.begin(spaces)
    return study


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """Prepared features are shared by the tests of one session, and kept away from the user's own."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(cache, monkeypatch):
    monkeypatch.setenv("HMS_RAY_CACHE", str(cache))
    torch.set_num_threads(1)


@pytest.fixture
def toy(tmp_path, hms_folder) -> SimpleNamespace:
    """A study that is open, its space, and functions to open others and to train."""
    space, folder = make_space(), StudyFolder(tmp_path / "study")
    study = begin(folder, [space], hms_folder)
    return SimpleNamespace(
        study=study,
        space=space,
        folder=folder,
        root=hms_folder,
        make_space=make_space,
        open=begin,
        train=train,
        predict=predict,
    )


class Run:
    """`hms-ray VERB` in a folder, with the environment of a user; and what disturbs it.

    cpus: what Ray takes the machine to have: so many trials at a time
    impatient: settings with which Ray takes note of a node's death within some seconds
    """

    impatient: ClassVar = {
        "RAY_health_check_initial_delay_ms": "0",
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_timeout_ms": "2000",
        "RAY_health_check_failure_threshold": "2",
    }

    def __init__(self, folder: Path, data: Path, cpus: int) -> None:
        self.folder, self.data = folder, data
        self.started: list[subprocess.Popen] = []
        self.environment = os.environ | {
            "HMS_RAY_CACHE": str(data.with_name("cache")),
            "HMS_RAY_DATA": str(data),
            "RAY_ADDRESS": "local",  # even where this machine has a cluster
            "RAY_OVERRIDE_RESOURCES": json.dumps({"CPU": cpus}),  # whatever the machine has
        }

    def space(self, content: dict, name: str = "tiny") -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    def start(self, *arguments: object, program: str = CONSOLE, **environment: str) -> subprocess.Popen:
        """Start the command line as the leader of a process group, as a terminal does."""
        command = [sys.executable, "-c", program, *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "process_group": 0}
        process = subprocess.Popen(command, cwd=self.folder, env=self.environment | environment, **pipes)
        self.started.append(process)
        return process

    def __call__(self, *arguments: object, program: str = CONSOLE, **environment: str) -> tuple[int, str, str]:
        """Run the command line to its end; return its exit code and what it printed to stdout and stderr."""
        process = self.start(*arguments, program=program, **environment)
        out, err = process.communicate(timeout=240)
        return process.returncode, out, err

    def raced(self, name: str) -> tuple[StudyFolder, tuple[object, ...]]:
        """Return a study of its own, and the command that searches RACED there."""
        study = StudyFolder(self.folder / "runs" / name)
        return study, ("search", "--space", self.space(RACED), "--study", study.root)

    @staticmethod
    def wait_for(true: Callable[[], Any], process: subprocess.Popen, timeout_s: float = 120) -> Any:
        """Wait until something is true, and return it, or until the process has ended."""
        until = time.monotonic() + timeout_s
        while not (value := true()) and process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        return value

    @staticmethod
    def finished(study: StudyFolder) -> dict[Path, int]:
        """Return each finished fold's file and the time it was written."""
        return {path: path.stat().st_mtime_ns for path in study.root.glob("trials/*/folds/*/oof.parquet")}

    @staticmethod
    def family(pid: int) -> dict[int, str]:
        """Return the living descendants of a process and their titles, parents first; {} for one that is gone."""
        found = {}
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                for child in map(int, (task / "children").read_text().split()):
                    found[child] = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[0].decode()
                    found |= Run.family(child)
        return found

    @staticmethod
    def kill(*pids: int) -> None:
        """Kill processes as the kernel does when memory is short; one that is gone already is no matter."""
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def lose(self, study: StudyFolder, node: int) -> dict[Path, int]:
        """Kill a node with all its processes; return the folds that were finished before, as `finished` does."""
        before = self.finished(study)
        self.kill(node, *self.family(node))
        return before

    def assert_unharmed(
        self, study: StudyFolder, process: subprocess.Popen, before: dict[Path, int], undisturbed: StudyFolder
    ) -> None:
        """A search that lost a node ends well: it keeps the folds of `before`, and finds what `undisturbed` did."""
        _, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
        assert before.items() <= self.finished(study).items(), "a finished fold was trained again"
        self.assert_same(study, undisturbed)

    @staticmethod
    def assert_same(study: StudyFolder, other: StudyFolder) -> None:
        """Both searches have the same trials and finalists, whole tables, the same predictions, the same ensemble."""
        ours, theirs = trials_table(study), trials_table(other)
        columns = ["trial", "state", "params", "fidelity"]
        pd.testing.assert_frame_equal(ours[columns], theirs[columns])
        np.testing.assert_allclose(ours[["value", "estimate"]], theirs[["value", "estimate"]], rtol=1e-5)
        assert study.oof_ids() == other.oof_ids()
        for trial in study.oof_ids():
            mine, its = OofTable.read(study.oof(trial)), OofTable.read(other.oof(trial))
            assert sorted(mine.unit_ids) == sorted(pd.read_parquet(study.folds)["unit_id"])
            np.testing.assert_allclose(mine.probs, its.probs, atol=1e-5)
        ours, theirs = (pd.DataFrame(json.loads(s.ensemble.read_text())["members"]) for s in (study, other))
        pd.testing.assert_frame_equal(ours, theirs, rtol=1e-5)


MakeRun = Callable[[int], Run]


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory, make_hms_folder: Callable[..., Path]) -> Iterator[MakeRun]:
    """Return a function that makes a folder for searches; all are of the same simulated recordings of 12 patients."""
    data, runs = make_hms_folder(tmp_path_factory.mktemp("recordings") / "data", patients=12), []

    def make(cpus: int) -> Run:
        runs.append(Run(tmp_path_factory.mktemp("searches"), data, cpus))
        return runs[-1]

    yield make
    for process in [process for run in runs for process in run.started]:  # a test that failed half way may leave one
        process.kill()


@pytest.fixture(scope="session")
def program_here() -> str:
    """The command line as a program for `run`, whose searches --here propose as those on Ray do."""
    return HERE


@pytest.fixture(scope="session")
def run(make_run: MakeRun) -> Run:
    """Searches of one folder, three trials at a time."""
    return make_run(3)


@pytest.fixture(scope="session")
def undisturbed(run: Run) -> StudyFolder:
    """A search that nothing disturbed, in one process and without Ray: what all others are compared with."""
    study, command = run.raced("undisturbed")
    code, _, err = run(*command, "--here", program=HERE)
    assert code == 0, err
    trials, ensemble = trials_table(study), json.loads(study.ensemble.read_text())
    assert set(trials["state"]) == {"COMPLETE", "PRUNED"}, "some trials are to be stopped"
    assert len(ensemble["members"]) >= 2 and len(study.oof_ids()) >= 2, "several finalists, and no single best one"
    return study
