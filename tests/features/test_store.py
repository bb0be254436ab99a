"""Features are computed once, and a store that has its name is whole."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_ray import files
from hms_ray.datasets import hms
from hms_ray.errors import ConfigError, DataError
from hms_ray.features import _store, kaggle_spectrogram

NAME, PARAMS = "kaggle_spectrogram", kaggle_spectrogram.Params(pool=4)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("HMS_RAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def dataset(hms_folder: Path) -> hms.HmsDataset:
    """The shared tiny folder."""
    return hms.load(hms_folder, hms.Params(rows="eeg"))


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The units that the feature is computed for, as it happens."""
    units: list[int] = []
    compute = kaggle_spectrogram.compute

    def counted(dataset: hms.HmsDataset, i: int, params: kaggle_spectrogram.Params) -> np.ndarray:
        units.append(i)
        return compute(dataset, i, params)

    monkeypatch.setattr(kaggle_spectrogram, "compute", counted)
    return units


def _quiet(done: int, total: int) -> None:
    """No progress."""


def test_the_store_holds_what_compute_gives(cache: Path, dataset: hms.HmsDataset) -> None:
    x = _store.open_store(_store.prepare(dataset, NAME, PARAMS, _quiet))
    expected = np.stack([kaggle_spectrogram.compute(dataset, i, PARAMS) for i in range(len(dataset.units))])
    assert x.shape == (12, *kaggle_spectrogram.spec(PARAMS).shape) and x.dtype == np.float16
    np.testing.assert_allclose(x, expected, rtol=2**-11, atol=1e-7)


def test_the_second_time_nothing_is_computed(cache: Path, dataset: hms.HmsDataset, computed: list[int]) -> None:
    first = _store.prepare(dataset, NAME, PARAMS, _quiet)
    assert sorted(computed) == list(range(12))
    assert _store.prepare(dataset, NAME, PARAMS, _quiet) == first
    assert len(computed) == 12


def test_progress_counts_every_unit(cache: Path, dataset: hms.HmsDataset) -> None:
    seen: list[tuple[int, int]] = []
    _store.prepare(dataset, NAME, PARAMS, lambda done, total: seen.append((done, total)))
    assert seen == [(done, 12) for done in range(2, 13, 2)]  # two EEGs a file


def test_other_parameters_units_or_data_have_another_store(
    cache: Path, hms_folder: Path, dataset: hms.HmsDataset, make_hms_folder: Callable[..., Path], tmp_path: Path
) -> None:
    others = [
        (dataset, PARAMS),
        (dataset, kaggle_spectrogram.Params(pool=2)),
        (dataset, kaggle_spectrogram.Params(pool=4, standardise="panel")),
        (hms.load(hms_folder, hms.Params(rows="period")), PARAMS),
        (hms.load(make_hms_folder(tmp_path / "other", patients=2), hms.Params(rows="eeg")), PARAMS),
        (hms.load_test(hms_folder), PARAMS),
    ]
    assert len({_store.store_path(data, NAME, params) for data, params in others}) == len(others)
    assert all(cache in _store.store_path(data, NAME, params).parents for data, params in others)


def test_writing_to_the_open_store_does_not_change_it(cache: Path, dataset: hms.HmsDataset) -> None:
    path = _store.prepare(dataset, NAME, PARAMS, _quiet)
    before = (path / "x.npy").read_bytes()
    x = _store.open_store(path)
    x[:] = 7
    del x
    assert (path / "x.npy").read_bytes() == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, MemoryError])
def test_an_interrupted_preparation_leaves_nothing(
    cache: Path, dataset: hms.HmsDataset, error: type[BaseException]
) -> None:
    def interrupt(done: int, total: int) -> None:
        raise error

    with pytest.raises(error):
        _store.prepare(dataset, NAME, PARAMS, interrupt)
    assert list((cache / "prepared").iterdir()) == []


