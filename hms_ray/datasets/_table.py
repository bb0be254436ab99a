"""What a dataset hands over: its task, its units and their examples, and a way to read their recordings."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from hms_ray.core import files, recordings, source_files
from hms_ray.core.errors import ConfigError, DataError, shown
from hms_ray.datasets import _shortcuts
from hms_ray.tasks import Task


@dataclass(frozen=True)
class Examples:
    """What is trained on: E examples of N units. A unit is predicted by the mean over its examples.

    unit: (E,) the unit of each, by its number, in ascending order; every unit has one at least
    covariates: E rows of numbers that may be given beside a recording, a column each; NaN where one is not known
    """

    unit: np.ndarray
    covariates: pd.DataFrame

    def __post_init__(self) -> None:
        found = np.unique(self.unit)
        assert (np.diff(self.unit) >= 0).all() and np.array_equal(found, np.arange(len(found))), "units in their order"
        assert len(self.covariates) == len(self.unit), f"{len(self.covariates)} rows beside {len(self.unit)} examples"

    @classmethod
    def one_each(cls, units: int) -> "Examples":
        """Return the examples of so many units that have one each, and nothing beside it."""
        return cls(np.arange(units), pd.DataFrame(index=range(units)))

    def __len__(self) -> int:
        return len(self.unit)

    def of(self, units: np.ndarray) -> np.ndarray:
        """Return the examples of those units, unit by unit in the order given."""
        first, end = np.searchsorted(self.unit, units), np.searchsorted(self.unit, units, side="right")
        return np.concatenate([np.arange(a, b) for a, b in zip(first, end, strict=True)] or [np.arange(0)])

    def mean(self, units: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Return the mean (n, ...) over the examples of each of those n units; values: those of `of(units)`."""
        if not len(units):
            return np.empty((0, *values.shape[1:]))
        counts = np.bincount(self.unit)[units]
        return np.add.reduceat(values, np.r_[0, np.cumsum(counts)[:-1]]) / counts.reshape(-1, *[1] * (values.ndim - 1))

    def beside(self, names: Sequence[str]) -> np.ndarray:
        """Return the numbers (E, S) of those names, float32."""
        return self.covariates[list(names)].to_numpy(np.float32)


