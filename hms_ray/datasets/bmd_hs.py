"""BMD-HS: heart sounds of subjects with and without valvular disease (Ali et al. 2024, arXiv:2409.00724).

A unit is a subject, an example one of its recordings. Layout and traps: https://github.com/sani002/BMD-HS-Dataset
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from hms_ray.core import files
from hms_ray.core import recordings as kinds
from hms_ray.core.errors import ConfigError, DataError, raise_all
from hms_ray.core.params import Params as Strict
from hms_ray.core.progress import Progress
from hms_ray.datasets import _cloned, _csv, _sound, _spectrum_baseline, _table
from hms_ray.datasets import _folder as _folder_of
from hms_ray.tasks import Task, binary, multilabel

REPOSITORY, LICENCE = "https://github.com/sani002/BMD-HS-Dataset", "CC BY-NC-ND 4.0"
KIND = kinds.HEART_SOUND.name
DISEASES, NORMAL = ("AS", "AR", "MR", "MS"), "N"  # stenosis and regurgitation of the aortic and the mitral valve
LABELS = [*DISEASES, NORMAL]
VALVES = ("mitral", "tricuspid", "pulmonary", "aortic")
RECORDINGS = [f"recording_{i}" for i in range(1, 9)]  # at the four valves, lying and then sitting
PERSON = {  # column -> the number that it becomes, and what its values are; None: any number
    "Age": ("age", None),
    "Gender": ("male", {"M": 1.0, "F": 0.0}),
    "Smoker": ("smoker", {"1": 1.0, "0": 0.0}),
    "Lives": ("urban", {"U": 1.0, "R": 0.0}),
}
NUMBERS = [number for number, _ in PERSON.values()]
NAME = re.compile(r"\w[\w.-]*")  # of a recording: it becomes a path
TASKS = {"multilabel": multilabel.Task(tuple(LABELS)), "binary": binary.Task(("disease",))}


class Params(Strict):
    """What is asked of a subject."""

    labels: Literal["multilabel", "binary"] = Field(
        "multilabel", description=f"multilabel: {', '.join(LABELS)}, several may hold; binary: disease against normal"
    )


@dataclass(frozen=True)
class BmdHsDataset(_table.Dataset):
    """Subjects of the train or the test part, with their recordings."""

    KINDS: ClassVar[tuple[str, ...]] = (KIND,)
    BASELINE: ClassVar[str] = _spectrum_baseline.DESCRIPTION
    part: str = "train"

    def path(self, kind: str, name: str) -> Path:
        """Return the file of a recording."""
        return self.root / self.part / f"{name}.wav"

    def read(self, kind: str, name: str) -> np.ndarray:
        """Return one file as (1, steps), mono at 4 kHz."""
        return _sound.read(self.path(kind, name), kinds.KINDS[kind])

    def steps(self, kind: str, name: str) -> int:
        """Return a file's steps at 4 kHz."""
        return _sound.steps(self.path(kind, name), kinds.KINDS[kind])

    def baseline(self, folds: np.ndarray) -> np.ndarray:
        """Predict each fold (N,) by the plain baseline of the others, (N, K)."""
        return _spectrum_baseline.predict(self, KIND, NUMBERS, folds)


def load(root: Path, params: Params) -> BmdHsDataset:
    """Read train.csv and additional_metadata.csv, and find the recordings.

    Raises:
        DataError: lists what is not as the data set has it; a recording that is missing or empty is left out instead.
    """
    root = _folder(root)
    table = _read_csv(root / "train.csv", ["patient_id", *LABELS, *RECORDINGS])
    raise_all([*_id_faults(table), *_label_faults(table)], DataError, str(root / "train.csv"))
    held = table[LABELS].astype(float)
    task = TASKS[params.labels]
    targets = held if params.labels == "multilabel" else 1 - held[[NORMAL]]
    stratum = held.apply(lambda row: "+".join(held.columns[row > 0]), axis=1)
    return _dataset(root, "train", table, task, targets.to_numpy(), stratum, params.labels)


def load_test(root: Path) -> BmdHsDataset:
    """Read test.csv, which is as train.csv but without labels; recordings lie in test/."""
    root = _folder(root, "test.csv")
    table = _read_csv(root / "test.csv", ["patient_id", *RECORDINGS])
    raise_all(_id_faults(table), DataError, str(root / "test.csv"))
    stratum = pd.Series("", index=table.index)
    return _dataset(root, "test", table, TASKS["multilabel"], None, stratum, "test")


