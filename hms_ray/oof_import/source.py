"""The rows of one file. Names of columns are compared without case and surrounding blanks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hms_ray.core.errors import DataError
from hms_ray.oof_import.faults import few

EXACT = 2**53  # above it, float64 cannot represent every whole number


def key(name: object) -> str:
    """Return the form in which column names are compared."""
    return str(name).strip().lower()


@dataclass(frozen=True)
class Source:
    """A file and its rows, in its order; no two columns have the same key.

    array: the columns of a plain array: the classes, in the order of the labels
    id_unnamed: its `unit_id` was an array without a name, which may be the labels' only id
    """

    path: Path
    frame: pd.DataFrame
    array: tuple[str, ...] = ()
    id_unnamed: bool = False

    @cached_property
    def _names(self) -> dict[str, Any]:
        return {key(name): name for name in self.frame.columns}

    @property
    def keys(self) -> list[str]:
        """The columns' keys, in the file's order."""
        return list(self._names)

    def __contains__(self, name: str) -> bool:
        return key(name) in self._names

    def column(self, name: str) -> pd.Series:
        """Return a column; errors as in `require`."""
        self.require([name])
        return self.frame[self._names[key(name)]]

    def require(self, names: Sequence[str], hint: str = "") -> None:
        """Raise DataError, with the columns that exist, unless all these columns exist."""
        missing = [name for name in names if name not in self]
        if missing:
            have = few((str(name).strip() for name in self.frame.columns), 12)
            raise DataError(f"{self.path}: missing column {few(missing)}; it has {have}{hint}")

    def strings(self, name: str) -> np.ndarray:
        """Return ids (N,) as strings; whole numbers that were read as floats lose their '.0'."""
        values = self.column(name)
        self.refuse(values.isna().to_numpy(), f"without {name}")
        if values.dtype.kind == "f":
            numbers = values.to_numpy(dtype=np.float64)
            self.refuse(~(np.abs(numbers) < EXACT), f"whose {name} is too large for the float it is kept as")
            values = values.astype(np.int64) if (numbers == np.round(numbers)).all() else values
        return values.astype(str).to_numpy(dtype=str)

    def numbers(self, names: Sequence[str]) -> np.ndarray:
        """Return columns as finite float64 (N, len(names))."""
        self.require(names)
        columns = [pd.to_numeric(self.column(name), errors="coerce").to_numpy(dtype=np.float64) for name in names]
        values = np.stack(columns, axis=1)
        self.refuse(~np.isfinite(values).all(1), f"where {few(names)} are not all numbers")
        return values

    def whole_numbers(self, name: str, least: int) -> np.ndarray:
        """Return a column as int64 (N,), `least` or more."""
        values = self.numbers([name])[:, 0]
        bad = (values < least) | (values >= EXACT) | (values != np.round(values))
        self.refuse(bad, f"whose {name} is not a whole number >= {least}")
        return values.astype(np.int64)

    def unit_ids(self, ids: Sequence[str]) -> np.ndarray:
        """Join the id columns to one string a row (N,); refuse rows that come twice."""
        joined = np.array(["-".join(row) for row in zip(*map(self.strings, ids), strict=True)])
        self.refuse(pd.Series(joined).duplicated(keep=False).to_numpy(), f"that share their {'-'.join(ids)}")
        return joined

    def refuse(self, bad: np.ndarray, which: str) -> None:
        """Raise DataError where any row of the mask (N,) is bad."""
        if bad.any():
            raise DataError(self.fault(bad, which))

    def fault(self, bad: np.ndarray, which: str) -> str:
        """Return a sentence that lists the bad rows of a mask (N,), by position below the header."""
        rows = np.flatnonzero(bad)
        return f"{self.path}: {len(rows)} rows {which}: row{'s' * (len(rows) > 1)} {few(rows)}"
