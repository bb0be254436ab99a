"""Preparing with Ray tasks: the same store as with threads, and a user's mistake stays one sentence."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hms_ray.core.errors import DataError
from hms_ray.datasets import hms
from hms_ray.execution import prepare_tasks
from hms_ray.execution.prepare_tasks import RayTasks
from hms_ray.features import kaggle_spectrogram
from hms_ray.features._feature import FeatureRef
from hms_ray.store.prepare import InputParams, prepare

FEATURE = FeatureRef("kaggle_spectrogram", kaggle_spectrogram.Params(pool=4))


@pytest.fixture
def into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """The function that names a cache to prepare into."""
    return lambda name: monkeypatch.setenv("HMS_RAY_CACHE", str(tmp_path / name))


def _quiet(label: str) -> Callable[[int, int], None]:
    return lambda done, total: None


@pytest.mark.parametrize("compute", ["prepared", "batch"])
def test_tasks_prepare_what_threads_do(cluster, into, hms_folder, monkeypatch, compute) -> None:
    dataset, params = hms.load(hms_folder, hms.Params()), InputParams(compute=compute)
    into("threads")
    (threads,) = prepare(dataset, FEATURE, params, _quiet)
    monkeypatch.setattr(prepare_tasks, "FEW", 1)
    monkeypatch.setattr(prepare_tasks, "ITEMS", 3)
    into("tasks")
    (tasks,) = prepare(dataset, FEATURE, params, _quiet, RayTasks())
    assert threads.path != tasks.path
    for name in ("x.npy", "items.parquet", "quality.parquet"):
        assert (tasks.path / name).read_bytes() == (threads.path / name).read_bytes(), name


def test_a_broken_recording_is_one_sentence(cluster, into, hms_folder, tmp_path, monkeypatch) -> None:
    folder = shutil.copytree(hms_folder, tmp_path / "data")
    dataset = hms.load(folder, hms.Params())
    path = dataset.path("spectrogram", dataset.files("spectrogram")[-1])
    dataset.lengths("spectrogram")  # it breaks after the files were looked into
    content = path.read_bytes()
    path.write_bytes(content[:1000] + b"\xff" * 3000 + content[4000:])
    monkeypatch.setattr(prepare_tasks, "FEW", 1)
    into("cache")
    with pytest.raises(DataError, match=f"^{path}: broken parquet") as caught:
        prepare(dataset, FEATURE, InputParams(), _quiet, RayTasks())
    assert "\n" not in str(caught.value)


def test_what_a_node_cannot_see_is_read_here(cluster, monkeypatch) -> None:
    here = os.getpid()

    def read(item: str) -> str:
        if os.getpid() != here:
            raise DataError(f"{item}: no such file")
        return item

    monkeypatch.setattr(prepare_tasks, "FEW", 1)
    assert list(RayTasks().imap(read, ["a", "b"])) == ["a", "b"]


def test_ray_starts_only_where_it_is_worth_it(into, hms_folder) -> None:
    into("cache")
    started = []
    prepare(hms.load(hms_folder, hms.Params()), FEATURE, InputParams(), _quiet, RayTasks(lambda: started.append(1)))
    assert not started, "a few recordings are read before Ray has started"
