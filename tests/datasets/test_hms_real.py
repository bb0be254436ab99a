"""The competition's own files, where this machine has them: the counts that the field knows."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_ray import folds
from hms_ray.datasets import hms
from hms_ray.features import kaggle_spectrogram


@pytest.fixture(scope="module")
def voted(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the real votes and an empty file for each recording."""
    source = real_data / "train_votes.parquet"
    if not source.is_file():
        pytest.skip(f"no {source}")
    folder = tmp_path_factory.mktemp("votes")
    table = pd.read_parquet(source)
    table.to_csv(folder / "train.csv", index=False)
    (folder / "train_spectrograms").mkdir()
    for i in table["spectrogram_id"].unique():
        (folder / "train_spectrograms" / f"{i}.parquet").touch()
    return folder


@pytest.mark.parametrize(("rows", "units"), [("eeg", 17_001), ("label", 20_080), ("period", 21_381)])
def test_the_number_of_units(voted: Path, rows: str, units: int) -> None:
    dataset = hms.load(voted, hms.Params(rows=rows))
    assert len(dataset.units) == units and dataset.units["unit_id"].is_unique
    assert dataset.units["group_id"].nunique() == 1_945


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


def test_the_real_sample_gives_images(real_data: Path) -> None:
    dataset = hms.load(real_data / "hms_sample", hms.Params(rows="eeg"))
    assert len(dataset.units) == 3
    for i in range(3):
        image = kaggle_spectrogram.compute(dataset, i, kaggle_spectrogram.Params())
        assert image.shape == (1, 400, 300) and np.isfinite(image).all()
        assert abs(image.mean()) < 0.05 and image.std() == pytest.approx(1, abs=0.05)
    assert np.isfinite(hms.load_test(real_data / "hms_sample").recording("spectrogram", 0)).any()
