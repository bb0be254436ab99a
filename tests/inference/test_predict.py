"""Prediction of new data: the mean over folds, pooled as the ensemble was fitted, without Ray, and clear refusals."""

import json
import logging
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from hms_ray import tasks
from hms_ray.cli import main
from hms_ray.core import files
from hms_ray.core.errors import ConfigError
from hms_ray.core.plain_yaml import load_yaml
from hms_ray.ensemble import fit_study
from hms_ray.ensemble.pools import _base, average, linear, log_linear
from hms_ray.execution.events import EpochWeights, FoldDone
from hms_ray.inference.predict import predict
from hms_ray.search.open_study import open_study
from hms_ray.search.recorder import Recorder
from hms_ray.search.space.space import parse
from hms_ray.study.folder import StudyFolder
from hms_ray.study.oof import OofTable
from hms_ray.training import checkpoint, inputs
from hms_ray.training.build import build_model
from hms_ray.training.distributed import Replica
from hms_ray.training.inputs import prepare_inputs
from hms_ray.training.run_config import parse_run
from hms_ray.training.run_job import train_job

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
            trial, recorder = f"{space.name}-base", Recorder(study.trial_store(), lambda event: None)
            files.write_yaml(folder.trial(trial).config, space.run.content)
            for fold in range(2):
                job = study.job(trial, space.run, fold)
                result = train_job(job, study.labels, Replica(torch.device("cpu")), print)
                for epoch, path in result.weights.items():
                    recorder.handle(EpochWeights(trial, fold, epoch, path.read_bytes()))
                recorder.handle(FoldDone(trial, result))
            recorder.finish(trial)
        result = fit_study(folder, pool="linear").model_dump(mode="json")
        unknown = dict.fromkeys(("without", "gain", "most_alike", "error_correlation"))
        weights = {"one": 0.25, "two": 0.75}
        members = [{"trial": f"{name}-base", "space": name, "weight": weights[name]} | unknown for name in weights]
        fitted = {"kind": "linear", "weights": [0.25, 0.75], "gap": 0.0}
        files.write_json(folder.ensemble, result | {"members": members, "fitted": fitted})
        yield folder


