"""Preparing a space: the feature of its base and of each choice, once."""

import shutil

import numpy as np
import pytest

from hms_ray.core.errors import DataError
from hms_ray.datasets import hms
from hms_ray.search.prepare import prepare
from hms_ray.search.space.space import parse

BASE = {
    "data": {"name": "hms"},
    "feature": {"name": "kaggle_spectrogram", "pool": 4},
    "model": {"name": "basic_cnn", "width": 4, "depth": 2},
    "stages": [{"epochs": 1, "lr": 0.01}],
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HMS_RAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def a_space(name="toy", base=None, **search):
    return parse(name, {"base": BASE | (base or {}), "search": search})


def test_each_feature_of_a_space_is_prepared_once(hms_folder, cache):
    search = {"feature.arrange": {"choice": ["stack", "channels"]}, "model.width": {"choice": [4, 8]}}
    stores = prepare([a_space(**search), a_space("other")], hms_folder)
    assert sorted(np.load(path / "x.npy").shape for path in stores) == [(24, 1, 100, 75), (24, 4, 25, 75)]
    assert sorted(path for path in (cache / "prepared").iterdir() if path.is_dir()) == sorted(stores)


def test_a_recording_is_read_once_for_all_features_of_all_spaces(hms_folder, cache, monkeypatch):
    read, names = hms.HmsDataset.read, []

    def counted(dataset, kind, name):
        names.append(name)
        return read(dataset, kind, name)

    monkeypatch.setattr(hms.HmsDataset, "read", counted)
    search = {"feature": {"choice": [{"name": "kaggle_spectrogram", "pool": 4}, {"name": "global_stats", "pool": 4}]}}
    other = a_space("other", base={"feature": {"name": "kaggle_spectrogram", "pool": 2}})
    assert len(prepare([a_space(**search), other], hms_folder)) == 3
    assert len(names) == len(set(names)) == 6


def test_recordings_are_prepared_once_for_every_feature_of_a_space(hms_folder, cache):
    spaces = [a_space("computed", base={"input": {"compute": "batch"}}, **{"feature.pool": {"choice": [2, 4]}})]
    spaces.append(a_space("joined", base={"input": {"compute": "batch"}, "feature": {"name": "panels"}}))
    spaces.append(a_space("of-eegs", base={"input": {"compute": "batch"}, "feature": {"name": "eeg_spectrogram"}}))
    stores = prepare(spaces, hms_folder)
    assert [path.name.split("-")[1] for path in stores] == ["spectrogram", "eeg"]
    assert np.load(stores[1] / "x.npy").shape == (12 * 20 * 13_200,)


def test_what_is_prepared_is_not_read_again(hms_folder, tmp_path, cache):
    data = shutil.copytree(hms_folder, tmp_path / "data")
    first = prepare([a_space()], data)
    before = (first[0] / "x.npy").stat().st_mtime_ns
    assert prepare([a_space()], data) == first
    assert (first[0] / "x.npy").stat().st_mtime_ns == before


def test_a_broken_file_leaves_nothing_prepared(hms_folder, tmp_path, cache):
    data = shutil.copytree(hms_folder, tmp_path / "data")
    path = sorted((data / "train_spectrograms").iterdir())[2]
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match=f"{path.name}: truncated parquet"):
        prepare([a_space()], data)
    assert not cache.exists()
