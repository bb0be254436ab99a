"""From a run to its folds: what marks a run, and what a finished fold becomes."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch

from hms_ray import tasks
from hms_ray.core import files, provenance
from hms_ray.core.seeds import stream
from hms_ray.datasets import Examples, Windows
from hms_ray.store import quality
from hms_ray.store.share import StoreRef
from hms_ray.training import checkpoint
from hms_ray.training.build import build_model, make_recipe
from hms_ray.training.distributed import Replica
from hms_ray.training.jobs import FoldJob
from hms_ray.training.labels import TrainingLabels
from hms_ray.training.run_config import parse_run, with_random_weights
from hms_ray.training.run_job import train_job

RUN = {
    "data": {"name": "hms"},
    "feature": {"name": "kaggle_spectrogram", "pool": 4},
    "model": {"name": "basic_cnn", "width": 4, "depth": 2},
    "optim": {"batch": 8},
    "stages": [{"epochs": 2, "lr": 0.01}],
    "folds": 2,
}
TASK = tasks.from_dict({"kind": "votes", "classes": ["a", "b", "c"]})
UNITS = 12


def a_run(**changes):
    return parse_run(copy.deepcopy(RUN) | changes)


@pytest.fixture
def labels():
    rng = stream(0, "labels")
    votes, zero = np.array([12, 4] * (UNITS // 2)), np.zeros(UNITS)
    return TrainingLabels(
        unit_ids=np.array([f"u{i}" for i in range(UNITS)]),
        group_ids=np.array([f"p{i // 2}" for i in range(UNITS)]),
        targets=rng.dirichlet(np.ones(3), UNITS),
        votes=votes,
        folds=np.arange(UNITS) // 2 % 2,
        task=TASK,
        examples=Examples.one_each(UNITS),
        windows={
            "spectrogram": Windows(np.array([f"r{i}" for i in range(UNITS)]), zero, np.arange(UNITS + 1), zero, zero)
        },
        data_fingerprint="data",
        folds_fingerprint="folds",
    )


@pytest.fixture
def store(tmp_path):
    """Prepared features as they are left by `hms-ray prepare`."""
    torch.set_num_threads(1)
    ref = StoreRef("toy", tmp_path, None)
    ref.path.mkdir()
    np.save(ref.path / "x.npy", stream(0, "x").standard_normal((UNITS, 1, 100, 75)).astype(np.float16))
    measures = dict.fromkeys(quality.MEASURES, np.zeros(UNITS)) | {"nan": np.linspace(0, 0.5, UNITS)}
    names = [f"r{i}" for i in range(UNITS)]
    files.write_table(ref.path / "quality.parquet", pd.DataFrame({"kind": "spectrogram", "name": names, **measures}))
    sizes = {path.name: path.stat().st_size for path in ref.path.iterdir()}
    files.write_json(ref.path / "manifest.json", {"files": sizes})
    return ref


def train(run, labels, store, saved, fold=0):
    job = FoldJob("toy-0001", run, fold, (store,), saved / "checkpoint.pt")
    return train_job(job, labels, Replica(torch.device("cpu")), lambda row: None)


def test_two_trainings_of_a_job_agree_and_leave_the_features_alone(labels, store, tmp_path):
    before = (store.path / "x.npy").read_bytes()
    one, two = (train(a_run(), labels, store, tmp_path / name) for name in "ab")
    assert [path.read_bytes() for path in one.weights.values()] == [path.read_bytes() for path in two.weights.values()]
    np.testing.assert_array_equal(one.probs, two.probs)
    assert (store.path / "x.npy").read_bytes() == before


def test_folds_and_seeds_start_from_other_weights(labels, store, tmp_path):
    task = labels.task
    assert len({make_recipe(a_run(seed=s), task, k).seed for s in range(3) for k in range(3)}) == 9
    one, two = (train(a_run(seed=s), labels, store, tmp_path / str(s)) for s in (0, 1))
    assert one.weights[2].read_bytes() != two.weights[2].read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"optim": {"batch": 9}},
        {"stages": [{"epochs": 3, "lr": 0.01}]},
        {"model": {"name": "basic_cnn", "width": 5, "depth": 2}},
        {"feature": {"name": "kaggle_spectrogram", "pool": 2}},
        {"augment": {"mixup": {}}},
        {"score": {"min_votes": 5}},
        {"epoch": "last"},
    ],
)
def test_the_fingerprint_changes_with_anything_that_changes_the_result(change):
    assert make_recipe(a_run(**change), TASK, 0).fingerprint != make_recipe(a_run(), TASK, 0).fingerprint


def test_the_mark_is_that_of_a_fold_and_of_this_code(monkeypatch):
    fingerprint = make_recipe(a_run(), TASK, 0).fingerprint
    assert make_recipe(parse_run(a_run().content), TASK, 0).fingerprint == fingerprint
    assert make_recipe(a_run(), TASK, 1).fingerprint != fingerprint
    monkeypatch.setattr(provenance, "fingerprint", lambda: "0" * 16)
    assert make_recipe(a_run(), TASK, 0).fingerprint != fingerprint


def test_a_fold_becomes_rows_of_a_table_and_weights_that_repeat_them(labels, store, tmp_path):
    result = train(a_run(), labels, store, tmp_path / "c", fold=1)
    table = labels.table(result.probs[-1], "toy-0001", "toy", result.rows)
    assert table.unit_ids.tolist() == labels.unit_ids[labels.folds == 1].tolist()
    np.testing.assert_array_equal(table.targets, labels.targets[labels.folds == 1])
    assert (table.trial, table.space) == ("toy-0001", "toy")
    model = build_model(a_run(), TASK).eval()
    model.load_state_dict(checkpoint.unpack(result.weights[2]))
    x = torch.from_numpy(np.load(store.path / "x.npy")[result.rows]).float()
    with torch.inference_mode():
        np.testing.assert_allclose(TASK.to_probs(model(x).numpy()), table.probs, atol=1e-5)


def test_a_network_whose_weights_are_replaced_needs_none(tmp_path):
    run = a_run(model={"name": "timm_image", "arch": "resnet18", "pretrained": True})
    moved = {**run.content, "model": run.content["model"] | {"pretrained": str(tmp_path / "gone.safetensors")}}
    assert parse_run(with_random_weights(run.content)).model.params.pretrained is False
    assert with_random_weights(moved) == with_random_weights(run.content)
    assert with_random_weights(a_run().content) == a_run().content
    assert run.without_weights().content == with_random_weights(run.content), "checkpoints know runs by their content"
