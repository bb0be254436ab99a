"""HMS - Harmful Brain Activity Classification: the competition's folder, real or simulated.

Layout and traps: https://www.kaggle.com/competitions/hms-harmful-brain-activity-classification/data
"""

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from hms_ray.core import files, recordings
from hms_ray.core.errors import ConfigError, DataError, without_secrets
from hms_ray.core.params import Params as Strict
from hms_ray.datasets import _cloned, _csv, _kaggle, _rates, _table
from hms_ray.datasets import _folder as _folder_of
from hms_ray.tasks import votes

CLASSES = ("seizure", "lpd", "gpd", "lrda", "grda", "other")
VOTES = [f"{name}_vote" for name in CLASSES]
KEYS = ["eeg_id", "eeg_sub_id", "spectrogram_id", "patient_id"]
OFFSETS = ["eeg_label_offset_seconds", "spectrogram_label_offset_seconds"]
TEST_KEYS = ["eeg_id", "spectrogram_id", "patient_id"]

HOW = (
    "give --data DIR or set HMS_RAY_DATA. DIR is the competition's folder, or a simulated one: "
    "hms-ray simulate DIR; `--data kaggle` fetches the competition's"
)
NO_DATA = f"no data: {HOW}"
log = logging.getLogger(__name__)
LOOKED_AT = 24  # EEGs whose spectrum is looked at
FOLDERS = {"eeg": "eegs", "spectrogram": "spectrograms"}


class Params(Strict):
    """Which rows are units."""

    rows: Literal["period", "eeg", "label"] = Field(
        "period",
        description="period: a run of windows with the same votes; label: distinct (eeg, votes); eeg: one an EEG",
    )


@dataclass(frozen=True)
class HmsDataset(_table.Dataset):
    """Units of the competition's train or test part, with their EEGs and spectrograms."""

    KINDS: ClassVar[tuple[str, ...]] = ("eeg", "spectrogram")
    part: str = "train"

    def path(self, kind: str, name: str) -> Path:
        """Return the file of an EEG or a spectrogram by its id."""
        return self.root / f"{self.part}_{FOLDERS[kind]}" / f"{int(name)}.parquet"

    def read(self, kind: str, name: str) -> np.ndarray:
        """Return one file as (channels, steps); columns are found by name, in whatever order the file has them."""
        return files.read_channels(self.path(kind, name), recordings.KINDS[kind].channels)

    def steps(self, kind: str, name: str) -> int:
        """Return a file's number of rows; a spectrogram's `time` must go in steps of its kind."""
        path, of = self.path(kind, name), recordings.KINDS[kind]
        steps = files.count_rows(path, of.channels)
        if kind == "spectrogram":
            step_s, wanted_s = files.column_step(path, "time"), 1 / of.rate_hz
            if step_s is not None and step_s != wanted_s:
                raise DataError(
                    f"{path}: a spectrogram has a row every {wanted_s:g} s, but `time` goes by {step_s:g} s"
                )
        return steps

    def check_rate(self, kind: str, steps: Mapping[str, int]) -> None:
        """Look at the EEGs' lengths, and at the mains hum of a few of them."""
        if kind != "eeg":
            return
        of, length = recordings.EEG, self._relative_lengths(steps)
        folder = self.path(kind, "0").parent
        names = sorted(steps)
        some = [names[i] for i in np.unique(np.linspace(0, len(names) - 1, LOOKED_AT).round().astype(int))]
        found = _rates.by_hum(of, {name: self._electrodes(name) for name in some}, length)
        if found and len(found.names) >= max(3, len(some) / 2):
            raise DataError(f"{_seems(folder, found, of)}. Resample them to {of.rate_hz:g} Hz")
        if found and any(_rates.agrees(of, length.get(name), found.rate_hz) for name in found.names):
            log.warning(_seems(folder, found, of))
        elif rate := _rates.by_length(of, length):
            log.warning(_seems(folder, rate, of))

    def _relative_lengths(self, steps: Mapping[str, int]) -> dict[str, float]:
        """Return each EEG's length over what its labels need: the last one's offset and a window."""
        windows, of = self.windows["eeg"], recordings.EEG
        latest = pd.Series(np.maximum(windows.middle_s, windows.last_s)).groupby(windows.names).max()
        return {str(name): steps[str(name)] / of.rate_hz / (s + of.window_s) for name, s in latest.items()}

    def _electrodes(self, name: str) -> np.ndarray:
        """Return the electrodes' values; of a broken file none, for reading all of it will tell."""
        try:
            return files.read_channels(self.path("eeg", name), recordings.EEG.channels[:-1])
        except DataError:
            return np.empty((len(recordings.EEG.channels) - 1, 0), np.float32)


