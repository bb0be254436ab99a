"""Units, targets and windows of the competition's folder, on tiny folders whose answer is known."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_ray.core import files
from hms_ray.core.errors import ConfigError
from hms_ray.core.recordings import EEG, SPECTROGRAM
from hms_ray.datasets import hms

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
        ("label", [f"{SECOND}-0", f"{SECOND}-2", f"{FIRST}-0"], [0.5, 0, 1], [27, 36, 8.5]),
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
    np.testing.assert_allclose(dataset.windows["spectrogram"].middle_s[mine], offsets)
    first = 24 * np.array([unit.startswith(SECOND) for unit in unit_ids])  # the second EEG begins 24 s later
    np.testing.assert_allclose(dataset.windows["eeg"].middle_s[mine], offsets - first)
    assert units["votes"].tolist() == [2] * (len(units) - 1) + [12]
    assert units["stratum"].iloc[-1] == "seizure-10+" and units["stratum"].iloc[0].endswith("-1-2")


def test_a_period_ends_with_its_eeg(make_hms_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_hms_folder(tmp_path / "a", patients=2)
    _edit(folder, lambda table: table.assign(**{f"{name}_vote": 3 for name in hms.CLASSES}))
    assert [len(_load(folder, rows).units) for rows in ("period", "label", "eeg")] == [4, 4, 4]


def test_units_are_what_the_contract_says(dataset: hms.HmsDataset) -> None:
    units = dataset.units
    assert units["unit_id"].is_unique and units.index.tolist() == list(range(len(units)))
    assert units["votes"].dtype == np.int64 and all(
        units[name].map(type).eq(str).all() for name in ("unit_id", "group_id")
    )
    assert dataset.targets.shape == (len(units), 6) and dataset.targets.dtype == np.float64
    dataset.task.check_targets(dataset.targets, "tiny")
    assert dataset.task.classes == ("seizure", "lpd", "gpd", "lrda", "grda", "other")
    identity = dataset.identity()
    assert (identity["name"], identity["units"], identity["groups"]) == ("hms", len(units), 6)


def test_ids_above_31_bits_keep_every_digit(hms_folder: Path) -> None:
    dataset = _load(hms_folder, "eeg")
    assert dataset.units["unit_id"].astype(np.int64).max() == 4_294_950_000
    assert dataset.windows["eeg"].names.tolist() == dataset.units["unit_id"].tolist()
    assert (dataset.windows["spectrogram"].names.astype(np.int64) > 2**31).any()
    assert all(dataset.path(kind, name).is_file() for kind in dataset.KINDS for name in dataset.files(kind))


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


def test_fingerprints_follow_labels_and_rule_and_each_kind_of_recording(
    make_hms_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_hms_folder(tmp_path / "a", patients=2)
    prints = [_load(folder).fingerprint]
    assert _load(folder).fingerprint == prints[0]
    assert _load(make_hms_folder(tmp_path / "copy", patients=2)).fingerprint == prints[0], "a copy is the same data"
    prints.append(_load(folder, "eeg").fingerprint)
    _edit(folder, lambda table: table.assign(lpd_vote=table["lpd_vote"] + 1))
    prints.append(_load(folder).fingerprint)
    assert len(set(prints)) == 3
    before = _load(folder).identity()["recordings"]
    first = sorted((folder / "train_eegs").iterdir())[0]
    files.write_bytes(first, first.read_bytes() + b" ")
    after = _load(folder).identity()["recordings"]
    assert after["eeg"] != before["eeg"] and after["spectrogram"] == before["spectrogram"]
    (folder / "train_eegs").rename(folder / "not_fetched")
    assert _load(folder).identity()["recordings"] == {"spectrogram": before["spectrogram"]}


def test_a_spectrograms_window_is_300_rows_from_half_the_offset_in_panel_order(hms_folder: Path) -> None:
    dataset = _load(hms_folder)
    for i in (0, 3, 9):
        start = int(dataset.windows["spectrogram"].middle_s[i] // 2)
        window = dataset.window("spectrogram", i)
        assert window.shape == (400, 300) and window.dtype == np.float32
        table = pd.read_parquet(dataset.path("spectrogram", dataset.windows["spectrogram"].names[i]))
        for panel, image in zip(("LL", "LP", "RL", "RP"), window.reshape(4, 100, 300), strict=True):
            expected = table[[name for name in table.columns if name.startswith(f"{panel}_")]].to_numpy().T
            expected = expected[:, start : start + 300]
            np.testing.assert_array_equal(image[:, : expected.shape[1]], expected)


def test_an_eegs_window_is_50_s_from_the_offset_in_the_order_of_electrodes(hms_folder: Path) -> None:
    dataset = _load(hms_folder)
    for i in (0, 3, 9):
        start = round(200 * dataset.windows["eeg"].middle_s[i])
        window = dataset.window("eeg", i)
        assert window.shape == (20, 10_000) and window.dtype == np.float32
        table = pd.read_parquet(dataset.path("eeg", dataset.windows["eeg"].names[i]))
        expected = table[list(EEG.channels)].to_numpy().T[:, start : start + 10_000]
        np.testing.assert_array_equal(window, expected)


def test_columns_are_named_as_in_the_files(hms_folder: Path) -> None:
    names = SPECTROGRAM.channels
    assert names[0] == "LL_0.59" and names[-1] == "RP_19.92" and "LL_4.1" in names and len(names) == 400
    dataset = _load(hms_folder)
    found = pd.read_parquet(dataset.path("spectrogram", dataset.files("spectrogram")[0])).columns
    assert set(names) == set(found) - {"time"}
    assert found[0] == "time" and found[101] == "RL_0.59", "the file's own order is another"
    assert " ".join(EEG.channels) == "Fp1 F3 C3 P3 F7 T3 T5 O1 Fz Cz Pz Fp2 F4 C4 P4 F8 T4 T6 O2 EKG"
    assert pd.read_parquet(dataset.path("eeg", FIRST)).columns.tolist() == list(EEG.channels)


def test_a_spectrogram_serves_several_eegs(hms_folder: Path) -> None:
    dataset = _load(hms_folder, "eeg")
    assert len(dataset.files("eeg")) == 12 and len(dataset.files("spectrogram")) == 6
    mine = (dataset.units["group_id"] == "40000").to_numpy()
    assert dataset.windows["eeg"].names[mine].tolist() == [SECOND, FIRST]
    assert dataset.windows["spectrogram"].names[mine].tolist() == ["2147483000"] * 2
    for i in np.flatnonzero(mine):
        assert not np.array_equal(dataset.window("spectrogram", i), dataset.window("spectrogram", 5))


def test_gaps_are_nan_and_zeros_stay(hms_folder: Path) -> None:
    dataset = _load(hms_folder, "eeg")
    of = {(row.group_id, row.unit_id[-1]): i for i, row in enumerate(dataset.units.itertuples())}
    gap = np.isnan(dataset.window("spectrogram", of["40000", "0"])).all(0)
    np.testing.assert_array_equal(np.flatnonzero(gap), np.arange(6))  # rows 0-9 are empty, the window starts at row 4
    zeros = dataset.window("spectrogram", of["40001", "0"])
    assert (zeros[:, 16:26] == 0).all() and not (zeros[:, 26:] == 0).any()
    gap = np.isnan(dataset.window("eeg", of["40000", "0"]))
    assert gap[2, 300:1300].all() and gap.sum() == 1000  # C3 from 10 s to 15 s, the window starts at 8.5 s
    flat = dataset.window("eeg", of["40001", "0"])
    assert (flat[18] == 0).all() and not (flat[:18] == 0).all(1).any()


def test_what_a_recording_lacks_of_a_window_is_nan(make_hms_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_hms_folder(tmp_path / "a", patients=1, rows=50)
    path = folder / "train_eegs" / f"{FIRST}.parquet"
    pd.read_parquet(path).iloc[:6000].to_parquet(path)  # 30 s
    dataset = _load(folder, "eeg")
    for kind, found in (("spectrogram", 46), ("eeg", 4300)):  # offset 8.5 s: row 4, sample 1700
        window = dataset.window(kind, 1)
        assert np.isfinite(window[:, found - 1]).any() and np.isnan(window[:, found:]).all()


def test_both_types_of_time_are_read(hms_folder: Path) -> None:
    dataset = _load(hms_folder, "eeg")
    names = dataset.files("spectrogram")
    types = {pd.read_parquet(dataset.path("spectrogram", name))["time"].dtype.name for name in names}
    assert types == {"int16", "int64"}
    assert all(np.isfinite(dataset.read("spectrogram", name)).any() for name in names)


def test_another_kind_of_recording_is_refused(hms_folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"^who needs recordings of kind 'mri'; dataset 'hms' has eeg, spectrogram$"):
        _load(hms_folder).require("mri", "who")


def test_the_test_part_has_a_unit_a_row_and_no_targets(hms_folder: Path) -> None:
    dataset = hms.load_test(hms_folder)
    assert dataset.units["unit_id"].tolist() == ["3911565283"] and dataset.targets is None
    for kind in dataset.KINDS:
        dataset.require(kind, "a test")
        assert np.isfinite(dataset.window(kind, 0)).all()
        np.testing.assert_array_equal(dataset.window(kind, 0), dataset.read(kind, dataset.files(kind)[0])[:, :10_000])
    assert dataset.fingerprint != _load(hms_folder).fingerprint


def test_a_submission_looks_like_the_sample(hms_folder: Path, tmp_path: Path) -> None:
    hms.write_submission(tmp_path / "submission.csv", ["3911565283"], np.array([[0.1, 0.2, 0.3, 0.1, 0.1, 0.1]]))
    written, sample = (pd.read_csv(f) for f in (tmp_path / "submission.csv", hms_folder / "sample_submission.csv"))
    assert written.columns.tolist() == sample.columns.tolist()
    assert written["eeg_id"].tolist() == sample["eeg_id"].tolist()
    np.testing.assert_allclose(written.iloc[:, 1:].sum(axis=1), 1)
    assert written["gpd_vote"].iat[0] == pytest.approx(1 / 3)
