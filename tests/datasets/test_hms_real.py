"""The competition's own files, where this machine has them: the counts that the field knows."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from hms_ray import registry
from hms_ray.core import recordings
from hms_ray.datasets import hms
from hms_ray.features import kaggle_spectrogram, raw_eeg
from hms_ray.features._feature import FeatureRef
from hms_ray.store.inputs import open_inputs
from hms_ray.store.prepare import InputParams, prepare
from hms_ray.store.quality import measure
from hms_ray.study import folds

FEATURES = {name: registry.load("features", name) for name in registry.names("features")}
OURS = [name for name, of in FEATURES.items() if set(of.spec(of.Params()).kinds) <= set(hms.HmsDataset.KINDS)]


@pytest.fixture(scope="module")
def voted(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the real votes and no recordings, which the labels do without."""
    source = real_data / "train_votes.parquet"
    if not source.is_file():
        pytest.skip(f"no {source}")
    folder = tmp_path_factory.mktemp("votes")
    table = pd.read_parquet(source)
    table.to_csv(folder / "train.csv", index=False)
    return folder


@pytest.mark.parametrize(("rows", "units"), [("eeg", 17_001), ("label", 20_080), ("period", 21_381)])
def test_the_number_of_units(voted: Path, rows: str, units: int) -> None:
    dataset = hms.load(voted, hms.Params(rows=rows))
    assert len(dataset.units) == units and dataset.units["unit_id"].is_unique
    assert dataset.units["group_id"].nunique() == 1_945


@pytest.mark.parametrize("rows", ["eeg", "label", "period"])
def test_windows_that_follow_each_other_overlap_and_are_of_one_moment_in_both_kinds(voted: Path, rows: str) -> None:
    eeg, spectrogram = (hms.load(voted, hms.Params(rows=rows)).windows[kind] for kind in ("eeg", "spectrogram"))
    assert eeg.slack_s.max() < recordings.EEG.window_s, "a random window shows some of what the experts saw"
    np.testing.assert_array_equal(eeg.slack_s, spectrogram.slack_s)
    assert len(eeg.start_s) == len(spectrogram.start_s) == 106_519


def test_periods_by_panel_and_five_folds_of_them(voted: Path) -> None:
    dataset = hms.load(voted, hms.Params(rows="period"))
    votes = dataset.units["votes"]
    assert [int(votes.between(*ends).sum()) for ends in ((1, 2), (3, 9), (10, 99))] == [5_917, 9_135, 6_329]
    table = folds.assign(dataset.units, 5, seed=0)
    assert table.groupby("group_id")["fold"].nunique().max() == 1
    shares = pd.crosstab(table["fold"], pd.cut(votes, [0, 2, 9, 99]), normalize="columns")
    assert shares.to_numpy().min() > 0.15 and shares.to_numpy().max() < 0.25


def test_the_prior_and_the_uniform_guess_score_as_the_field_knows(voted: Path) -> None:
    dataset = hms.load(voted, hms.Params(rows="period"))
    targets = dataset.targets[dataset.units["votes"] >= 10]
    prior, uniform = dataset.task.prior(targets), np.full(6, 1 / 6)
    scores = [dataset.task.score(targets, np.tile(guess, (len(targets), 1))) for guess in (uniform, prior)]
    np.testing.assert_allclose(scores, [1.138, 0.850], atol=0.01)


@pytest.mark.parametrize("kind", hms.HmsDataset.KINDS)
def test_the_real_sample_is_read(real_data: Path, kind: str) -> None:
    for dataset in (hms.load(real_data / "hms_sample", hms.Params()), hms.load_test(real_data / "hms_sample")):
        dataset.require(kind, "this test")
        of = recordings.KINDS[kind]
        for name in dataset.files(kind):
            recording = dataset.read(kind, name)
            assert recording.shape == (len(of.channels), dataset.steps(kind, name)) and recording.dtype == np.float32
            found = measure(of, name, recording)
            assert found["nan"] < 0.2 and found["flat"] < 0.2 and found["outliers"] < 0.2
        for i in range(len(dataset.units)):
            assert np.isfinite(dataset.window(kind, i)).mean() > 0.8


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cache for the whole sample: recordings are kept once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HMS_RAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("HMS_RAY_STORE", raising=False)
        yield


@pytest.mark.parametrize("name", OURS)
def test_every_feature_is_made_of_the_real_sample(real_data: Path, cache: None, name: str) -> None:
    dataset = hms.load(real_data / "hms_sample", hms.Params(rows="eeg"))
    assert len(dataset.units) == 3
    module = registry.load("features", name)
    feature, found = FeatureRef(name, module.Params()), []
    for params in (InputParams(), InputParams(compute="batch", dtype="float32")):
        stores = prepare(dataset, feature, params, lambda label: lambda done, total: None)
        inputs = open_inputs(stores, feature, params, dataset.windows, dataset.examples)
        found.append(inputs.batch(np.arange(3), torch.device("cpu")))
        assert found[-1].shape == (3, *module.spec(feature.params).shape)
        assert found[-1].isfinite().all() and found[-1].std() > 0.05
    prepared, computed = found
    torch.testing.assert_close(prepared, computed, rtol=2**-10, atol=2e-3)
    assert not torch.equal(prepared[0], prepared[1])


def test_the_image_of_the_real_spectrogram_is_standardised(real_data: Path) -> None:
    dataset = hms.load(real_data / "hms_sample", hms.Params(rows="eeg"))
    windows = torch.from_numpy(np.stack([dataset.window("spectrogram", i) for i in range(3)]))
    images = kaggle_spectrogram.compute({"spectrogram": windows}, kaggle_spectrogram.Params())
    assert images.shape == (3, 1, 400, 300)
    for image in images:
        assert abs(image.mean()) < 0.05 and float(image.std()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("window", ["middle", "random"])
def test_the_real_samples_random_windows_have_values(real_data: Path, cache: None, window: str) -> None:
    dataset = hms.load(real_data / "hms_sample", hms.Params())
    feature, params = FeatureRef("raw_eeg", raw_eeg.Params()), InputParams(compute="batch", window=window)
    stores = prepare(dataset, feature, params, lambda label: lambda done, total: None)
    inputs, rng = open_inputs(stores, feature, params, dataset.windows, dataset.examples), np.random.default_rng(0)
    rows = np.arange(len(inputs)).repeat(5)
    batch = inputs.batch(rows, torch.device("cpu"), rng)
    assert batch.isfinite().all() and (batch.std((1, 2)) > 0).all()
