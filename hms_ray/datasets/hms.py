"""HMS - Harmful Brain Activity Classification: the competition's folder, real or simulated.

Layout and traps: https://www.kaggle.com/competitions/hms-harmful-brain-activity-classification/data
"""

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from hms_ray import files
from hms_ray.datasets import _table
from hms_ray.errors import DataError
from hms_ray.params import Params as Strict
from hms_ray.tasks import votes

CLASSES = ("seizure", "lpd", "gpd", "lrda", "grda", "other")
VOTES = [f"{name}_vote" for name in CLASSES]
KEYS = ["eeg_id", "eeg_sub_id", "spectrogram_id", "patient_id"]
OFFSETS = ["eeg_label_offset_seconds", "spectrogram_label_offset_seconds"]
TEST_KEYS = ["eeg_id", "spectrogram_id", "patient_id"]

PANELS = ("LL", "LP", "RL", "RP")
BINS_HZ = np.arange(3, 103) * 200 / 1024  # 0.59 ... 19.92 Hz, the grid of the supplied spectrograms
LABELS_HZ = np.floor(BINS_HZ * 100 + 0.5) / 100  # halves go up: 3.125 Hz is the column LL_3.13
COLUMNS = [f"{panel}_{hz}" for panel in PANELS for hz in LABELS_HZ.tolist()]
ROW_S = 2  # one spectrogram row lasts two seconds
ROWS = 300  # ten minutes, the labelled ten seconds in their middle


class Params(Strict):
    """Which rows are units."""

    rows: Literal["period", "eeg", "label"] = Field(
        "period",
        description="period: a run of windows with the same votes; label: distinct (eeg, votes); eeg: one an EEG",
    )


@dataclass(frozen=True)
class HmsDataset(_table.Dataset):
    """Units of the competition's train or test part; recordings of kind "spectrogram" are (4, 100, 300)."""

    KINDS: ClassVar[tuple[str, ...]] = ("spectrogram",)
    part: str = "train"

    def files(self, kind: str) -> list[Path]:
        """Return each unit's spectrogram file."""
        self.require(kind, "files")
        return [self._path(i) for i in self.units["spectrogram_id"]]

    def recording(self, kind: str, i: int) -> np.ndarray:
        """Return the ten minutes around unit i: (panel LL LP RL RP, frequency, time), rows that are missing are NaN."""
        self.require(kind, "recording")
        unit = self.units.iloc[i]
        return _window(self._path(unit["spectrogram_id"]), unit["spectrogram_offset_s"])

    def _path(self, spectrogram_id: int) -> Path:
        return self.root / f"{self.part}_spectrograms" / f"{int(spectrogram_id)}.parquet"


def load(root: Path, params: Params) -> HmsDataset:
    """Read train.csv and group its rows into units.

    Raises:
        DataError: a column, a file or a vote is not as the competition has it; nothing else has been read.
    """
    root = _folder(root, "train.csv")
    table = _read_csv(root / "train.csv", [*KEYS, *OFFSETS, *VOTES])
    counts = _vote_counts(table, root / "train.csv")
    _check_eegs(table, root / "train.csv")
    units, counts = _units(table, counts, params.rows)
    units["stratum"] = [f"{CLASSES[c]}-{_panel(n)}" for c, n in zip(counts.argmax(1), units["votes"], strict=True)]
    targets = counts / counts.sum(1, keepdims=True)
    return _dataset(root, "train", units, targets, params.rows)


def load_test(root: Path) -> HmsDataset:
    """Read test.csv: one unit a row, whose recording begins at its file's start."""
    root = _folder(root, "test.csv")
    table = _read_csv(root / "test.csv", TEST_KEYS)
    units = pd.DataFrame(
        {
            "unit_id": table["eeg_id"].astype(str),
            "group_id": table["patient_id"].astype(str),
            "spectrogram_id": table["spectrogram_id"],
            "spectrogram_offset_s": 0.0,
        }
    )
    if units["unit_id"].duplicated().any():
        raise DataError(
            f"{root / 'test.csv'}: eeg_id {units['unit_id'][units['unit_id'].duplicated()].iat[0]} stands twice"
        )
    return _dataset(root, "test", units, None, "test")


def write_submission(path: Path, unit_ids: list[str], probs: np.ndarray) -> None:
    """Write eeg_id and six `<class>_vote` columns, as the competition wants them; rows sum to 1."""
    table = pd.DataFrame(probs / probs.sum(1, keepdims=True), columns=VOTES)
    table.insert(0, "eeg_id", unit_ids)
    files.write_text(path, table.to_csv(index=False))


def _dataset(root: Path, part: str, units: pd.DataFrame, targets: np.ndarray | None, rows: str) -> HmsDataset:
    sizes = _sizes(root / f"{part}_spectrograms", units["spectrogram_id"], root / f"{part}.csv")
    mark = files.fingerprint((root / f"{part}.csv").read_bytes(), rows, sizes)
    return HmsDataset("hms", root, votes.Task(CLASSES), units.reset_index(drop=True), targets, mark, part)


def _folder(root: Path, table: str) -> Path:
    root = Path(root).resolve()
    if not (root / table).is_file():
        raise DataError(
            f"{root}: no {table} there; --data names the competition's folder (train.csv, train_spectrograms/ ...)"
        )
    return root