@dataclass(frozen=True)
class Windows:
    """Where the windows of E examples begin in the files of one kind of recording, in seconds.

    names: (E,) each example's file, without its suffix
    middle_s: (E,) the window that is scored
    first: (E + 1,) example i has the windows first[i] ... first[i + 1] - 1
    start_s, slack_s: (W,) each window's start, and how much later one may begin that still is of the example
    """

    names: np.ndarray
    middle_s: np.ndarray
    first: np.ndarray
    start_s: np.ndarray
    slack_s: np.ndarray

    @property
    def last_s(self) -> np.ndarray:
        """The latest start of any of an example's windows (E,)."""
        return np.maximum.reduceat(self.start_s, self.first[:-1])

    def draw(self, rows: np.ndarray, chosen: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """Return the start (B,) of a window of each of those examples.

        chosen, shift: (B,) numbers from 0 to 1: which of the example's windows, and where in its slack
        """
        count = np.diff(self.first)[rows]
        window = self.first[rows] + np.minimum((chosen * count).astype(int), count - 1)
        return self.start_s[window] + shift * self.slack_s[window]


@dataclass(frozen=True)
class Dataset(ABC):
    """Units to be scored and where their recordings lie.

    units: one row a unit: unit_id (str), group_id (str, what must not cross folds), votes (int, how many experts),
        stratum (str, what folds are balanced by), and columns of the dataset's own
    targets: (N, K) float64, or None for data without labels
    examples: what is trained on, and of which unit each is
    windows: by kind of recording, where each example's windows lie
    sizes: by kind, the size of each file that was found, by the file's name without suffix
    fingerprint: changes whenever the labels or the units change
    left_out: recordings that are named but not there, or hold nothing: unit_id, name and cause of each
    """

    KINDS: ClassVar[tuple[str, ...]] = ()
    BASELINE: ClassVar[str] = ""  # what `baseline` predicts by

    name: str
    root: Path
    task: Task
    units: pd.DataFrame
    targets: np.ndarray | None
    examples: Examples
    windows: Mapping[str, Windows]
    sizes: Mapping[str, Mapping[str, int]]
    fingerprint: str
    left_out: tuple[dict[str, str], ...] = ()
    _lengths: dict[str, dict[str, int]] = field(default_factory=dict, repr=False, compare=False)

    def __reduce__(self) -> tuple[object, ...]:
        # a class of a file that a space names travels with the file
        return source_files.rebuilt, (source_files.sources_of(type(self)), type(self), self.__dict__)

    @abstractmethod
    def path(self, kind: str, name: str) -> Path:
        """Return the file of a recording."""

    @abstractmethod
    def read(self, kind: str, name: str) -> np.ndarray:
        """Return a whole recording (channels, steps), float32; gaps are NaN.

        Raises:
            DataError: the file is missing, broken, or not of that kind.
        """

    @abstractmethod
    def steps(self, kind: str, name: str) -> int:
        """Return how long a recording is without reading its values; errors as in `read`."""

    def lengths(self, kind: str) -> dict[str, int]:
        """Return how many steps each recording of the examples has, by its name, from the files' footers.

        Raises:
            DataError: a file is missing, broken, or not of that kind, or recordings are of another rate.
        """
        if kind not in self._lengths:
            names = sorted(self.files(kind))
            with ThreadPoolExecutor() as pool:
                steps = pool.map(lambda name: self.steps(kind, name), names)
                self._lengths[kind] = dict(zip(names, steps, strict=True))
            self.check_rate(kind, self._lengths[kind])
        return self._lengths[kind]

    def check_rate(self, kind: str, steps: Mapping[str, int]) -> None:  # noqa: B027 - most files say their rate
        """Warn of recordings that seem to have another rate than their kind; steps: of each recording, by its name.

        Raises:
            DataError: most of them unmistakably have.
        """

    def files(self, kind: str) -> list[str]:
        """Return the names of the files of all examples, each once, in their order."""
        return list(dict.fromkeys(self.windows[kind].names.tolist()))

    def require(self, kind: str, who: str) -> None:
        """Raise unless the dataset has recordings of that kind, a file for each example.

        Raises:
            ConfigError: it has no such kind.
            DataError: files are missing.
        """
        if kind not in self.KINDS:
            raise ConfigError(
                f"{who} needs recordings of kind {kind!r}; dataset {self.name!r} has {', '.join(self.KINDS)}"
            )
        names = sorted(self.files(kind))
        missing = [name for name in names if name not in self.sizes[kind]]
        if missing:
            first = self.path(kind, missing[0])
            if not first.parent.is_dir():
                raise DataError(f"{first.parent}: no such folder, but {who} needs its recordings")
            few = f"{len(missing)} of the {len(names)} files that {who} needs"
            raise DataError(f"{first.parent}: {few} are missing, the first is {first.name}")

    def recordings_fingerprint(self, kind: str) -> str:
        """Return what changes whenever a recording of that kind comes, goes, or changes its size."""
        return files.fingerprint(dict(self.sizes[kind]))

    def baseline(self, folds: np.ndarray) -> np.ndarray | None:
        """Predict each fold (N,) by a plain model of the others, (N, K), which any other has to beat; None: none."""
        return None

    def window(self, kind: str, i: int) -> np.ndarray:
        """Return the window of example i that is scored, (channels, steps) float32, NaN beyond the recording's end."""
        windows = self.windows[kind]
        return cut(self.read(kind, windows.names[i]), recordings.KINDS[kind], windows.middle_s[i])

    def identity(self) -> dict[str, Any]:
        """Return what study.json keeps of the data."""
        return {
            "name": self.name,
            "root": str(self.root),
            "fingerprint": self.fingerprint,
            "recordings": {kind: self.recordings_fingerprint(kind) for kind in self.KINDS if self.sizes[kind]},
            "units": len(self.units),
            "groups": int(self.units["group_id"].nunique()),
            **({"baseline": self.BASELINE} if self.BASELINE else {}),
            **({"left_out": list(self.left_out)} if self.left_out else {}),
            **({"shortcuts": shortcuts} if (shortcuts := self.shortcuts()) else {}),
        }

    def shortcuts(self) -> list[dict[str, Any]]:
        """Return what is known of units beside their recordings, and tells the answer to a question by itself."""
        if self.targets is None or not self.task.asks_each_class:
            return []
        covariates = self.examples.covariates
        numbers = self.examples.mean(np.arange(len(self.units)), covariates.to_numpy(np.float64))
        truth = self.task.decide(self.targets)
        return _shortcuts.found(truth, self.task.classes, pd.DataFrame(numbers, columns=covariates.columns))


def first_step(kind: recordings.RecordingKind, start_s: float | np.ndarray) -> np.ndarray:
    """Return the step at which windows begin that start after so many seconds.

    A hair is added: 2.3 s are 459.99... steps.
    """
    return np.floor(np.asarray(start_s) * kind.rate_hz + 1e-6).astype(np.int64)


def cut(recording: np.ndarray, kind: recordings.RecordingKind, start_s: float) -> np.ndarray:
    """Return the window (channels, kind.steps) that begins there, NaN beyond the recording's end."""
    start = int(first_step(kind, start_s))
    window = np.full((len(recording), kind.steps), np.nan, dtype=np.float32)
    found = recording[:, start : start + kind.steps]
    window[:, : found.shape[1]] = found
    return window


def checked(dataset: object, name: str) -> Dataset:
    """Return what a dataset's module loaded, under the name that the run calls it by.

    Raises:
        ConfigError: it is no Dataset.
    """
    if not isinstance(dataset, Dataset):
        raise ConfigError(f"dataset {name}: load must return hms_ray.datasets.Dataset, but returned {shown(dataset)}")
    return dataset if dataset.name == name else replace(dataset, name=name)