def load(root: Path, params: Params) -> HmsDataset:
    """Read train.csv and group its rows into units.

    Raises:
        DataError: a column, a file or a vote is not as the competition has it; nothing else has been read.
    """
    root = _folder(root, "train.csv")
    table = _read_csv(root / "train.csv", [*KEYS, *OFFSETS, *VOTES])
    counts = _vote_counts(table, root / "train.csv")
    _check_eegs(table, root / "train.csv")
    units, counts, windows = _units(table, counts, params.rows)
    units["stratum"] = [f"{CLASSES[c]}-{_panel(n)}" for c, n in zip(counts.argmax(1), units["votes"], strict=True)]
    targets = counts / counts.sum(1, keepdims=True)
    return _dataset(root, "train", units, targets, windows, params.rows)


def load_test(root: Path) -> HmsDataset:
    """Read test.csv: one unit a row, whose recording begins at its file's start."""
    root = _folder(root, "test.csv")
    table = _read_csv(root / "test.csv", TEST_KEYS)
    units = pd.DataFrame(
        {
            "unit_id": table["eeg_id"].astype(str),
            "group_id": table["patient_id"].astype(str),
        }
    )
    if units["unit_id"].duplicated().any():
        raise DataError(
            f"{root / 'test.csv'}: eeg_id {units['unit_id'][units['unit_id'].duplicated()].iat[0]} stands twice"
        )
    every, zero = np.arange(len(table) + 1), np.zeros(len(table))
    windows = {
        kind: _table.Windows(table[f"{kind}_id"].astype(str).to_numpy(dtype=str), zero, every, zero, zero)
        for kind in FOLDERS
    }
    return _dataset(root, "test", units, None, windows, "test")


def write_submission(path: Path, unit_ids: list[str], probs: np.ndarray) -> None:
    """Write eeg_id and six `<class>_vote` columns, as the competition wants them; rows sum to 1."""
    table = pd.DataFrame(probs / probs.sum(1, keepdims=True), columns=VOTES)
    table.insert(0, "eeg_id", unit_ids)
    files.write_text(path, table.to_csv(index=False))


def locate(data: str | None, cache: Path) -> Path:
    """Return the folder that `--data` names; "kaggle" is the competition's own, fetched by kagglehub into its cache.

    Raises:
        ConfigError: nothing is named, or it cannot be fetched.
    """
    if not data:
        raise ConfigError(NO_DATA)
    if _cloned.is_url(data):
        raise ConfigError(f"--data {without_secrets(data)}: dataset hms is fetched from no address; {HOW}")
    return _kaggle.fetch() if data == "kaggle" else Path(data)


def simulated(
    out: Path, patients: int, seed: int, progress: Callable[[int, int], None], recordings: int | None = None
) -> None:
    """Write simulated EEGs of so many patients, four of each unless it is said, into the folder `out`."""
    from hms_ray import simulate  # scipy.signal takes a second to import, and who reads a folder needs it not

    simulate.simulate(out, 4 * patients if recordings is None else recordings, patients, seed, progress)


def _seems(folder: Path, found: _rates.Found, of: recordings.RecordingKind) -> str:
    """Word what speaks for another rate."""
    if found.line_hz is None:
        why = (
            f"are {found.rate_hz / of.rate_hz:g} times as long as their labels need, as EEGs of {found.rate_hz} Hz are"
        )
    else:
        why = f"seem to be of {found.rate_hz} Hz: their mains hum lies at {found.line_hz:.1f} Hz, and none at 50 or 60"
    return (
        f"{folder}: EEGs are taken for {of.rate_hz:g} Hz, but {len(found.names)} of {found.looked_at} looked at {why}; "
        f"the first is {found.names[0]}"
    )


def _dataset(
    root: Path,
    part: str,
    units: pd.DataFrame,
    targets: np.ndarray | None,
    windows: dict[str, _table.Windows],
    rows: str,
) -> HmsDataset:
    sizes = {kind: _sizes(root / f"{part}_{folder}", windows[kind].names) for kind, folder in FOLDERS.items()}
    mark = files.fingerprint((root / f"{part}.csv").read_bytes(), rows)
    task, examples = votes.Task(CLASSES), _table.Examples.one_each(len(units))
    return HmsDataset("hms", root, task, units, targets, examples, windows, sizes, mark, part=part)


def _folder(root: Path, table: str) -> Path:
    root = Path(root).resolve()
    rule = "--data names the competition's folder (train.csv, train_spectrograms/ ...)"
    if _folder_of.missing_tables(root, [table], rule):
        raise DataError(f"{root}: no {table} there; {rule}{_folder_of.nearby(root, table)}")
    return root


def _read_csv(path: Path, columns: list[str]) -> pd.DataFrame:
    table = _csv.read(path, columns)
    for name in columns:
        _check_numbers(path, table[name], whole=name not in OFFSETS)
    return table.astype({name: np.int64 for name in columns if name not in OFFSETS})


