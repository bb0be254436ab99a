"""The folder as a whole: layout, tables, determinism, the real files' traps, and refusals."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from hms_ray.core.errors import ConfigError
from hms_ray.simulate import simulate
from hms_ray.simulate._scalp import CHANNELS
from hms_ray.simulate.spectrogram import compute

OFFSETS = "eeg_label_offset_seconds", "spectrogram_label_offset_seconds"
VOTES = ["seizure_vote", "lpd_vote", "gpd_vote", "lrda_vote", "grda_vote", "other_vote"]
TRAIN_COLUMNS = ["eeg_id", "eeg_sub_id", OFFSETS[0], "spectrogram_id", "spectrogram_sub_id", OFFSETS[1]]
TRAIN_COLUMNS += ["label_id", "patient_id", "expert_consensus", *VOTES]
SPELLINGS = ["Seizure", "LPD", "GPD", "LRDA", "GRDA", "Other"]


@pytest.fixture(scope="module")
def train(simulated: Path) -> pd.DataFrame:
    return pd.read_csv(simulated / "train.csv")


def _read(simulated: Path, kind: str, ids: pd.Series) -> dict[int, pd.DataFrame]:
    return {i: pd.read_parquet(simulated / kind / f"{i}.parquet") for i in ids.unique().tolist()}


def _bytes(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_layout_holds_what_the_tables_name_and_nothing_else(simulated: Path, train: pd.DataFrame) -> None:
    test = pd.read_csv(simulated / "test.csv")
    expected = {"train.csv", "test.csv", "sample_submission.csv"}
    for part, table in (("train", train), ("test", test)):
        expected |= {f"{part}_eegs/{i}.parquet" for i in table["eeg_id"]}
        expected |= {f"{part}_spectrograms/{i}.parquet" for i in table["spectrogram_id"]}
    assert set(_bytes(simulated)) == expected


def test_train_csv_is_as_the_competition_writes_it(train: pd.DataFrame) -> None:
    assert train.columns.tolist() == TRAIN_COLUMNS
    assert train["eeg_id"].nunique() == 12
    assert train["patient_id"].nunique() == 6
    assert train["label_id"].is_unique
    assert (train.groupby("eeg_id")["spectrogram_id"].nunique() == 1).all()
    assert train["eeg_label_offset_seconds"].dtype == np.float64
    consensus = train[VOTES].to_numpy().argmax(1)
    assert train["expert_consensus"].tolist() == [SPELLINGS[k] for k in consensus]
    for key in ("eeg", "spectrogram"):
        ordered = train.sort_values([f"{key}_id", f"{key}_sub_id"])
        assert (ordered.groupby(f"{key}_id")[f"{key}_label_offset_seconds"].diff().dropna() >= 0).all()
        assert (ordered.groupby(f"{key}_id").cumcount() == ordered[f"{key}_sub_id"]).all()


def test_windows_and_images_lie_inside_their_files(simulated: Path, train: pd.DataFrame) -> None:
    rows = {i: len(table) for i, table in _read(simulated, "train_eegs", train["eeg_id"]).items()}
    assert ((train["eeg_label_offset_seconds"] + 50) * 200 <= train["eeg_id"].map(rows)).all()
    rows = {i: len(table) for i, table in _read(simulated, "train_spectrograms", train["spectrogram_id"]).items()}
    assert (train["spectrogram_label_offset_seconds"] // 2 + 300 <= train["spectrogram_id"].map(rows)).all()
    assert len(set(train["eeg_id"].map(lambda i: len(pq.read_table(simulated / f"train_eegs/{i}.parquet"))))) > 1


def test_recordings_have_the_columns_and_types_of_the_real_ones(simulated: Path, train: pd.DataFrame) -> None:
    for table in _read(simulated, "train_eegs", train["eeg_id"]).values():
        assert table.columns.tolist() == [*CHANNELS, "EKG"]
        assert set(table.dtypes) == {np.dtype("float32")}
    dtypes = set()
    for table in _read(simulated, "train_spectrograms", train["spectrogram_id"]).values():
        assert table.columns[0] == "time"
        assert table["time"].tolist() == list(range(1, 2 * len(table), 2))
        assert {str(dtype) for dtype in table.dtypes[1:]} == {"float32"}
        dtypes.add(str(table["time"].dtype))
    assert dtypes == {"int16", "int64"}
    for path in simulated.rglob("*.parquet"):
        assert pq.ParquetFile(path).metadata.num_row_groups == 1


def test_the_test_part_is_of_other_patients_and_whole_images(simulated: Path, train: pd.DataFrame) -> None:
    test = pd.read_csv(simulated / "test.csv")
    sample = pd.read_csv(simulated / "sample_submission.csv")
    assert test.columns.tolist() == ["spectrogram_id", "eeg_id", "patient_id"]
    assert len(test) == 1
    assert not set(test["patient_id"]) & set(train["patient_id"])
    assert {len(table) for table in _read(simulated, "test_eegs", test["eeg_id"]).values()} == {10_000}
    assert {len(table) for table in _read(simulated, "test_spectrograms", test["spectrogram_id"]).values()} == {300}
    assert sample.columns.tolist() == ["eeg_id", *VOTES]
    assert sample["eeg_id"].tolist() == test["eeg_id"].tolist()
    np.testing.assert_allclose(sample[VOTES], 1 / 6)


def test_the_spectrogram_is_that_of_the_eeg(simulated: Path, train: pd.DataFrame) -> None:
    """Recomputed from the EEG file, its rows lie where the two offsets put them."""
    compared = 0
    spectrograms = _read(simulated, "train_spectrograms", train["spectrogram_id"])
    for eeg_id, row in train.drop_duplicates("eeg_id").set_index("eeg_id").iterrows():
        eeg = pd.read_parquet(simulated / f"train_eegs/{eeg_id}.parquet")
        again = compute(eeg[list(CHANNELS)].to_numpy().T)
        start_s = row["spectrogram_label_offset_seconds"] - row["eeg_label_offset_seconds"] + 275
        first = int(start_s + 1) // 2
        there = spectrograms[row["spectrogram_id"]].iloc[first : first + len(again), 1:].to_numpy()
        if np.isfinite(again).all() and np.isfinite(there).all():
            np.testing.assert_allclose(again, there, rtol=0.02, atol=0.02)
            compared += 1
    assert compared >= 8


def test_the_traps_of_the_real_files_are_there(simulated: Path, train: pd.DataFrame) -> None:
    for key in ("eeg_id", "spectrogram_id", "label_id"):
        assert 2**31 < train[key].max() < 4_294_958_359
    offsets = train["eeg_label_offset_seconds"]
    assert (offsets % 2 != 0).any()
    assert (train.groupby("spectrogram_id")["eeg_id"].nunique() == 2).any()
    assert (train.groupby("eeg_id")["expert_consensus"].nunique() > 1).any()
    eegs = [table.to_numpy() for table in _read(simulated, "train_eegs", train["eeg_id"]).values()]
    assert any(np.isnan(eeg).any() for eeg in eegs)
    assert any(np.nanmax(np.abs(eeg[:, :19])) > 1500 for eeg in eegs)
    assert any((eeg == 0).all(0).any() for eeg in eegs)
    powers = [
        t.iloc[:, 1:].to_numpy() for t in _read(simulated, "train_spectrograms", train["spectrogram_id"]).values()
    ]
    assert any(np.isnan(power).all(1).any() for power in powers)
    assert any((power == 0).any() for power in powers)
    assert not any((np.isnan(power).any(1) & ~np.isnan(power).all(1)).any() for power in powers)


def test_the_same_seed_gives_the_same_bytes(simulated: Path, tmp_path: Path) -> None:
    simulate(tmp_path / "again", 12, 6, seed=0)
    assert _bytes(tmp_path / "again") == _bytes(simulated)


def test_another_seed_gives_other_recordings_and_progress_counts_them(simulated: Path, tmp_path: Path) -> None:
    told = []
    simulate(tmp_path, 6, 6, seed=1, progress=lambda done, total: told.append((done, total)))
    assert told == [(k + 1, 7) for k in range(7)]
    ours, theirs = _bytes(tmp_path), _bytes(simulated)
    assert set(ours) & set(theirs) == {"train.csv", "test.csv", "sample_submission.csv"}
    assert not set(ours.values()) & set(theirs.values())


def test_what_was_interrupted_never_looks_complete(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path / "hms", 6, 6, progress=interrupt)
    assert len(list((tmp_path / "hms/train_spectrograms").glob("*.parquet"))) == 2
    assert not list((tmp_path / "hms").glob("*.csv"))
    with pytest.raises(ConfigError, match=r"interrupted .*no train\.csv.*delete it, then run again"):
        simulate(tmp_path / "hms", 6, 6)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"eegs": 5}, "eegs must be at least as many as patients, but got 5 eegs for 6 patients"),
        ({"patients": 5}, "patients must be at least 6, to fill five folds, but got 5"),
        ({"eegs": 12.0}, r"eegs must be a whole number, but got 12\.0"),
        ({"patients": True}, "patients must be a whole number, but got True"),
        ({"seed": -1}, "seed must be a whole number from 0 to 4294967295, but got -1"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(tmp_path: Path, arguments: dict, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        simulate(tmp_path / "hms", **{"eegs": 12, "patients": 6, **arguments})
    assert not (tmp_path / "hms").exists()


def test_a_folder_in_use_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty: name a new folder"):
        simulate(tmp_path, 12, 6)
    with pytest.raises(ConfigError, match=r"notes\.txt is a file, not a folder"):
        simulate(tmp_path / "notes.txt", 12, 6)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_number_of_threads_does_not_change_the_bytes(simulated: Path, tmp_path: Path, repository: Path) -> None:
    program = f"from hms_ray.simulate import simulate; simulate({str(tmp_path / 'hms')!r}, 12, 6, seed=0)"
    environment = os.environ | {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", program], env=environment, cwd=repository, check=True, timeout=120)
    assert _bytes(tmp_path / "hms") == _bytes(simulated)
