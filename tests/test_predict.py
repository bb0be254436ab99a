"""Prediction of new data: the mean over folds, pooled by weight, without Ray, and clear refusals."""

import logging
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from hms_ray import files
from hms_ray.cli import main
from hms_ray.config import load_yaml, parse_run
from hms_ray.crossval import build_model, train_job
from hms_ray.ensemble import fit_study
from hms_ray.errors import ConfigError
from hms_ray.execution.mailbox import FoldDone
from hms_ray.features import _store
from hms_ray.predict import predict
from hms_ray.search.board import Board
from hms_ray.search.ledger import Ledger
from hms_ray.search.space import parse
from hms_ray.search.study import open_study
from hms_ray.study_folder import StudyFolder
from hms_ray.training import checkpoint
from hms_ray.training.team import Replica

BASE = {
    "data": {"name": "hms"},
    "feature": {"name": "kaggle_spectrogram", "pool": 4},
    "model": {"name": "basic_cnn", "width": 4, "depth": 2},
    "optim": {"batch": 8},
    "stages": [{"epochs": 1, "lr": 0.01}],
    "folds": 2,
}
VOTES = [f"{name}_vote" for name in ("seizure", "lpd", "gpd", "lrda", "grda", "other")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, hms_folder):
    """A study of two base runs, one of them on another feature, trained in this process, with its ensemble."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HMS_RAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        torch.set_num_threads(1)
        folder = StudyFolder(tmp_path_factory.mktemp("runs") / "study")
        channels = {"feature": BASE["feature"] | {"arrange": "channels"}}
        spaces = [parse(name, {"base": BASE | change}) for name, change in (("one", {}), ("two", channels))]
        study = open_study(folder, spaces, hms_folder)
        study.begin(spaces)
        for space in spaces:
            trial, ledger = f"{space.name}-base", Ledger(study, (), Board("test", trials=0, trial_folds=0))
            files.write_yaml(folder.trial(trial).config, space.run.content)
            for fold in range(2):
                job = study.job(trial, space.run, fold)
                ledger.handle(FoldDone(trial, train_job(job, study.labels, Replica(torch.device("cpu")), print)))
            ledger.write_oof(trial)
        result = fit_study(folder)
        result["members"] = [
            {"trial": "one-base", "space": "one", "weight": 0.25},
            {"trial": "two-base", "space": "two", "weight": 0.75},
        ]
        files.write_json(folder.ensemble, result)
        yield folder


@pytest.fixture
def folder(trained, tmp_path, monkeypatch):
    """A copy of the study that a test may spoil."""
    monkeypatch.setenv("HMS_RAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(logging.root, "handlers", [])  # the command line sets its own
    return StudyFolder(shutil.copytree(trained.root, tmp_path / "copy"))


def test_rows_are_the_pooled_mean_over_the_folds_of_each_member(folder, hms_folder, tmp_path):
    assert predict(folder, hms_folder, tmp_path / "submission.csv") == 1
    table = pd.read_csv(tmp_path / "submission.csv")
    assert list(table) == ["eeg_id", *VOTES]
    assert table["eeg_id"].tolist() == [3911565283]
    expected = np.zeros(6)
    for member in files.read_json(folder.ensemble)["members"]:
        run = parse_run(load_yaml(folder.trial(member["trial"]).config))
        dataset = run.data.module.load_test(hms_folder)
        x = torch.from_numpy(
            np.load(_store.store_path(dataset, run.feature.name, run.feature.params) / "x.npy")
        ).float()
        for k in range(2):
            model = build_model(run, dataset.task).eval()
            model.load_state_dict(checkpoint.unpack(folder.trial(member["trial"]).fold(k).weights))
            with torch.inference_mode():
                expected += member["weight"] / 2 * dataset.task.to_probs(model(x).numpy())[0]
    np.testing.assert_allclose(table[VOTES].to_numpy()[0], expected, atol=1e-6)
    assert table[VOTES].to_numpy().sum() == pytest.approx(1, abs=1e-9)


def test_weights_need_not_sum_to_one_and_folders_are_made(folder, hms_folder, tmp_path):
    predict(folder, hms_folder, tmp_path / "a.csv")
    ensemble = files.read_json(folder.ensemble)
    for member in ensemble["members"]:
        member["weight"] *= 3
    files.write_json(folder.ensemble, ensemble)
    predict(folder, hms_folder, tmp_path / "new" / "folder" / "b.csv")
    one, two = (pd.read_csv(tmp_path / name) for name in ("a.csv", "new/folder/b.csv"))
    np.testing.assert_allclose(one[VOTES], two[VOTES], atol=1e-12)


BLOCKED = "import runpy, sys; sys.modules['ray'] = None; runpy.run_module('hms_ray.predict', run_name='__main__')"


def test_prediction_needs_no_ray(folder, hms_folder, tmp_path):
    out = tmp_path / "submission.csv"
    command = [sys.executable, "-c", BLOCKED, "--study", folder.root, "--data", hms_folder, "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, f"{out}: 1 rows\n"), done.stderr
    assert len(pd.read_csv(out)) == 1


def without_ensemble(folder):
    folder.ensemble.unlink()


def foreign(folder):
    shutil.rmtree(folder.root / "trials")


def lost_weights(folder):
    folder.trial("two-base").fold(1).weights.unlink()


def cut_weights(folder):
    path = folder.trial("one-base").fold(0).weights
    path.write_bytes(path.read_bytes()[:-9])


def empty_config(folder):
    folder.trial("one-base").config.write_text("")


def no_study(folder):
    folder.study.unlink()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (without_ensemble, "has no ensemble; run `hms-ray ensemble --study "),
        (foreign, "one-base (one) has no model here; predictions from elsewhere cannot be repeated"),
        (lost_weights, "cannot predict new data: "),
        (cut_weights, "model.safetensors: broken weights"),
        (empty_config, "run: it must be a mapping"),
        (no_study, "is no study: it has no study.json"),
    ],
)
def test_a_study_that_cannot_predict_says_why_and_writes_nothing(
    folder, hms_folder, tmp_path, capsys, damage, sentence
):
    damage(folder)
    out = tmp_path / "submission.csv"
    assert main(["predict", "--study", str(folder.root), "--data", str(hms_folder), "--out", str(out)]) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert "Traceback" not in err
    assert not out.exists()


def test_missing_weights_are_told_before_any_recording_is_read(folder, hms_folder, tmp_path, monkeypatch):
    lost_weights(folder)
    monkeypatch.setattr(_store, "prepare", lambda *_: pytest.fail("recordings were read"))
    with pytest.raises(ConfigError, match=r"two-base/folds/1/model.safetensors is missing"):
        predict(folder, hms_folder, tmp_path / "a.csv")


def damaged_copy(root, tmp_path, damage):
    copied = shutil.copytree(root, tmp_path / "data")
    damage(copied)
    return copied


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda root: (root / "test.csv").unlink(), "no test.csv there"),
        (lambda root: (root / "test.csv").write_text("eeg_id,patient_id\n1,2\n"), "missing column spectrogram_id"),
        (lambda root: shutil.rmtree(root / "test_spectrograms"), "test_spectrograms: no such folder"),
        (lambda root: (root / "test_spectrograms" / "853520.parquet").write_text("a,b"), "not a parquet file"),
    ],
)
def test_broken_test_data_is_refused(folder, hms_folder, tmp_path, capsys, damage, sentence):
    data, out = damaged_copy(hms_folder, tmp_path, damage), tmp_path / "submission.csv"
    assert main(["predict", "--study", str(folder.root), "--data", str(data), "--out", str(out)]) == 2
    assert sentence in capsys.readouterr().err
    assert not out.exists()


def test_a_folder_is_no_output_file(folder, hms_folder, tmp_path, capsys):
    assert main(["predict", "--study", str(folder.root), "--data", str(hms_folder), "--out", str(tmp_path)]) == 2
    assert "is a folder; name a file" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_one_sentence(folder, hms_folder, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    out = tmp_path / "file" / "submission.csv"
    assert main(["predict", "--study", str(folder.root), "--data", str(hms_folder), "--out", str(out)]) == 2
    assert f"error: {tmp_path / 'file'}: " in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"