def write_submission(path: Path, unit_ids: list[str], probs: np.ndarray) -> None:
    """Write patient_id and the probability of each label."""
    [task] = [task for task in TASKS.values() if len(task.classes) == probs.shape[1]]
    table = pd.DataFrame(probs, columns=task.classes)
    table.insert(0, "patient_id", unit_ids)
    files.write_text(path, table.to_csv(index=False))


def locate(data: str | None, cache: Path) -> Path:
    """Return the folder that `--data` names; of an address, or where nothing is said, that of a clone in the cache.

    Raises:
        ConfigError: it cannot be cloned.
    """
    if data and not _cloned.is_url(data):
        return Path(data)
    return _cloned.clone(data or REPOSITORY, cache / "cloned", "bmd_hs", LICENCE, Progress("clone"))


def simulated(
    out: Path, patients: int, seed: int, progress: Callable[[int, int], None], recordings: int | None = None
) -> None:
    """Write simulated recordings, eight of each subject, into the folder `out`."""
    if recordings is not None:
        raise ConfigError(f"cannot simulate {recordings} recordings: a subject has eight; say how many patients")
    from hms_ray import simulate  # slow to import, and who reads a folder needs it not

    simulate.simulate_hearts(out, patients, seed, progress)


def _folder(root: Path, table: str = "train.csv") -> Path:
    root = Path(root).resolve()
    rule = "--data names the folder of BMD-HS (train.csv, train/ ...), or the address of a repository that holds it"
    missing = _folder_of.missing_tables(root, (table, "additional_metadata.csv"), rule)
    if missing and table == "test.csv" and (root / "train.csv").is_file():
        raise DataError(
            f"{root}: no {' and no '.join(missing)} there; to predict, name new subjects in test.csv (patient_id, "
            "recording_1 ...) and additional_metadata.csv, and put their recordings into test/"
        )
    if missing:
        raise DataError(f"{root}: no {' and no '.join(missing)} there; {rule}{_folder_of.nearby(root, table)}")
    return root


def _read_csv(path: Path, columns: list[str]) -> pd.DataFrame:
    """Return the columns of a table as text, "" where there is nothing."""
    table = _csv.read(path, columns, dtype=str, keep_default_na=False, skipinitialspace=True, index_col=False)
    return table[columns].apply(lambda column: column.str.strip())


def _id_faults(table: pd.DataFrame) -> Iterator[str]:
    """Say which subjects and recordings stand twice, or have no name that can be a file's."""
    for row, subject in enumerate(table["patient_id"], start=2):
        if not subject:
            yield f"row {row}: patient_id is missing"
    for subject, count in Counter(filter(None, table["patient_id"])).items():
        if count > 1:
            yield f"{subject} stands in {count} rows; a subject has one"
    names = table[RECORDINGS].to_numpy()
    for i, j in zip(*np.nonzero(names != ""), strict=True):
        if not NAME.fullmatch(names[i, j]):
            yield f"row {i + 2}: {RECORDINGS[j]} must be a file's name without .wav, but is {names[i, j]!r}"
    for name, count in Counter(filter(None, names.ravel().tolist())).items():
        if count > 1:
            yield f"recording {name} is listed {count} times; a recording is of one subject"


def _label_faults(table: pd.DataFrame) -> Iterator[str]:
    """Say which labels are neither 0 nor 1, and which subjects are normal and diseased, or neither."""
    for row, (subject, *labels) in enumerate(table[["patient_id", *LABELS]].to_numpy().tolist(), start=2):
        where, given = f"row {row} ({subject})", dict(zip(LABELS, labels, strict=True))
        unknown = [name for name, value in given.items() if value not in ("0", "1")]
        yield from (f"{where}: {name} must be 0 or 1, but is {given[name]!r}" for name in unknown)
        if unknown:
            continue
        held = [name for name, value in given.items() if value == "1"]
        if NORMAL in held and len(held) > 1:
            yield f"{where}: {NORMAL} (normal) together with {', '.join(held[:-1])}"
        if not held:
            yield f"{where}: no label is 1; a subject without a disease has {NORMAL} = 1"