def _check_numbers(path: Path, column: pd.Series, whole: bool) -> None:
    """Ids and votes must be whole numbers that float64 holds exactly, offsets finite and not negative."""
    numbers = pd.to_numeric(column, errors="coerce").astype(np.float64)
    huge = numbers.abs() >= 2**53
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
        eeg, window = table.loc[twice, ["eeg_id", "eeg_sub_id"]].iloc[0]
        raise DataError(f"{path}: eeg_id {eeg}, eeg_sub_id {window} stands twice")
    for name in ("patient_id", "spectrogram_id"):
        several = table.groupby("eeg_id")[name].nunique() > 1
        if several.any():
            raise DataError(f"{path}: eeg_id {several.idxmax()} has several values of {name}; an EEG has one")


def _units(
    table: pd.DataFrame, counts: np.ndarray, rows: str
) -> tuple[pd.DataFrame, np.ndarray, dict[str, _table.Windows]]:
    """Group windows into units; return the units, their votes (N, K) and where their windows lie."""
    order = np.lexsort((table["eeg_sub_id"], table["eeg_id"]))
    table, counts = table.iloc[order].reset_index(drop=True), counts[order]
    number = _unit_numbers(table["eeg_id"].to_numpy(), counts, rows)
    first = np.unique(number, return_index=True)[1]
    total = np.zeros((len(first), len(CLASSES)))
    np.add.at(total, number, counts)
    head = table.iloc[first].reset_index(drop=True)
    unit_id = head["eeg_id"].astype(str)
    units = pd.DataFrame(
        {
            "unit_id": unit_id if rows == "eeg" else unit_id + "-" + head["eeg_sub_id"].astype(str),
            "group_id": head["patient_id"].astype(str),
            # the largest panel that saw one window: summing windows would make experts of laymen
            "votes": pd.Series(counts.sum(1)).groupby(number).max().to_numpy(),
        }
    )
    windows = {
        kind: _windows(head[f"{kind}_id"], number, table[f"{kind}_label_offset_seconds"].to_numpy()) for kind in FOLDERS
    }
    return units, total, windows


def _unit_numbers(eeg: np.ndarray, counts: np.ndarray, rows: str) -> np.ndarray:
    """Return the number of each window's unit; units are numbered in the order of their first windows."""
    if rows == "eeg":
        return pd.factorize(eeg)[0]
    if rows == "label":
        return pd.factorize(pd.Series(list(zip(eeg, map(bytes, counts.astype(np.int64)), strict=True))))[0]
    starts = np.r_[True, (eeg[1:] != eeg[:-1]) | (counts[1:] != counts[:-1]).any(1)]
    return np.cumsum(starts) - 1


def _windows(ids: pd.Series, number: np.ndarray, offset_s: np.ndarray) -> _table.Windows:
    """Return where the units' windows lie; one may begin anywhere up to the next one of the same unit.

    The middle is the mean offset of a unit's longest run of windows: between two runs others had been voted for.
    """
    follows = np.r_[number[1:] == number[:-1], False]
    slack_s = np.where(follows, np.maximum(np.diff(offset_s, append=0), 0), 0)
    order = np.argsort(number, kind="stable")  # a label's windows need not follow each other
    first = np.r_[0, np.cumsum(np.bincount(number))]
    middle_s = _middle_s(number, offset_s)
    return _table.Windows(ids.astype(str).to_numpy(dtype=str), middle_s, first, offset_s[order], slack_s[order])


def _middle_s(number: np.ndarray, offset_s: np.ndarray) -> np.ndarray:
    """Return the mean offset of each unit's longest run of windows, the first of several."""
    starts = np.r_[True, number[1:] != number[:-1]]
    run, of_unit = np.cumsum(starts) - 1, number[starts]
    length = np.bincount(run)
    longest_first = np.lexsort((-length, of_unit))
    chosen = longest_first[np.unique(of_unit[longest_first], return_index=True)[1]]
    return (np.bincount(run, offset_s) / length)[chosen]


def _panel(votes_cast: int) -> str:
    """Name the panel by its size; rows with 10 votes and more are like the hidden test."""
    return "1-2" if votes_cast < 3 else "3-9" if votes_cast < 10 else "10+"


def _sizes(folder: Path, names: np.ndarray) -> dict[str, int]:
    """Return the size of each of those recordings that is there; whether one is needed, a feature decides."""
    if not folder.is_dir():
        return {}
    found = {entry.name: entry.stat().st_size for entry in os.scandir(folder) if entry.is_file()}
    return {name: found[f"{name}.parquet"] for name in sorted(set(names.tolist())) if f"{name}.parquet" in found}
