"""Units, targets and windows of the competition's folder, on tiny folders whose answer is known."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_ray import files
from hms_ray.datasets import hms
from hms_ray.errors import ConfigError

FIRST = "4294950000"  # patient 0's first EEG: 12 votes for seizure in all four windows
SECOND = "4294949999"  # its second: 1 seizure and 1 other, in the third window 1 lpd and 1 other


@pytest.fixture(scope="module", params=["period", "label", "eeg"])
def dataset(request: pytest.FixtureRequest, hms_folder: Path) -> hms.HmsDataset:
    """The shared folder by each rule."""
    return hms.load(hms_folder, hms.Params(rows=request.param))


def _load(folder: Path, rows: str = "period") -> hms.HmsDataset:
    return hms.load(folder, hms.Params(rows=rows))


def _edit(folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    table = pd.read_csv(folder / "train.csv")
    change(table).to_csv(folder / "train.csv", index=False)


@pytest.mark.parametrize(
    ("rows", "unit_ids", "seizure", "offsets"),
    [
        ("period", [f"{SECOND}-0", f"{SECOND}-2", f"{SECOND}-3", f"{FIRST}-0"], [0.5, 0, 0.5, 1], [27, 36, 40, 8.5]),
        ("label", [f"{SECOND}-0", f"{SECOND}-2", f"{FIRST}-0"], [0.5, 0, 1], [94 / 3, 36, 8.5]),
        ("eeg", [SECOND, FIRST], [3 / 8, 1], [32.5, 8.5]),
    ],
)
def test_the_units_of_one_patient(
    hms_folder: Path, rows: str, unit_ids: list[str], seizure: list[float], offsets: list[float]
) -> None:
    dataset = _load(hms_folder, rows)
    mine = (dataset.units["group_id"] == "40000").to_numpy()
    units = dataset.units[mine]
    assert units["unit_id"].tolist() == unit_ids
    np.testing.assert_allclose(dataset.targets[mine, 0], seizure)
    np.testing.assert_allclose(units["spectrogram_offset_s"], offsets)
    assert units["votes"].tolist() == [2] * (len(units) - 1) + [12]
    assert units["stratum"].iloc[-1] == "seizure-10+" and units["stratum"].iloc[0].endswith("-1-2")


def test_a_period_ends_with_its_eeg(make_hms_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_hms_folder(tmp_path / "a", patients=2)
    _edit(folder, lambda table: table.assign(**{f"{name}_vote": 3 for name in hms.CLASSES}))
    assert [len(_load(folder, rows).units) for rows in ("period", "label", "eeg")] == [4, 4, 4]


def test_units_are_what_the_contract_says(dataset: hms.HmsDataset) -> None:
    units = dataset.units
    assert units["unit_id"].is_unique and units.index.tolist() == list(range(len(units)))
    assert units["votes"].dtype == np.int64 and units["spectrogram_id"].dtype == np.int64
    assert dataset.targets.shape == (len(units), 6) and dataset.targets.dtype == np.float64
    dataset.task.check_targets(dataset.targets, "tiny")
    assert dataset.task.classes == ("seizure", "lpd", "gpd", "lrda", "grda", "other")
    identity = dataset.identity()
    assert (identity["name"], identity["units"], identity["groups"]) == ("hms", len(units), 6)


def test_ids_above_31_bits_keep_every_digit(hms_folder: Path) -> None:
    dataset = _load(hms_folder, "eeg")
    assert dataset.units["unit_id"].astype(np.int64).max() == 4_294_950_000
    assert (dataset.units["spectrogram_id"] > 2**31).any()
    assert all(path.is_file() for path in dataset.files("spectrogram"))


def test_the_order_of_the_csv_does_not_matter(make_hms_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_hms_folder(tmp_path / "a", patients=3)
    for rows in ("period", "label", "eeg"):
        before = _load(folder, rows)
        _edit(folder, lambda table: table.sample(frac=1, random_state=1))
        after = _load(folder, rows)
        pd.testing.assert_frame_equal(before.units, after.units)
        np.testing.assert_array_equal(before.targets, after.targets)


@pytest.mark.parametrize("label_id", ["drop", "empty"])
def test_label_id_may_be_absent(make_hms_folder: Callable[..., Path], tmp_path: Path, label_id: str) -> None:
    folder = make_hms_folder(tmp_path / "a", patients=2)
    if label_id == "drop":
        _edit(folder, lambda table: table.drop(columns="label_id"))
    assert len(_load(folder).units) == 8


def test_the_fingerprint_follows_labels_rule_and_recordings(
    make_hms_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_hms_folder(tmp_path / "a", patients=2)
    prints = [_load(folder).fingerprint]
    assert _load(folder).fingerprint == prints[0]
    assert _load(make_hms_folder(tmp_path / "copy", patients=2)).fingerprint == prints[0], "a copy is the same data"
    prints.append(_load(folder, "eeg").fingerprint)
    _edit(folder, lambda table: table.assign(lpd_vote=table["lpd_vote"] + 1))
    prints.append(_load(folder).fingerprint)
    make_hms_folder(tmp_path / "longer", patients=2, rows=340)
    for file in (tmp_path / "longer" / "train_spectrograms").iterdir():
        files.write_bytes(folder / "train_spectrograms" / file.name, file.read_bytes())
    prints.append(_load(folder).fingerprint)
    assert len(set(prints)) == 4


def _panel(path: Path, panel: str) -> np.ndarray:
    """Read one panel (frequency, time) by its columns' names."""
    table = pd.read_parquet(path)
    return table[[name for name in table.columns if name.startswith(f"{panel}_")]].to_numpy().T


