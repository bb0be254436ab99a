"""Tables of a study: one schema each, one reader, one sentence where a table is not as it was written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hms_ray.core import files
from hms_ray.core.errors import DataError, raise_all

if TYPE_CHECKING:
    import pandas as pd

LARGEST = 1e100  # beyond, differences and plots overflow; no score or loss comes near


@dataclass(frozen=True)
class Column:
    """What a column may hold.

    kind: text, whole numbers, or numbers; low, high: bounds of numbers, both allowed
    missing: whether cells may be empty, NaN in numbers
    among: of text, the values that there are; (): any
    """

    kind: Literal["text", "whole", "number"]
    low: float = -LARGEST
    high: float = LARGEST
    missing: bool = False
    among: tuple[str, ...] = ()

    def fault(self, values: pd.Series) -> str | None:
        """Return what is wrong with a column's values, None for nothing."""
        import numpy as np

        if self.kind != "text" and values.isna().all() and self.missing:
            return None
        if not self.missing and values.isna().any():
            return f"has an empty cell in row {int(np.flatnonzero(values.isna())[0])}"
        if self.kind == "text":
            texts = values.map(lambda value: isinstance(value, str))
            if not texts.all():
                return f"must hold text, but row {int(np.flatnonzero(~texts)[0])} does not"
            unknown = [value for value in values.unique() if self.among and value not in self.among]
            return f"must hold {', '.join(self.among)}, but holds {unknown[0]!r}" if unknown else None
        if values.dtype.kind not in ("iu" if self.kind == "whole" else "iuf"):
            return f"must hold {'whole ' if self.kind == 'whole' else ''}numbers, but holds {values.dtype}"
        outside = np.flatnonzero(values.notna() & ~values.between(self.low, self.high))
        if len(outside):
            bounds = f"from {self.low:g} to {self.high:g}"
            return f"must lie {bounds}, but is {values.iloc[outside[0]]:g} in row {int(outside[0])}"
        return None


FOLDS = {"unit_id": Column("text"), "group_id": Column("text"), "fold": Column("whole", 0)}
EPOCHS = {
    "fold": Column("whole", 0),
    "stage": Column("whole", 0),
    "epoch": Column("whole", 1),
    "train_loss": Column("number", -float("inf"), float("inf"), missing=True),
    "score": Column("number", missing=True),
    "lr": Column("number", 0, missing=True),
    "seconds": Column("number", 0),
}
LATER = {"memory_gb": Column("number", 0), "skipped_steps": Column("whole", 0)}  # what older curves lack


def read(
    path: Path, schema: Mapping[str, Column], key: Sequence[str], optional: Mapping[str, Column] | None = None
) -> pd.DataFrame:
    """Read a table with at least the columns of its schema, all columns included; it has a row at least.

    key: the columns that no two rows may share, if any; optional: columns that may be missing

    Raises:
        DataError: the file is missing or broken, or lists every column that is not as its schema says.
    """
    table = files.read_table(path, columns=None)
    if (twice := table.columns[table.columns.duplicated()]).size:
        raise DataError(f"{path}: column {twice[0]!r} stands more than once")
    missing = [name for name in schema if name not in table]
    if missing:
        raise DataError(f"{path}: missing column {', '.join(map(repr, missing))}; it has {', '.join(map(repr, table))}")
    if table.empty:
        raise DataError(f"{path}: it has no rows")
    columns = {**schema, **{name: kind for name, kind in (optional or {}).items() if name in table}}
    faults = [f"column {name!r} {fault}" for name, kind in columns.items() if (fault := kind.fault(table[name]))]
    if key and not faults and (repeated := table.duplicated(list(key))).any():
        first = table[list(key)][repeated].iloc[0]
        faults.append(f"{', '.join(f'{name} {first[name]}' for name in key)} stands more than once")
    raise_all(faults, DataError, str(path))
    empty = [name for name, kind in columns.items() if kind.kind != "text" and table[name].isna().all()]
    return table.astype(dict.fromkeys(empty, "float64"))  # a column of nulls has no type of its own


def read_folds(path: Path) -> pd.DataFrame:
    """Read folds.parquet: unit_id, group_id, fold of each unit; errors as in `read`."""
    return read(path, FOLDS, ["unit_id"])


def read_curves(path: Path) -> pd.DataFrame:
    """Read the learning curves of a trial, finished or not, sorted by fold and epoch: fold, stage, epoch, train_loss,
    score, lr, seconds; errors as in `read`.

    A fold that was killed and resumed may lack an epoch until it is finished.
    """
    return read(path, EPOCHS, ["fold", "epoch"], LATER).sort_values(["fold", "epoch"], ignore_index=True)


def read_epochs(path: Path) -> pd.DataFrame:
    """Read the learning curves of finished folds, whose epochs are 1, 2, ...; else as `read_curves`."""
    table = read_curves(path)
    for fold, epochs in table.groupby("fold")["epoch"]:
        if epochs.tolist() != list(range(1, len(epochs) + 1)):
            raise DataError(f"{path}: fold {fold} has the epochs {epochs.tolist()}; it must have 1 to {len(epochs)}")
    return table
