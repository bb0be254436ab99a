"""A real search: real processes, a real Ray, really killed. Each run is the command line in a process of its own."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from hms_ray.oof import OofTable
from hms_ray.search.journal import trials_table
from hms_ray.study_folder import StudyFolder

FOLDS, TRIALS, FINALISTS = 3, 4, 2
BASE = {
    "data": {"name": "hms"},
    "feature": {"name": "kaggle_spectrogram", "pool": 4},
    "model": {"name": "basic_cnn", "width": 4, "depth": 2},
    "augment": {"mirror_sides": {}, "mixup": {}},
    "optim": {"batch": 8, "ema": 0.9},
    "stages": [{"epochs": 2, "lr": 1e-2}, {"epochs": 1, "lr": 1e-3, "min_votes": 10}],
    "folds": FOLDS,
}
SPACE = {
    "base": BASE,
    "search": {"stages.0.lr": {"log_uniform": [1e-3, 1e-1]}, "model.width": {"choice": [4, 6]}},
    "budget": {"trials": TRIALS, "trial_folds": 1, "finalists": FINALISTS},
    "race": {"min_gain": 0.0},
}


class Run:
    """`hms-ray VERB` in a folder, with the environment of a user."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder, self.data = folder, data
        self.started: list[subprocess.Popen] = []
        self.environment = os.environ | {"HMS_RAY_CACHE": str(folder / "cache"), "HMS_RAY_DATA": str(data)}

    def space(self, content: dict, name: str = "tiny") -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    def start(self, *arguments: object) -> subprocess.Popen:
        command = [sys.executable, "-c", "from hms_ray.cli import console; console()", *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.started.append(subprocess.Popen(command, cwd=self.folder, env=self.environment, **pipes))
        return self.started[-1]

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=240)
        return process.returncode, out, err


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, make_hms_folder: Callable[..., Path]) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("searches")
    run = Run(folder, make_hms_folder(folder / "data", patients=12))
    yield run
    for process in run.started:  # a test that failed half way may have left one
        process.kill()


@pytest.fixture(scope="module")
def undisturbed(run: Run) -> StudyFolder:
    """A search from its start to its report."""
    code, out, err = run("search", "--space", run.space(SPACE), "--study", "runs/undisturbed")
    assert code == 0, err
    assert out.splitlines()[-1] == "reports/undisturbed/index.html"
    return StudyFolder(run.folder / "runs/undisturbed")


def finished(study: StudyFolder) -> dict[Path, int]:
    """Return each finished fold's file and the time it was written."""
    return {path: path.stat().st_mtime_ns for path in study.root.glob("trials/*/folds/*/oof.parquet")}


def wait_for(study: StudyFolder, folds: int, process: subprocess.Popen) -> None:
    """Wait until so many folds are finished, or the process has ended."""
    until = time.monotonic() + 120
    while len(finished(study)) < folds and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)


def test_every_trial_is_recorded_with_its_true_state(undisturbed: StudyFolder) -> None:
    trials = trials_table(undisturbed)
    assert trials["trial"].tolist() == [f"tiny-{n:04d}" for n in range(TRIALS)]
    assert (trials["state"] == "COMPLETE").all() and np.isfinite(trials["value"]).all()
    assert trials["params"][0] == {"stages.0.lr": 0.01, "model.width": 4}, "the base run is the first trial"


def test_finalists_have_all_folds_and_weights_and_the_others_neither(undisturbed: StudyFolder) -> None:
    trials = trials_table(undisturbed)
    assert len(undisturbed.oof_ids()) == FINALISTS
    for trial in undisturbed.oof_ids():
        table = OofTable.read(undisturbed.oof(trial))
        assert sorted(set(table.folds)) == list(range(FOLDS))
        assert set(table.unit_ids) == set(pd.read_parquet(undisturbed.folds)["unit_id"])
        assert table.selected_on == (0,)
    others = set(trials["trial"]) - set(undisturbed.oof_ids())
    for trial in others:
        folders = [path for path in (undisturbed.root / "trials" / trial).rglob("*") if path.is_file()]
        assert sorted(path.name for path in folders) == ["config.yaml", "epochs.npy", "epochs.parquet", "oof.parquet"]
    assert len(list(undisturbed.root.rglob("weights/*.safetensors"))) == FINALISTS * FOLDS, "of the chosen epoch alone"
    assert not list(undisturbed.root.rglob("state")), "what workers kept is gone"