@pytest.fixture
def folder(trained, tmp_path, monkeypatch):
    """A copy of the study that a test may spoil."""
    monkeypatch.setenv("HMS_RAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(logging.root, "handlers", [])  # the command line sets its own
    return StudyFolder(shutil.copytree(trained.root, tmp_path / "copy"))


def chosen_weights(folder, trial, k):
    """The one epoch's weights that a whole trial keeps."""
    (path,) = (folder.trial(trial).fold(k).root / "weights").iterdir()
    return path


def member_probs(folder, trial, root):
    """One member's prediction (N, K) of the test part, the mean over its two folds."""
    run = parse_run(load_yaml(folder.trial(trial).config))
    dataset = run.data.module.load_test(root)
    (store,) = prepare_inputs(dataset, run)
    x = torch.from_numpy(np.load(store.path / "x.npy")).float()
    found = []
    for k in range(2):
        model = build_model(run, dataset.task).eval()
        model.load_state_dict(checkpoint.unpack(chosen_weights(folder, trial, k)))
        with torch.inference_mode():
            found.append(dataset.task.to_probs(model(x).numpy()))
    return np.mean(found, axis=0)


def test_rows_are_the_pooled_mean_over_the_folds_of_each_member(folder, hms_folder, tmp_path):
    assert predict(folder, hms_folder, tmp_path / "submission.csv") == 1
    table = pd.read_csv(tmp_path / "submission.csv")
    assert list(table) == ["eeg_id", *VOTES]
    assert table["eeg_id"].tolist() == [3911565283]
    one, two = (member_probs(folder, trial, hms_folder) for trial in ("one-base", "two-base"))
    np.testing.assert_allclose(table[VOTES], 0.25 * one + 0.75 * two, atol=1e-6)
    assert table[VOTES].to_numpy().sum() == pytest.approx(1, abs=1e-9)


POOLS = {
    "uniform": linear.Pool(np.array([0.5, 0.5]), None),
    "log_linear": log_linear.Pool(np.array([0.7, 0.9]), np.linspace(-1, 1, 6), 0.0),
    "average": average.Pool((linear.Pool(np.array([1.0, 0.0]), 0.0),), np.array([1.0])),
}


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_any_pool_that_was_fitted_predicts_and_folders_are_made(folder, hms_folder, tmp_path, pool):
    ensemble = files.read_json(folder.ensemble)
    weights = zip(ensemble["members"], pool.weights.tolist(), strict=True)
    members = [member | {"weight": weight} for member, weight in weights]
    files.write_json(folder.ensemble, ensemble | {"fitted": _base.to_dict(pool), "members": members})
    predict(folder, hms_folder, tmp_path / "new" / "folder" / "a.csv")
    probs = np.stack([member_probs(folder, trial, hms_folder) for trial in ("one-base", "two-base")], axis=1)
    table = pd.read_csv(tmp_path / "new" / "folder" / "a.csv")
    np.testing.assert_allclose(table[VOTES], pool.predict(probs), atol=1e-6)


def test_what_the_ensemble_writes_can_predict(folder, hms_folder, tmp_path):
    result = fit_study(folder).model_dump(mode="json")
    predict(folder, hms_folder, tmp_path / "a.csv")
    probs = [member_probs(folder, member["trial"], hms_folder) for member in result["members"]]
    pooled = _base.from_dict(result["fitted"]).predict(np.stack(probs, axis=1))
    np.testing.assert_allclose(pd.read_csv(tmp_path / "a.csv")[VOTES], pooled, atol=1e-6)


def without_ensemble(folder):
    folder.ensemble.unlink()


def of_an_earlier_version(folder):
    ensemble = files.read_json(folder.ensemble)
    del ensemble["fitted"], ensemble["version"]
    files.write_json(folder.ensemble, ensemble)


def foreign(folder):
    shutil.rmtree(folder.root / "trials")


def lost_weights(folder):
    chosen_weights(folder, "two-base", 1).unlink()


def cut_weights(folder):
    path = chosen_weights(folder, "one-base", 0)
    folder.trial("one-base").fold(0).digests.unlink()  # as in a study of an earlier version
    path.write_bytes(path.read_bytes()[:-9])


def empty_config(folder):
    folder.trial("one-base").config.write_text("")


def no_study(folder):
    folder.study.unlink()


def with_value(value):
    def change(folder):
        """Put a value into the weights of one fold's model that no digest stands in the way of."""
        path = chosen_weights(folder, "two-base", 1)
        folder.trial("two-base").fold(1).digests.unlink()
        state = checkpoint.unpack(path)
        name = next(name for name, tensor in state.items() if tensor.is_floating_point() and tensor.dim() > 1)
        state[name].flatten()[0] = value
        path.write_bytes(checkpoint.pack(state))

    return change


def pool_weight(value):
    def change(folder):
        ensemble = files.read_json(folder.ensemble)
        ensemble["fitted"]["weights"][1] = ensemble["members"][1]["weight"] = value
        folder.ensemble.write_text(json.dumps(ensemble))

    return change


def no_epochs(folder):
    path = folder.oof("one-base")
    replace(OofTable.read(path), epochs=()).write(path)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (without_ensemble, "has no ensemble; run `hms-ray ensemble --study "),
        (of_an_earlier_version, "ensemble.json was written by an earlier version; run `hms-ray ensemble --study "),
        (foreign, "one-base (one) has no model here; imported predictions cannot be repeated"),
        (lost_weights, "cannot predict new data: "),
        (cut_weights, ".safetensors: broken weights"),
        (empty_config, "run: it must be a mapping"),
        (no_study, "is no study: it has no study.json"),
        (with_value(float("nan")), "two-base, the model of "),
        (with_value(float("inf")), "predictions must be finite in each row"),
        (pool_weight(float("nan")), "fitted.weights.1, the weight of two-base, must be a finite number, but is nan"),
        (pool_weight(1e999), "the weight of two-base, must be a finite number, but is inf"),
        (pool_weight(0.5), "the ensemble of "),
        (no_epochs, "one-base.parquet names the epochs of 0 folds, but one-base has 2"),
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


def test_an_ensemble_without_members_predicts_its_bias(folder, hms_folder, tmp_path, caplog):
    pool = log_linear.Pool(np.zeros(0), np.log([0.5, 0.1, 0.1, 0.1, 0.1, 0.1]), 0.0)
    ensemble = files.read_json(folder.ensemble)
    files.write_json(folder.ensemble, ensemble | {"members": [], "fitted": _base.to_dict(pool)})
    predict(folder, hms_folder, tmp_path / "a.csv")
    np.testing.assert_allclose(pd.read_csv(tmp_path / "a.csv")[VOTES], [[0.5, 0.1, 0.1, 0.1, 0.1, 0.1]])
    assert "no member has weight in this ensemble: it predicts the same for every unit" in caplog.text


def test_missing_weights_are_told_before_any_recording_is_read(folder, hms_folder, tmp_path, monkeypatch):
    lost_weights(folder)
    monkeypatch.setattr(inputs, "prepare_all", lambda *_: pytest.fail("recordings were read"))
    with pytest.raises(ConfigError, match=r"two-base/folds/1/weights/\d.safetensors is missing"):
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


def test_an_output_below_a_folder_that_cannot_be_written_is_refused_before_any_work(
    folder, hms_folder, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(files.os, "access", lambda path, mode: False)  # root may write anywhere
    monkeypatch.setattr(inputs, "open_run", lambda *_: pytest.fail("work began"))
    out = tmp_path / "locked" / "submission.csv"
    assert main(["predict", "--study", str(folder.root), "--data", str(hms_folder), "--out", str(out)]) == 2
    assert f"error: {tmp_path}: Permission denied" in capsys.readouterr().err
    assert not out.parent.exists()


def other_weights(folder, trial, **model):
    """Replace the weights of a member's second fold by those of another network; return the file."""
    path, run = chosen_weights(folder, trial, 1), load_yaml(folder.trial(trial).config)
    run["model"] |= model
    torch.manual_seed(1)
    task = tasks.from_dict(folder.read_study()["task"])
    path.write_bytes(checkpoint.pack(build_model(parse_run(run), task).state_dict()))
    return path


def refused(folder, hms_folder, tmp_path, capsys):
    """The error of `hms-ray predict`, which writes nothing."""
    out = tmp_path / "a.csv"
    assert main(["predict", "--study", str(folder.root), "--data", str(hms_folder), "--out", str(out)]) == 2
    assert not out.exists()
    return capsys.readouterr().err


def test_weights_that_were_replaced_are_told_by_their_digest(folder, hms_folder, tmp_path, capsys):
    """Another seed's weights fit, and would predict something else without a word."""
    path = other_weights(folder, "two-base")
    said = refused(folder, hms_folder, tmp_path, capsys)
    assert f"two-base fold 1: {path} does not hold the weights that were trained; copy the file" in said
    assert "one-base" not in said


def test_weights_of_another_network_are_told_in_a_sentence(folder, hms_folder, tmp_path, capsys):
    folder.trial("two-base").fold(1).digests.unlink()  # as in a study of an earlier version
    path = other_weights(folder, "two-base", width=8)
    said = refused(folder, hms_folder, tmp_path, capsys)
    config = folder.trial("two-base").config
    assert f"two-base fold 1: {path} holds the weights of another network than that of {config}: one of the two" in said
    assert "Traceback" not in said and "size mismatch" not in said


def test_a_study_from_before_digests_predicts_and_says_so_once(folder, hms_folder, tmp_path, caplog):
    expected = predict(folder, hms_folder, tmp_path / "with.csv")
    for trial in ("one-base", "two-base"):
        for k in range(2):
            folder.trial(trial).fold(k).digests.unlink()
    with caplog.at_level(logging.WARNING, "hms_ray.inference.predict"):
        assert predict(folder, hms_folder, tmp_path / "without.csv") == expected
    assert (tmp_path / "with.csv").read_bytes() == (tmp_path / "without.csv").read_bytes()
    [said] = [message for message in caplog.messages if "digest" in message]
    assert said == "one-base, two-base: no digest of these weights is known, so they are not checked"