def test_a_killed_preparation_is_not_trusted(cache: Path, dataset: hms.HmsDataset, computed: list[int]) -> None:
    code = (
        "import os, sys; from pathlib import Path; from hms_ray.datasets import hms\n"
        "from hms_ray.features import _store, kaggle_spectrogram as k\n"
        "data = hms.load(Path(sys.argv[1]), hms.Params(rows='eeg'))\n"
        "_store.prepare(data, 'kaggle_spectrogram', k.Params(pool=4), lambda done, total: os._exit(9))\n"
    )
    env = {"HMS_RAY_CACHE": str(cache), "PYTHONPATH": ":".join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code, str(dataset.root)], env=env).returncode == 9
    path = _store.store_path(dataset, NAME, PARAMS)
    assert not path.exists() and list((cache / "prepared").iterdir()), "it was killed half way"
    with pytest.raises(DataError, match="no prepared features here"):
        _store.open_store(path)
    assert _store.prepare(dataset, NAME, PARAMS, _quiet) == path
    assert len(computed) == 12
    assert np.isfinite(_store.open_store(path)).all()


@pytest.mark.parametrize("lost", ["manifest.json", "x.npy"])
def test_a_store_that_lost_a_file_is_made_again(
    cache: Path, dataset: hms.HmsDataset, computed: list[int], lost: str
) -> None:
    path = _store.prepare(dataset, NAME, PARAMS, _quiet)
    (path / lost).unlink()  # as cleaners of temporary folders do
    with pytest.raises(DataError, match="no prepared features here"):
        _store.open_store(path)
    assert _store.prepare(dataset, NAME, PARAMS, _quiet) == path
    assert len(computed) == 24 and np.isfinite(_store.open_store(path)).all()


def test_all_files_are_checked_before_any_work(
    cache: Path, make_hms_folder: Callable[..., Path], tmp_path: Path, computed: list[int]
) -> None:
    folder = make_hms_folder(tmp_path / "hms", patients=3)
    dataset = hms.load(folder, hms.Params())
    path = dataset.files("spectrogram")[-1]
    path.write_text("a,b")
    with pytest.raises(DataError, match="not a parquet file"):
        _store.prepare(dataset, NAME, PARAMS, _quiet)
    assert computed == [] and not cache.exists()


def test_each_file_is_read_once_by_many_threads(
    cache: Path, make_hms_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_hms_folder(tmp_path / "hms", patients=8)
    dataset = hms.load(folder, hms.Params(rows="period"))
    read, reads, all_read = files.read_array, [], threading.Barrier(8, timeout=30)

    def counted(path: Path, columns: list[str]) -> np.ndarray:
        reads.append(path.name)
        if len(reads) <= 8:
            all_read.wait()  # the worst order: every thread has read its first file before any goes on
        return read(path, columns)

    monkeypatch.setattr(_store, "THREADS", 8)
    monkeypatch.setattr(files, "read_array", counted)
    _store.prepare(dataset, NAME, PARAMS, _quiet)
    assert sorted(reads) == sorted(set(reads)) and len(reads) == 8


def test_a_feature_of_other_recordings_is_refused(
    cache: Path, dataset: hms.HmsDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kaggle_spectrogram, "KIND", "eeg")
    with pytest.raises(ConfigError, match=r"features\.kaggle_spectrogram needs recordings of kind 'eeg'"):
        _store.prepare(dataset, NAME, PARAMS, _quiet)


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HMS_RAY_CACHE", "here")
    assert _store.cache_root() == Path(os.getcwd()) / "here", "absolute, since workers run elsewhere"
    monkeypatch.delenv("HMS_RAY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert _store.cache_root() == tmp_path / "xdg" / "hms_ray"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert _store.cache_root() == tmp_path / ".cache" / "hms_ray"


def test_two_units_of_one_window_are_equal_rows(
    cache: Path, make_hms_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_hms_folder(tmp_path / "hms", patients=2)
    table = pd.read_csv(folder / "train.csv").assign(spectrogram_label_offset_seconds=4.0)
    table.to_csv(folder / "train.csv", index=False)
    dataset = hms.load(folder, hms.Params(rows="eeg"))
    x = _store.open_store(_store.prepare(dataset, NAME, PARAMS, _quiet))
    np.testing.assert_array_equal(x[0], x[1])
    assert (x[0] != x[2]).any()