def test_a_trials_value_is_its_score_on_its_fold(undisturbed: StudyFolder) -> None:
    for row in trials_table(undisturbed).itertuples():
        table = OofTable.read(undisturbed.trial(row.trial).fold(0).oof)
        scored = table.votes >= 10
        assert row.value == pytest.approx(table.task.score(table.targets[scored], table.probs[scored]), rel=1e-12)


def test_curves_hold_each_epoch_of_each_fold_once(undisturbed: StudyFolder) -> None:
    for trial in undisturbed.oof_ids():
        curve = pd.read_parquet(undisturbed.trial(trial).epochs)
        assert curve[["fold", "epoch"]].values.tolist() == [[f, e] for f in range(FOLDS) for e in (1, 2, 3)]
        assert curve["stage"].tolist() == [0, 0, 1] * FOLDS


def test_no_checkpoint_of_a_finished_fold_is_left(undisturbed: StudyFolder) -> None:
    assert not list(undisturbed.root.glob("trials/*/folds/*/checkpoint.pt"))


def test_the_ensemble_is_certified_and_no_worse_in_sample_than_its_parts(undisturbed: StudyFolder) -> None:
    fitted = json.loads(undisturbed.ensemble.read_text())
    assert fitted["duality_gap"] < 1e-9
    assert fitted["kl_in_sample"] <= min(fitted["baselines"]["best_single"], fitted["baselines"]["mean"]) + 1e-9
    assert fitted["population"] == {"units": 12, "groups": 12, "min_votes": 10}


def test_a_finished_search_run_again_trains_nothing(run: Run, undisturbed: StudyFolder) -> None:
    before = finished(undisturbed)
    code, _, err = run("search", "--space", run.space(SPACE), "--study", "runs/undisturbed")
    assert code == 0, err
    assert finished(undisturbed) == before


