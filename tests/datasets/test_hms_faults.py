"""Whatever is wrong with the competition's folder is said in one sentence that names the file."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from hms_ray import registry
from hms_ray.core import recordings
from hms_ray.core.errors import DataError
from hms_ray.datasets import hms
from hms_ray.features._feature import FeatureRef
from hms_ray.store import prepare as preparing
from hms_ray.store.inputs import open_inputs
from hms_ray.store.prepare import InputParams

Edit = Callable[[pd.DataFrame], pd.DataFrame]


@pytest.fixture(scope="module")
def whole(make_hms_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two patients."""
    return make_hms_folder(tmp_path_factory.mktemp("whole") / "hms", patients=2)


@pytest.fixture
def folder(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to spoil, and an empty cache."""
    monkeypatch.setenv("HMS_RAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HMS_RAY_STORE", raising=False)
    return shutil.copytree(whole, tmp_path / "hms")


def _edit(path: Path, change: Edit) -> None:
    change(pd.read_csv(path)).to_csv(path, index=False)


def _set(column: str, value: Any, row: int = 3) -> Edit:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table = table.astype({column: object})
        table.loc[row, column] = value
        return table

    return change


def _message(use: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        use()
    assert "\n" not in str(caught.value)
    return str(caught.value)


CELLS = [
    ("lpd_vote", "three", "row 5: lpd_vote must be a whole number, but is 'three'"),
    ("lpd_vote", "", "row 5: lpd_vote must be a whole number, but is nan"),
    ("lpd_vote", 1.5, "row 5: lpd_vote must be a whole number, but is 1.5"),
    ("lpd_vote", -1, "row 5 (eeg_id 4294950000): votes must not be negative: [12, -1, 0, 0, 0, 0]"),
    ("lpd_vote", 1e300, "row 5: lpd_vote must be a whole number below 2^53, but is 1e+300"),
    ("seizure_vote", 0, "row 5 (eeg_id 4294950000): votes are all zero: [0, 0, 0, 0, 0, 0]"),
    ("eeg_id", "", "row 5: eeg_id must be a whole number, but is nan"),
    ("eeg_id", "NaN", "row 5: eeg_id must be a whole number, but is nan"),
    ("eeg_id", "abc", "row 5: eeg_id must be a whole number, but is 'abc'"),
    ("eeg_id", 10**25, "row 5: eeg_id must be a whole number below 2^53, but is"),
    ("eeg_id", 2**63 + 5, "row 5: eeg_id must be a whole number below 2^53, but is"),
    ("patient_id", "", "row 5: patient_id must be a whole number, but is nan"),
    ("patient_id", 7, "eeg_id 4294950000 has several values of patient_id; an EEG has one"),
    ("spectrogram_id", 7, "eeg_id 4294950000 has several values of spectrogram_id; an EEG has one"),
    ("eeg_label_offset_seconds", "x", "row 5: eeg_label_offset_seconds must be a number from 0 on, but is 'x'"),
    ("eeg_label_offset_seconds", "-0.5", "must be a number from 0 on, but is -0.5"),
    ("spectrogram_label_offset_seconds", "", "must be a number from 0 on, but is nan"),
    ("spectrogram_label_offset_seconds", "inf", "must be a number from 0 on, but is inf"),
    ("spectrogram_label_offset_seconds", "-2.0", "must be a number from 0 on, but is -2.0"),
    ("eeg_sub_id", 2, "eeg_id 4294950000, eeg_sub_id 2 stands twice"),
]


@pytest.mark.parametrize(("column", "value", "sentence"), CELLS, ids=[f"{c}={v!r}" for c, v, _ in CELLS])
def test_a_wrong_cell_is_named(folder: Path, column: str, value: Any, sentence: str) -> None:
    _edit(folder / "train.csv", _set(column, value))
    for rows in ("period", "label", "eeg"):
        message = _message(lambda rows=rows: hms.load(folder, hms.Params(rows=rows)))
        assert message.startswith(f"{folder / 'train.csv'}: ") and sentence in message


def test_a_missing_column_is_named(folder: Path) -> None:
    _edit(folder / "train.csv", lambda table: table.drop(columns=["gpd_vote", "patient_id"]))
    message = _message(lambda: hms.load(folder, hms.Params()))
    assert "train.csv: missing column patient_id, gpd_vote; it has eeg_id" in message


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "not a readable CSV"),
        (b"PAR1\x00\xff\xfe", "not a readable CSV"),
        (b"\xff\xfee\x00e\x00g\x00", "not a readable CSV"),
        (b"a,b\n1,2\n1,2,3\n", "not a readable CSV"),
        (b'"abc', "not a readable CSV"),
        (b"eeg_id;votes\n1;2\n", "missing column eeg_id"),
    ],
)
def test_a_file_that_is_no_such_csv_is_named(folder: Path, content: bytes, sentence: str) -> None:
    (folder / "train.csv").write_bytes(content)
    message = _message(lambda: hms.load(folder, hms.Params()))
    assert message.startswith(f"{folder / 'train.csv'}: ") and sentence in message


def test_a_header_without_rows_is_named(folder: Path) -> None:
    _edit(folder / "train.csv", lambda table: table.iloc[:0])
    assert _message(lambda: hms.load(folder, hms.Params())) == f"{folder / 'train.csv'}: it has no rows"


def test_a_folder_of_something_else_is_named(tmp_path: Path) -> None:
    message = _message(lambda: hms.load(tmp_path / "nowhere", hms.Params()))
    assert message.startswith(f"there is no folder {tmp_path / 'nowhere'}; --data names the competition's folder")
    message = _message(lambda: hms.load(tmp_path, hms.Params()))
    assert message.startswith(f"{tmp_path}: no train.csv there; --data names the competition's folder")


FOLDERS = {"eeg": "train_eegs", "spectrogram": "train_spectrograms"}
FEATURES = {"eeg": "raw_eeg", "spectrogram": "kaggle_spectrogram"}
NAMES = {"eeg": "4294949990", "spectrogram": "2147483300"}  # recordings of patient 1
both_kinds = pytest.mark.parametrize("kind", FOLDERS)
both_places = pytest.mark.parametrize("compute", ["prepared", "batch"])


def _prepare(folder: Path, kind: str, compute: str = "prepared", rows: str = "eeg") -> None:
    """Prepare the simplest feature of that kind of recordings."""
    module = registry.load("features", FEATURES[kind])
    dataset = hms.load(folder, hms.Params(rows=rows))
    quiet = lambda label: lambda done, total: None  # noqa: E731
    preparing.prepare(dataset, FeatureRef(FEATURES[kind], module.Params()), InputParams(compute=compute), quiet)


@both_kinds
def test_ids_without_a_file_are_counted_and_named(folder: Path, kind: str) -> None:
    path = folder / FOLDERS[kind] / f"{NAMES[kind]}.parquet"
    path.unlink()
    few = {"eeg": "1 of the 4 files", "spectrogram": "1 of the 2 files"}[kind]
    expected = f"{path.parent}: {few} that features.{FEATURES[kind]} needs are missing, the first is {path.name}"
    assert _message(lambda: _prepare(folder, kind)) == expected
    path.symlink_to(folder / "not" / "fetched")
    assert _message(lambda: _prepare(folder, kind)) == expected, "a link to nowhere is a missing file"


@both_kinds
def test_a_missing_folder_is_named(folder: Path, kind: str) -> None:
    (folder / FOLDERS[kind]).rename(folder / "elsewhere")
    expected = f"{folder / FOLDERS[kind]}: no such folder, but features.{FEATURES[kind]} needs its recordings"
    assert _message(lambda: _prepare(folder, kind)) == expected


@both_kinds
def test_recordings_of_one_kind_are_enough_for_its_features(folder: Path, kind: str) -> None:
    (other,) = set(FOLDERS) - {kind}
    shutil.rmtree(folder / FOLDERS[other])
    _prepare(folder, kind)
    _prepare(folder, kind, "batch")


def test_a_test_row_given_twice_is_named(folder: Path) -> None:
    _edit(folder / "test.csv", lambda table: pd.concat([table, table]))
    assert "test.csv: eeg_id 3911565283 stands twice" in _message(lambda: hms.load_test(folder))


def _not_parquet(path: Path) -> None:
    path.write_text("time,LL_0.59\n1,2.5\n")  # a CSV that was renamed


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def _spoilt_inside(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:1000] + b"\xff" * 3000 + content[4000:])


def _without_a_column(path: Path) -> None:
    table = pd.read_parquet(path)
    table.drop(columns=table.columns[-1]).to_parquet(path)


def _with_text(path: Path) -> None:
    table = pd.read_parquet(path)
    table.assign(**{table.columns[-1]: "x"}).to_parquet(path)


def _with_truths(path: Path) -> None:
    table = pd.read_parquet(path)
    table.assign(**{table.columns[-1]: True}).to_parquet(path)


def _without_rows(path: Path) -> None:
    pd.read_parquet(path).iloc[:0].to_parquet(path)


def _too_short(path: Path) -> None:
    table = pd.read_parquet(path)
    table.iloc[: 10 if "time" in table else 1000].to_parquet(path)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


BROKEN: list[tuple[Callable[[Path], None], dict[str, str]]] = [
    (_not_parquet, dict.fromkeys(FOLDERS, "not a parquet file: it begins with b'time', not b'PAR1' (a renamed CSV?)")),
    (_empty, dict.fromkeys(FOLDERS, "not a parquet file: it begins with b''")),
    (_truncated, dict.fromkeys(FOLDERS, "truncated parquet")),
    (_spoilt_inside, dict.fromkeys(FOLDERS, "broken parquet")),
    (_without_a_column, {"eeg": "missing column 'EKG'; it has Fp1, F3", "spectrogram": "missing column 'RP_19.92'"}),
    (_with_text, {"eeg": "column 'EKG' must hold numbers", "spectrogram": "column 'RP_19.92' must hold numbers"}),
    (
        _with_truths,
        {"eeg": "'EKG' must hold numbers, but holds bool", "spectrogram": "must hold numbers, but holds bool"},
    ),
    (_without_rows, dict.fromkeys(FOLDERS, "it has 0 s, but a label's offset is")),
    (_too_short, {"eeg": "it has 5 s, but a label's", "spectrogram": "it has 20 s, but a label's offset is"}),
]


@both_places
@both_kinds
@pytest.mark.parametrize(("spoil", "sentence"), BROKEN, ids=[spoil.__name__ for spoil, _ in BROKEN])
def test_a_broken_recording_is_named_and_leaves_no_store(
    folder: Path, tmp_path: Path, spoil: Callable[[Path], None], sentence: dict[str, str], kind: str, compute: str
) -> None:
    path = folder / FOLDERS[kind] / f"{NAMES[kind]}.parquet"
    spoil(path)
    message = _message(lambda: _prepare(folder, kind, compute))
    assert message.startswith(f"{path}: ") and sentence[kind] in message
    assert list((tmp_path / "cache").rglob("manifest.json")) == []


@both_kinds
@pytest.mark.parametrize("spoil", [_not_parquet, _truncated, _without_a_column, _with_text])
def test_reading_a_broken_file_names_it_as_well(folder: Path, spoil: Callable[[Path], None], kind: str) -> None:
    path = folder / FOLDERS[kind] / f"{NAMES[kind]}.parquet"
    spoil(path)
    dataset = hms.load(folder, hms.Params())
    assert _message(lambda: dataset.read(kind, NAMES[kind])).startswith(f"{path}: ")


@both_places
@pytest.mark.parametrize("rows", ["period", "label", "eeg"])
@both_kinds
def test_an_offset_beyond_the_files_end_is_named(folder: Path, kind: str, rows: str, compute: str) -> None:
    length = {"eeg": 66, "spectrogram": 640}[kind]
    _edit(folder / "train.csv", _set(f"{kind}_label_offset_seconds", float(length), row=7))  # the last of its EEG
    name = {"eeg": "4294949999", "spectrogram": "2147483000"}[kind]
    path = folder / FOLDERS[kind] / f"{name}.parquet"
    message = _message(lambda: _prepare(folder, kind, compute, rows))
    assert message == f"{path}: it has {length} s, but a label's offset is {length} s"
    other = {"eeg": "spectrogram", "spectrogram": "eeg"}[kind]
    _prepare(folder, other, compute, rows)


@both_kinds
def test_columns_stand_in_any_order_among_others(folder: Path, kind: str) -> None:
    dataset = hms.load(folder, hms.Params())
    before, path = dataset.read(kind, NAMES[kind]), dataset.path(kind, NAMES[kind])
    table = pd.read_parquet(path)
    table[[*table.columns[::-1]]].assign(remark="x").to_parquet(path)
    np.testing.assert_array_equal(dataset.read(kind, NAMES[kind]), before)


@both_kinds
def test_whole_numbers_doubles_and_nulls_are_read(folder: Path, kind: str) -> None:
    dataset, channels = hms.load(folder, hms.Params()), recordings.KINDS[kind].channels
    path = dataset.path(kind, NAMES[kind])
    table = pd.read_parquet(path)
    rows = len(table)
    kinds = [pa.int16(), pa.int64(), pa.float64(), pa.float32(), pa.float16()]
    columns = [pa.array([None, *np.arange(1, rows) % 1000], kinds[i % len(kinds)]) for i in range(len(channels))]
    columns[1] = pa.nulls(rows)  # a column without any value has no type
    pq.write_table(pa.table(columns, list(channels)), path)
    found = dataset.read(kind, NAMES[kind])
    assert found.dtype == np.float32 and np.isnan(found[:, 0]).all() and np.isnan(found[1]).all()
    np.testing.assert_array_equal(
        np.delete(found, 1, 0)[:, 1:], np.tile(np.arange(1.0, rows) % 1000, (len(found) - 1, 1))
    )


def _overwrite(folder: Path, kind: str, change: Callable[[np.ndarray], None]) -> None:
    path = folder / FOLDERS[kind] / f"{NAMES[kind]}.parquet"
    table = pd.read_parquet(path)
    values = table[list(recordings.KINDS[kind].channels)].to_numpy(copy=True)
    change(values)
    pd.DataFrame(values, columns=list(recordings.KINDS[kind].channels)).to_parquet(path)


def _example(folder: Path, kind: str, compute: str, dtype: str) -> np.ndarray:
    """The example that training sees of the unit of `NAMES[kind]`."""
    module = registry.load("features", FEATURES[kind])
    dataset, feature = hms.load(folder, hms.Params(rows="eeg")), FeatureRef(FEATURES[kind], module.Params())
    params = InputParams(compute=compute, dtype=dtype)
    stores = preparing.prepare(dataset, feature, params, lambda label: lambda done, total: None)
    unit = np.flatnonzero(dataset.windows[kind].names == NAMES[kind])[-1:]
    return (
        open_inputs(stores, feature, params, dataset.windows, dataset.examples)
        .batch(unit, torch.device("cpu"))
        .numpy()[0]
    )


@pytest.mark.filterwarnings("error::RuntimeWarning")
@both_places
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@both_kinds
def test_outliers_are_kept_and_examples_stay_finite(folder: Path, kind: str, dtype: str, compute: str) -> None:
    extremes = {"eeg": (33_403, -11_014, 4_960), "spectrogram": (206_415, 0, 65_505)}[kind]

    def spoil(values: np.ndarray) -> None:
        values[100:103, -1] = extremes

    _overwrite(folder, kind, spoil)
    dataset = hms.load(folder, hms.Params())
    np.testing.assert_array_equal(dataset.read(kind, NAMES[kind])[-1, 100:103], extremes)
    assert np.isfinite(_example(folder, kind, compute, dtype)).all()


@both_places
@both_kinds
def test_channels_and_recordings_without_values_make_finite_examples(folder: Path, kind: str, compute: str) -> None:
    def lose_a_channel(values: np.ndarray) -> None:
        values[:, 3] = np.nan
        values[20:200, 5] = np.nan

    _overwrite(folder, kind, lose_a_channel)
    some = _example(folder, kind, compute, "float16")
    assert np.isfinite(some).all() and some.std() > 0.05
    for path in (folder.parent / "cache").rglob("x.npy"):
        path.unlink()
    _overwrite(folder, kind, lambda values: values.fill(np.nan))
    nothing = _example(folder, kind, compute, "float16")
    assert np.isfinite(nothing).all() and nothing.std() == 0


@pytest.mark.parametrize(
    ("kind", "offset_s", "step"),
    [
        ("eeg", 2.3, 460),  # 459.99... in binary
        ("eeg", 0.0049, 0),
        ("eeg", 0.29, 58),
        ("eeg", 15.995, 3199),
        ("spectrogram", 5.0, 2),
        ("spectrogram", 5.999, 2),
        ("spectrogram", 6.0, 3),
    ],
)
def test_odd_offsets_begin_at_the_step_they_fall_in(folder: Path, kind: str, offset_s: float, step: int) -> None:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(**{f"{kind}_label_offset_seconds": offset_s})

    _edit(folder / "train.csv", change)
    dataset = hms.load(folder, hms.Params())
    recording = dataset.read(kind, dataset.windows[kind].names[0])
    np.testing.assert_array_equal(dataset.window(kind, 0), recording[:, step : step + recordings.KINDS[kind].steps])


def test_an_eeg_shorter_than_a_window_is_read_to_its_end(folder: Path) -> None:
    path = folder / "train_eegs" / f"{NAMES['eeg']}.parquet"
    pd.read_parquet(path).iloc[:4000].to_parquet(path)  # 20 s, offsets up to 16 s
    example = _example(folder, "eeg", "prepared", "float32")
    assert np.isfinite(example).all() and example.std() > 0
    np.testing.assert_allclose(_example(folder, "eeg", "batch", "float32"), example, atol=1e-4)


def test_an_eeg_whose_consensus_changes_has_several_units(folder: Path) -> None:
    units = {rows: hms.load(folder, hms.Params(rows=rows)).units["unit_id"] for rows in ("period", "label", "eeg")}
    of_one = {rows: [name[11:] for name in ids if name.startswith("4294949999")] for rows, ids in units.items()}
    assert of_one == {"period": ["0", "2", "3"], "label": ["0", "2"], "eeg": [""]}


@pytest.mark.parametrize(("kind", "column"), [("eeg", "T3"), ("spectrogram", "LL_0.59")])
def test_a_column_that_stands_twice_in_a_recording_is_named(folder: Path, kind: str, column: str) -> None:
    path = sorted((folder / f"train_{kind}s").iterdir())[1]
    table = pq.read_table(path)
    pq.write_table(pa.table([*table.columns, table[column]], [*table.column_names, column]), path)
    assert _message(lambda: _prepare(folder, kind)) == f"{path}: column {column!r} stands 2 times; it must stand once"


def test_a_column_that_stands_twice_in_the_table_is_named(folder: Path) -> None:
    path = folder / "train.csv"
    table = pd.read_csv(path)
    pd.concat([table, table[["lpd_vote"]]], axis=1).to_csv(path, index=False)
    message = _message(lambda: hms.load(folder, hms.Params()))
    assert message == f"{path}: column 'lpd_vote' stands 2 times; it must stand once"


@pytest.mark.parametrize("compute", ["prepared", "batch"])
def test_a_spectrogram_of_another_step_is_refused_before_any_work(folder: Path, compute: str) -> None:
    path = sorted((folder / "train_spectrograms").iterdir())[1]
    table = pq.read_table(path)
    time = pa.array(np.arange(1, 1 + len(table)))
    pq.write_table(table.set_column(0, "time", time), path)
    message = _message(lambda: _prepare(folder, "spectrogram", compute))
    assert message == f"{path}: a spectrogram has a row every 2 s, but `time` goes by 1 s"


def _resampled(folder: Path, rate_hz: int, mains_hz: float) -> None:
    """Put EEGs of another rate in the place of the folder's; they hum."""
    for seed, path in enumerate(sorted((folder / "train_eegs").iterdir())):
        t = np.arange(66 * rate_hz) / rate_hz
        noise = np.random.default_rng(seed).standard_normal((20, len(t))).cumsum(1)
        values = (noise + 2 * np.sin(2 * np.pi * mains_hz * t)).astype(np.float32)
        pq.write_table(pa.table(list(values), list(recordings.EEG.channels)), path)


def test_eegs_of_another_rate_are_refused_by_their_hum(folder: Path) -> None:
    _resampled(folder, 256, 50.0)
    message = _message(lambda: _prepare(folder, "eeg"))
    assert message == (
        f"{folder / 'train_eegs'}: EEGs are taken for 200 Hz, but 4 of 4 looked at seem to be of 256 Hz: their mains "
        "hum lies at 39.1 Hz, and none at 50 or 60; the first is 4294949989. Resample them to 200 Hz"
    )


def test_eegs_of_another_length_are_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    _resampled(folder, 256, 5.0)
    _prepare(folder, "eeg")
    assert caplog.messages[0] == (
        f"{folder / 'train_eegs'}: EEGs are taken for 200 Hz, but 4 of 4 looked at are 1.28 times as long as their "
        "labels need, as EEGs of 256 Hz are; the first is 4294949989"
    )


def test_eegs_of_the_right_rate_are_not_accused(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    _resampled(folder, 200, 60.0)
    _prepare(folder, "eeg")
    assert not caplog.messages
