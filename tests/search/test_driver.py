"""A real search: real processes, a real Ray, really killed."""

import contextlib
import io
import json
import signal
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_ray.cli import main
from hms_ray.study.folder import StudyFolder
from hms_ray.study.oof import OofTable
from hms_ray.study.trials_table import trials_table

FOLDS, TRIALS, FINALISTS = 3, 4, 3
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


@pytest.fixture(scope="module")
def run(make_run):
    """Searches of one folder, two trials at a time."""
    return make_run(2)


@pytest.fixture(scope="module")
def undisturbed(run, program_here) -> StudyFolder:
    """A search from its start to its report, in one process: what a search on Ray is compared with."""
    command = ("search", "--space", run.space(SPACE), "--study", "runs/undisturbed", "--here")
    code, out, err = run(*command, program=program_here)
    assert code == 0, err
    assert out.splitlines()[-1] == "reports/undisturbed/index.html"
    return StudyFolder(run.folder / "runs/undisturbed")


def call(run, *arguments: object) -> str:
    """Run the command line in this process to its good end; return what it printed to stderr."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()) as err:
        patch.chdir(run.folder)
        for name, value in run.environment.items():
            patch.setenv(name, value)
        assert main([str(argument) for argument in arguments]) == 0, err.getvalue()
    return err.getvalue()


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
        assert table.selected_on == (0, 1), "trials were chosen on the first fold, those of the last round on both"
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
    assert not list(undisturbed.root.glob("trials/*/folds/*/state"))


def test_convex_pools_are_certified_and_the_ensemble_is_no_worse_than_the_mean(undisturbed: StudyFolder) -> None:
    fitted = json.loads(undisturbed.ensemble.read_text())
    [linear] = [method for method in fitted["methods"] if method["method"] == "linear"]
    assert linear["gap"] < 1e-9
    assert linear["score_in_sample"] <= min(fitted["baselines"]["best_single"], fitted["baselines"]["mean"]) + 1e-9
    assert fitted["score_in_sample"] <= fitted["baselines"]["mean"] + 1e-9
    assert fitted["population"] == {"units": 12, "groups": 12, "min_votes": 10}


def test_a_finished_search_run_again_trains_nothing(run, undisturbed: StudyFolder) -> None:
    before = run.finished(undisturbed)
    call(run, "search", "--space", run.space(SPACE), "--study", undisturbed.root, "--here")
    assert run.finished(undisturbed) == before


def test_prediction_needs_the_study_only(run, undisturbed: StudyFolder) -> None:
    """And no Ray."""
    program = "import sys; sys.modules['ray'] = None; from hms_ray.cli import console; console()"
    arguments = ("predict", "--study", undisturbed.root, "--data", run.data, "--out", "submission.csv")
    code, _, err = run(*arguments, program=program)
    assert code == 0, err
    rows, sample = (pd.read_csv(path) for path in (run.folder / "submission.csv", run.data / "sample_submission.csv"))
    assert rows.columns.tolist() == sample.columns.tolist() and rows["eeg_id"].tolist() == sample["eeg_id"].tolist()
    assert np.allclose(rows.iloc[:, 1:].sum(axis=1), 1, atol=1e-12)


def test_killed_interrupted_and_run_again_it_ends_as_if_undisturbed(
    run, undisturbed: StudyFolder, program_here
) -> None:
    """A search in one process is killed; on Ray, a trial's worker is, and Ctrl-C comes among the finalists, which a Ray
    Train group would take for itself; in one process again it ends. The same command goes on each time, repeats no
    finished fold, and ends as if nothing had happened."""
    study = StudyFolder(run.folder / "runs/disturbed")
    command, before = ("search", "--space", run.space(SPACE), "--study", study.root), {}
    here = {"program": program_here}
    for enough, blow, how in ((1, signal.SIGKILL, here), (TRIALS + 1, signal.SIGINT, {})):
        process = run.start(*command, *(["--here"] if how else []), **how)
        if not how:
            kill_a_trials_worker(run, process)
        run.wait_for(lambda enough=enough: len(run.finished(study)) >= enough, process)
        process.send_signal(blow)
        _, err = process.communicate(timeout=60)
        assert process.returncode == (130 if blow == signal.SIGINT else -blow), "it was in the middle of its work"
        assert before.items() <= run.finished(study).items(), "a finished fold was trained again"
        before = run.finished(study)
        assert enough <= len(before) < TRIALS + FINALISTS * (FOLDS - 1)
    assert err.splitlines()[-1] == "interrupted; everything finished is kept, the same command goes on"
    assert not [line for line in command_lines() if "runs/disturbed" in line]
    code, _, err = run(*command, "--here", **here)
    assert code == 0, err
    assert before.items() <= run.finished(study).items(), "a finished fold was trained again"
    run.assert_same(study, undisturbed)
    assert not [path for path in study.root.rglob("*") if path.name in ("state", "checkpoint.pt")]


def kill_a_trials_worker(run, process: subprocess.Popen) -> None:
    """Wait for an actor of Tune that belongs to the run, and kill it."""

    def found() -> list[int]:
        return [pid for pid, name in run.family(process.pid).items() if name.startswith("ray::ImplicitFunc")]

    pids = run.wait_for(found, process)
    assert pids, "no trial was begun"
    run.kill(pids[0])


def command_lines() -> list[str]:
    """Return the command lines of all processes there are."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return lines


def test_an_invalid_combination_is_replaced_and_costs_no_trial(run) -> None:
    no_chains = {"name": "global_stats", "pool": 4}  # each choice is possible, together they are not
    search = {
        "feature": {"choice": [BASE["feature"], no_chains]},
        "augment.drop_channels.p": {"choice": [0.0, 0.3, 0.5, 0.7]},
    }
    base = BASE | {"folds": 2, "augment": {"drop_channels": {"p": 0.0}}}
    space = {"base": base, "search": search, "budget": {"trials": 6, "finalists": 1}}
    err = call(run, "search", "--space", run.space(space, "broken"), "--study", run.folder / "runs/broken", "--here")
    sentence = "an invalid configuration was replaced, as others like it will be: augment.drop_channels needs waves or"
    assert err.count(sentence) == 1
    trials = trials_table(StudyFolder(run.folder / "runs/broken"))
    assert len(trials) == 6 and trials["state"].isin(["COMPLETE", "PRUNED"]).all()