def test_prediction_needs_the_study_only(run: Run, undisturbed: StudyFolder) -> None:
    code, _, err = run("predict", "--study", undisturbed.root, "--data", run.data, "--out", "submission.csv")
    assert code == 0, err
    rows, sample = (pd.read_csv(path) for path in (run.folder / "submission.csv", run.data / "sample_submission.csv"))
    assert rows.columns.tolist() == sample.columns.tolist() and rows["eeg_id"].tolist() == sample["eeg_id"].tolist()
    assert np.allclose(rows.iloc[:, 1:].sum(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize("stopped_at", [2, TRIALS + 1], ids=["among the trials", "among the finalists"])
def test_killed_and_run_again_it_ends_as_if_undisturbed(run: Run, undisturbed: StudyFolder, stopped_at: int) -> None:
    """Kill -9 at some moment; the same command then ends with the same trials and repeats no finished fold."""
    study = StudyFolder(run.folder / f"runs/killed-{stopped_at}")
    command = ("search", "--space", run.space(SPACE), "--study", study.root)
    process = run.start(*command)
    wait_for(study, stopped_at, process)
    process.kill()
    assert process.wait(30) == -signal.SIGKILL, "it was to be killed in the middle of its work"
    process.communicate()
    before = finished(study)
    assert stopped_at <= len(before) < TRIALS + FINALISTS * (FOLDS - 1)
    code, _, err = run(*command)
    assert code == 0, err
    assert {path: time for path, time in finished(study).items() if path in before} == before
    ours, theirs = trials_table(study), trials_table(undisturbed)
    assert ours[["trial", "state", "params"]].equals(theirs[["trial", "state", "params"]])
    assert np.allclose(ours["value"], theirs["value"], rtol=1e-5)
    assert study.oof_ids() == undisturbed.oof_ids()
    for trial in study.oof_ids():
        mine, other = OofTable.read(study.oof(trial)), OofTable.read(undisturbed.oof(trial))
        assert np.allclose(mine.probs, other.probs, atol=1e-5)


def test_lost_workers_are_replaced(run: Run, undisturbed: StudyFolder) -> None:
    """Kill -9 of a trial's worker, then of a rank of the worker group: the search ends as if nothing had happened."""
    study = StudyFolder(run.folder / "runs/lost")
    process = run.start("search", "--space", run.space(SPACE), "--study", study.root)
    kill_one("ray::ImplicitFunc", run, process)
    wait_for(study, TRIALS + 1, process)
    kill_one("ray::RayTrainWorker", run, process)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    ours, theirs = trials_table(study), trials_table(undisturbed)
    assert ours[["trial", "state", "params"]].equals(theirs[["trial", "state", "params"]])
    for trial in undisturbed.oof_ids():
        mine, other = OofTable.read(study.oof(trial)), OofTable.read(undisturbed.oof(trial))
        assert np.allclose(mine.probs, other.probs, atol=1e-5)


def kill_one(title: str, run: Run, process: subprocess.Popen) -> None:
    """Wait for a Ray worker of that title which belongs to the run, and kill it."""
    until = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < until:
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # gone meanwhile, or not ours to read
                ours = str(run.folder).encode() in (path / "environ").read_bytes()
                if ours and (path / "cmdline").read_bytes().startswith(title.encode()):
                    return os.kill(int(path.name), signal.SIGKILL)
        time.sleep(0.02)
    pytest.fail(f"no worker {title} was found")


def test_interrupted_it_says_so_and_leaves_no_process(run: Run, undisturbed: StudyFolder) -> None:
    study = StudyFolder(run.folder / "runs/interrupted")
    process = run.start("search", "--space", run.space(SPACE), "--study", study.root)
    wait_for(study, TRIALS + 1, process)  # while a Ray Train group is at work, which would take the signal for itself
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted; everything finished is kept, the same command goes on"
    assert not [line for line in command_lines() if "runs/interrupted" in line]


def command_lines() -> list[str]:
    """Return the command lines of all processes there are."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return lines


def test_a_failing_configuration_is_recorded_and_the_search_goes_on(run: Run) -> None:
    no_sides = {"name": "global_stats", "pool": 4}  # each choice is possible, together they are not
    search = {
        "feature": {"choice": [BASE["feature"], no_sides]},
        "augment.mirror_sides.p": {"choice": [0.0, 0.3, 0.5, 0.7]},
    }
    base = BASE | {"folds": 2, "augment": {"mirror_sides": {"p": 0.0}}}
    space = {"base": base, "search": search, "budget": {"trials": 6, "finalists": 1}}
    code, _, err = run("search", "--space", run.space(space, "broken"), "--study", "runs/broken")
    assert code == 0, err
    trials = trials_table(StudyFolder(run.folder / "runs/broken"))
    failed = trials[trials["state"] == "FAIL"]
    assert 0 < len(failed) < len(trials)
    assert failed["cause"].str.contains("augment.mirror_sides needs a feature whose panels have sides").all()
    assert trials["state"].isin(["COMPLETE", "PRUNED"]).sum() == len(trials) - len(failed)


def test_two_workers_a_fold_train_the_base_run(run: Run) -> None:
    """The worker group with DDP inside each fold, by `train`: all folds, one table, and better than the prior."""
    longer = BASE | {"stages": [{"epochs": 12, "lr": 1e-2}]}
    arguments = ("--set", "resources.workers_per_fold=2", "--set", "resources.cpus=0.5")
    code, _, err = run("train", "--space", run.space({"base": longer}, "ddp"), "--study", "runs/ddp", *arguments)
    assert code == 0, err
    study = StudyFolder(run.folder / "runs/ddp")
    table = OofTable.read(study.oof("ddp-base"))
    assert len(table.unit_ids) == len(pd.read_parquet(study.folds))
    prior = table.task.score(table.targets, np.tile(table.targets.mean(0), (len(table.targets), 1)))
    assert table.task.score(table.targets, table.probs) < prior
