"""Whatever is wrong with the competition's folder is said in one sentence that names the file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hms_ray.datasets import hms
from hms_ray.errors import DataError
from hms_ray.features import _store, kaggle_spectrogram

Edit = Callable[[pd.DataFrame], pd.DataFrame]


@pytest.fixture
def folder(make_hms_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two patients to spoil, and an empty cache."""
    monkeypatch.setenv("HMS_RAY_CACHE", str(tmp_path / "cache"))
    return make_hms_folder(tmp_path / "hms", patients=2)


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
    assert "nowhere: no train.csv there; --data names the competition's folder" in message


def test_ids_without_a_file_are_counted_and_named(folder: Path) -> None:
    (folder / "train_spectrograms" / "2147483300.parquet").unlink()
    message = _message(lambda: hms.load(folder, hms.Params()))
    assert "1 of the 2 files that train.csv names are missing, the first is 2147483300.parquet" in message


def test_a_link_to_nowhere_is_a_missing_file(folder: Path) -> None:
    path = folder / "train_spectrograms" / "2147483300.parquet"
    path.unlink()
    path.symlink_to(folder / "not" / "fetched")
    assert "the first is 2147483300.parquet" in _message(lambda: hms.load(folder, hms.Params()))


def test_a_missing_folder_is_named(folder: Path) -> None:
    (folder / "train_spectrograms").rename(folder / "spectrograms")
    assert _message(lambda: hms.load(folder, hms.Params())) == f"{folder / 'train_spectrograms'}: no such folder"


def test_a_test_row_given_twice_is_named(folder: Path) -> None:
    _edit(folder / "test.csv", lambda table: pd.concat([table, table]))
    assert "test.csv: eeg_id 3911565283 stands twice" in _message(lambda: hms.load_test(folder))


def _not_parquet(path: Path) -> None:
    path.write_text("time,LL_0.59\n1,2.5\n")


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def _spoilt_inside(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:1000] + b"\xff" * 3000 + content[4000:])


def _without_a_column(path: Path) -> None:
    pd.read_parquet(path).drop(columns="RP_19.92").to_parquet(path)


def _with_text(path: Path) -> None:
    pd.read_parquet(path).assign(**{"RP_19.92": "x"}).to_parquet(path)


def _without_rows(path: Path) -> None:
    pd.read_parquet(path).iloc[:0].to_parquet(path)


def _too_short(path: Path) -> None:
    pd.read_parquet(path).iloc[:10].to_parquet(path)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_not_parquet, "not a parquet file: it begins with b'time'"),
        (_truncated, "truncated parquet"),
        (_spoilt_inside, "broken parquet"),
        (_without_a_column, "missing column 'RP_19.92'"),
        (_with_text, "column 'RP_19.92' must hold numbers, but holds"),
        (_without_rows, "it has 0 s, but a label's offset is"),
        (_too_short, "it has 20 s, but a label's offset is"),
    ],
)
def test_a_broken_recording_is_named_and_leaves_no_store(
    folder: Path, tmp_path: Path, spoil: Callable[[Path], None], sentence: str
) -> None:
    path = folder / "train_spectrograms" / "2147483300.parquet"
    spoil(path)
    dataset, params = hms.load(folder, hms.Params()), kaggle_spectrogram.Params()
    message = _message(lambda: _store.prepare(dataset, "kaggle_spectrogram", params, lambda done, total: None))
    assert message.startswith(f"{path}: ") and sentence in message
    assert list((tmp_path / "cache").rglob("*.npy")) == []
    assert not _store.store_path(dataset, "kaggle_spectrogram", params).exists()


def test_an_offset_outside_the_file_is_named(folder: Path) -> None:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[table["eeg_id"] == 4294950000, "spectrogram_label_offset_seconds"] = 99999.0
        return table

    _edit(folder / "train.csv", change)
    dataset = hms.load(folder, hms.Params(rows="eeg"))  # sorted by eeg_id: the last unit is the edited one
    message = _message(lambda: dataset.recording("spectrogram", 3))
    assert message == f"{dataset.files('spectrogram')[3]}: it has 640 s, but a label's offset is 99999 s"


def test_a_recording_without_any_value_is_an_empty_image(folder: Path) -> None:
    path = folder / "train_spectrograms" / "2147483000.parquet"
    table = pd.read_parquet(path)
    table.loc[:, table.columns != "time"] = np.nan
    table.to_parquet(path)
    dataset = hms.load(folder, hms.Params(rows="eeg"))
    image = kaggle_spectrogram.compute(dataset, 3, kaggle_spectrogram.Params())
    np.testing.assert_array_equal(image, np.zeros((1, 400, 300)))