def _dataset(
    root: Path,
    part: str,
    table: pd.DataFrame,
    task: Task,
    targets: np.ndarray | None,
    stratum: pd.Series,
    asked: str,
) -> BmdHsDataset:
    """Put together what was read; asked: what tells apart fingerprints of the same files."""
    people = _people(root / "additional_metadata.csv", table["patient_id"])
    found, left_out = _found(root / part, table)
    ids = table["patient_id"]
    units = pd.DataFrame({"unit_id": ids, "group_id": ids, "votes": 1, "stratum": stratum})
    examples = _examples(found, people)
    names, zero = found["name"].to_numpy(dtype=str), np.zeros(len(found))
    windows = {KIND: _table.Windows(names, zero, np.arange(len(found) + 1), zero, zero)}
    sizes = {KIND: {name: (root / part / f"{name}.wav").stat().st_size for name in names.tolist()}}
    tables = [(root / name).read_bytes() for name in (f"{part}.csv", "additional_metadata.csv")]
    mark = files.fingerprint(*tables, names.tolist(), asked)
    return BmdHsDataset(
        "bmd_hs", root, task, units, targets, examples, windows, sizes, mark, left_out=left_out, part=part
    )


def _people(path: Path, subjects: pd.Series) -> pd.DataFrame:
    """Return the numbers of each subject, NaN where one is not known."""
    table = _read_csv(path, ["patient_id", *PERSON])
    twice = table["patient_id"][table["patient_id"].duplicated()].unique()
    found = [f"{subject} stands in several rows" for subject in twice]
    found += [f"{subject} is missing" for subject in subjects[~subjects.isin(table["patient_id"])]]
    numbers = {}
    for column, (number, values) in PERSON.items():
        numbers[number], faults = _numbers(table, column, values)
        found += faults
    raise_all(found, DataError, str(path))
    return pd.DataFrame(numbers).set_index(table["patient_id"]).loc[subjects].reset_index(drop=True)


def _numbers(table: pd.DataFrame, column: str, values: dict[str, float] | None) -> tuple[np.ndarray, list[str]]:
    """Return the numbers of a column, and what is wrong with the others."""
    given = table[column]
    numbers = (given.map(values) if values else pd.to_numeric(given, errors="coerce")).to_numpy(dtype=float)
    wrong = (given != "") & ~(np.isfinite(numbers) & (numbers >= 0))
    right = f"one of {', '.join(values)}" if values else "a number from 0 on"
    faults = [
        f"row {row + 2} ({table['patient_id'].iat[row]}): {column} must be {right}, or empty, but is {given.iat[row]!r}"
        for row in np.flatnonzero(wrong).tolist()
    ]
    return numbers, faults


def _found(folder: Path, table: pd.DataFrame) -> tuple[pd.DataFrame, tuple[dict[str, str], ...]]:
    """Return unit, place and name of each recording that holds something, and the others with what is wrong."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; it holds the recordings")
    found, left_out = [], []
    for unit, (subject, *names) in enumerate(table[["patient_id", *RECORDINGS]].to_numpy().tolist()):
        for place, name in enumerate(names):
            if not name:
                continue
            if cause := _fault(folder / f"{name}.wav"):
                left_out.append({"unit_id": subject, "name": name, "cause": cause})
            else:
                found.append((unit, place, name))
    recorded = pd.DataFrame(found, columns=["unit", "place", "name"])
    silent = table.loc[~table.index.isin(recorded["unit"]), "patient_id"]
    raise_all([f"{subject} has no recording that holds anything" for subject in silent], DataError, str(folder))
    return recorded, tuple(left_out)


def _fault(path: Path) -> str:
    """Say why a recording is not there; "" if it is. One that is there and broken is refused.

    Raises:
        DataError: it is no sound file.
    """
    if not path.is_file():
        return "missing"
    if path.stat().st_size == 0 or _sound.steps(path, kinds.HEART_SOUND) == 0:
        return "empty"
    return ""


def _examples(found: pd.DataFrame, people: pd.DataFrame) -> _table.Examples:
    """Return the examples, with the subject's numbers and where the stethoscope was."""
    unit, place = found["unit"].to_numpy(), found["place"].to_numpy()
    at = {"sitting": place >= len(VALVES)} | {valve: place % len(VALVES) == i for i, valve in enumerate(VALVES)}
    covariates = (
        people.iloc[unit].reset_index(drop=True).assign(**{name: held.astype(float) for name, held in at.items()})
    )
    return _table.Examples(unit, covariates)