def test_a_window_is_300_rows_from_half_the_offset_in_panel_order(hms_folder: Path) -> None:
    dataset = _load(hms_folder)
    for i in (0, 3, 9):
        start = int(dataset.units["spectrogram_offset_s"].iat[i] // 2)
        window = dataset.recording("spectrogram", i)
        assert window.shape == (4, 100, 300) and window.dtype == np.float32
        for panel, image in zip(("LL", "LP", "RL", "RP"), window, strict=True):
            expected = _panel(dataset.files("spectrogram")[i], panel)[:, start : start + 300]
            np.testing.assert_array_equal(image[:, : expected.shape[1]], expected)


def test_frequencies_rise_as_the_columns_say(hms_folder: Path) -> None:
    assert hms.COLUMNS[0] == "LL_0.59" and hms.COLUMNS[-1] == "RP_19.92" and "LL_4.1" in hms.COLUMNS
    names = pd.read_parquet(_load(hms_folder).files("spectrogram")[0]).columns
    assert set(hms.COLUMNS) == set(names) - {"time"} and len(hms.COLUMNS) == 400
    assert names[0] == "time" and names[101] == "RL_0.59", "the file's own order is another"


def test_gaps_are_nan_and_zeros_stay(hms_folder: Path) -> None:
    dataset = _load(hms_folder, "eeg")
    of = {(row.group_id, row.unit_id[-1]): i for i, row in enumerate(dataset.units.itertuples())}
    gap = np.isnan(dataset.recording("spectrogram", of["40000", "0"])).all((0, 1))
    np.testing.assert_array_equal(np.flatnonzero(gap), np.arange(6))  # rows 0-9 are empty, the window starts at row 4
    zeros = dataset.recording("spectrogram", of["40001", "0"])
    assert (zeros[:, :, 16:26] == 0).all() and not (zeros[:, :, 26:] == 0).any()


def test_a_recording_shorter_than_ten_minutes_ends_in_nan(make_hms_folder: Callable[..., Path], tmp_path: Path) -> None:
    dataset = _load(make_hms_folder(tmp_path / "a", patients=2, rows=50), "eeg")
    window = dataset.recording("spectrogram", 1)  # offset 8.5 s: rows 4 to 49
    assert np.isfinite(window[:, :, :46]).any() and np.isnan(window[:, :, 46:]).all()


def test_both_types_of_time_are_read(hms_folder: Path) -> None:
    dataset = _load(hms_folder, "eeg")
    types = {pd.read_parquet(path)["time"].dtype.name for path in dataset.files("spectrogram")}
    assert types == {"int16", "int64"}
    assert all(np.isfinite(dataset.recording("spectrogram", i)).any() for i in range(len(dataset.units)))


def test_another_kind_of_recording_is_refused(hms_folder: Path) -> None:
    for ask in (lambda d: d.files("eeg"), lambda d: d.recording("eeg", 0)):
        with pytest.raises(ConfigError, match="needs recordings of kind 'eeg'; dataset 'hms' has spectrogram"):
            ask(_load(hms_folder))


def test_the_test_part_has_a_unit_a_row_and_no_targets(hms_folder: Path) -> None:
    dataset = hms.load_test(hms_folder)
    assert dataset.units["unit_id"].tolist() == ["3911565283"] and dataset.targets is None
    assert np.isfinite(dataset.recording("spectrogram", 0)).all()
    assert dataset.fingerprint != _load(hms_folder).fingerprint


def test_a_submission_looks_like_the_sample(hms_folder: Path, tmp_path: Path) -> None:
    hms.write_submission(tmp_path / "submission.csv", ["3911565283"], np.array([[0.1, 0.2, 0.3, 0.1, 0.1, 0.1]]))
    written, sample = (pd.read_csv(f) for f in (tmp_path / "submission.csv", hms_folder / "sample_submission.csv"))
    assert written.columns.tolist() == sample.columns.tolist()
    assert written["eeg_id"].tolist() == sample["eeg_id"].tolist()
    np.testing.assert_allclose(written.iloc[:, 1:].sum(axis=1), 1)
    assert written["gpd_vote"].iat[0] == pytest.approx(1 / 3)