def _read_csv(path: Path, columns: list[str]) -> pd.DataFrame:
    try:
        table = pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable CSV ({' '.join(str(error).split())})") from error
    missing = [name for name in columns if name not in table]
    if missing:
        raise DataError(f"{path}: missing column {', '.join(missing)}; it has {', '.join(table.columns)}")
    if table.empty:
        raise DataError(f"{path}: it has no rows")
    for name in columns:
        _check_numbers(path, table[name], whole=name not in OFFSETS)
    return table.astype({name: np.int64 for name in columns if name not in OFFSETS})


def _check_numbers(path: Path, column: pd.Series, whole: bool) -> None:
    """Ids and votes must be whole numbers that float64 holds exactly, offsets finite and not negative."""
    numbers = pd.to_numeric(column, errors="coerce").astype(np.float64)
    huge = np.abs(numbers) >= 2**53
    bad = ~np.isfinite(numbers) | (huge | (numbers % 1 != 0) if whole else numbers < 0)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        kind = "whole number" if whole else "number from 0 on"
        limit = " below 2^53" if whole and huge.iat[row] else ""
        value = column.tolist()[row]
        raise DataError(f"{path}: row {row + 2}: {column.name} must be a {kind}{limit}, but is {value!r}")


def _vote_counts(table: pd.DataFrame, path: Path) -> np.ndarray:
    """Return the votes (R, K); negative and all-zero rows are refused."""
    counts = table[VOTES].to_numpy()
    for bad, rule in (((counts < 0).any(1), "votes must not be negative"), (counts.sum(1) == 0, "votes are all zero")):
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise DataError(
                f"{path}: row {row + 2} (eeg_id {table['eeg_id'].iat[row]}): {rule}: {counts[row].tolist()}"
            )
    return counts


def _check_eegs(table: pd.DataFrame, path: Path) -> None:
    """An EEG is of one patient and one spectrogram, and its windows are numbered."""
    twice = table.duplicated(["eeg_id", "eeg_sub_id"])
    if twice.any():
        eeg, window = table.loc[twice.idxmax(), ["eeg_id", "eeg_sub_id"]]
        raise DataError(f"{path}: eeg_id {eeg}, eeg_sub_id {window} stands twice")
    for name in ("patient_id", "spectrogram_id"):
        several = table.groupby("eeg_id")[name].nunique() > 1
        if several.any():
            raise DataError(f"{path}: eeg_id {several.idxmax()} has several values of {name}; an EEG has one")


def _units(table: pd.DataFrame, counts: np.ndarray, rows: str) -> tuple[pd.DataFrame, np.ndarray]:
    """Group windows into units; return the units (unit_id ... offset) and their votes (N, K)."""
    order = np.lexsort((table["eeg_sub_id"], table["eeg_id"]))
    table, counts = table.iloc[order].reset_index(drop=True), counts[order]
    eeg = table["eeg_id"].to_numpy()
    if rows == "eeg":
        key = pd.Series(eeg)
    elif rows == "label":
        key = pd.Series(list(zip(eeg, map(bytes, counts.astype(np.int64)), strict=True)))
    else:
        starts = np.r_[True, (eeg[1:] != eeg[:-1]) | (counts[1:] != counts[:-1]).any(1)]
        key = pd.Series(np.cumsum(starts))
    number, _ = pd.factorize(key)
    first = np.unique(number, return_index=True)[1]
    total = np.zeros((len(first), len(CLASSES)))
    np.add.at(total, number, counts)
    head = table.iloc[first]
    unit_id = head["eeg_id"].astype(str)
    units = pd.DataFrame(
        {
            "unit_id": unit_id if rows == "eeg" else unit_id + "-" + head["eeg_sub_id"].astype(str),
            "group_id": head["patient_id"].astype(str),
            # the largest panel that saw one window: summing windows would make experts of laymen
            "votes": pd.Series(counts.sum(1)).groupby(number).max().to_numpy(),
            "spectrogram_id": head["spectrogram_id"],
            "spectrogram_offset_s": table["spectrogram_label_offset_seconds"].groupby(number).mean().to_numpy(),
        }
    )
    return units.reset_index(drop=True), total


def _panel(votes_cast: int) -> str:
    """Name the panel by its size; rows with 10 votes and more are like the hidden test."""
    return "1-2" if votes_cast < 3 else "3-9" if votes_cast < 10 else "10+"


def _sizes(folder: Path, ids: pd.Series, table: Path) -> dict[str, int]:
    """Return the size of each recording's file; ids without a file are refused."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    found = {entry.name: entry.stat().st_size for entry in os.scandir(folder) if entry.is_file()}
    names = [f"{i}.parquet" for i in sorted(set(ids))]
    missing = [name for name in names if name not in found]
    if missing:
        few = f"{len(missing)} of the {len(names)} files that {table.name} names"
        raise DataError(f"{folder}: {few} are missing, the first is {missing[0]}")
    return {name: found[name] for name in names}


@lru_cache(maxsize=16)
def _spectrogram(path: Path) -> np.ndarray:
    """Read one file as (rows, 4 panels x 100 bins); units of one file follow each other: one a thread is kept."""
    return files.read_array(path, COLUMNS)


def _window(path: Path, offset_s: float) -> np.ndarray:
    rows = _spectrogram(path)
    start = int(offset_s // ROW_S)
    if not 0 <= start < len(rows):
        raise DataError(f"{path}: it has {len(rows) * ROW_S} s, but a label's offset is {offset_s:g} s")
    window = np.full((ROWS, len(COLUMNS)), np.nan, dtype=np.float32)
    found = rows[start : start + ROWS]
    window[: len(found)] = found
    return window.T.reshape(len(PANELS), len(BINS_HZ), ROWS)
