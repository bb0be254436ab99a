"""Out-of-fold tables: what each unit is, what is true of it, and what a model that never saw it predicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hms_ray import tasks
from hms_ray.core import files
from hms_ray.core.errors import ConfigError, DataError, raise_all
from hms_ray.tasks import Task

FOLDS = 5  # that rows without folds are dealt to
TARGET_TOLERANCE = 1e-9  # the same shares computed on two machines may differ in their last digits


def population(votes: np.ndarray, min_votes: int) -> np.ndarray:
    """Return the mask (N,) of the units that are scored: those with at least `min_votes` votes.

    Raises:
        ConfigError: no unit has that many.
    """
    mask = votes >= min_votes
    if not mask.any():
        most = int(votes.max(initial=0))
        raise ConfigError(f"no unit has min_votes={min_votes} votes or more; the largest vote count present is {most}")
    return mask


def deal_folds(groups: np.ndarray) -> np.ndarray:
    """Return a fold (N,) for each row: the groups (N,) are dealt to five folds, or as many as there are groups."""
    from sklearn.model_selection import GroupKFold  # it takes a second to import, and whoever brings folds needs it not

    folds, k = np.zeros(len(groups), dtype=np.int64), min(FOLDS, len(np.unique(groups)))
    if k > 1:
        for fold, (_, held_out) in enumerate(GroupKFold(k).split(groups, groups=groups)):
            folds[held_out] = fold
    return folds


def optimism(epoch_rule: str) -> str:
    """Return what stands beside a score whose epochs were chosen by that rule; "" where there is nothing to say."""
    return "optimistic: best epochs, chosen on the rows scored" if epoch_rule == "best" else ""


@dataclass(frozen=True)
class OofTable:
    """Held-out predictions of one configuration, one row a unit.

    unit_ids, group_ids: strings (N,); folds, votes: whole numbers (N,)
    targets, probs: float64 (N, K)
    selected_on: the folds whose scores chose this configuration; the score on them is optimistic
    epoch_rule: how the epoch of each fold was chosen: "cross_fitted" on the other folds, "last", or "best" on the very
        rows, which makes the score optimistic; "given": nothing is known of it
    epochs: the epoch of each fold, counted from 1; () where nothing is known of it
    """

    unit_ids: np.ndarray
    group_ids: np.ndarray
    folds: np.ndarray
    votes: np.ndarray
    targets: np.ndarray
    probs: np.ndarray
    task: Task
    trial: str
    space: str
    data_fingerprint: str
    folds_fingerprint: str
    selected_on: tuple[int, ...] = ()
    epoch_rule: str = "given"
    epochs: tuple[int, ...] = ()

    def rows(self, min_votes: int) -> np.ndarray:
        """Return the mask (N,) of the scored population; errors as in `population`."""
        return population(self.votes, min_votes)

    def write(self, path: Path) -> None:
        """Write the table atomically as parquet, its provenance in the schema metadata."""
        columns = {"unit_id": self.unit_ids, "group_id": self.group_ids, "fold": self.folds, "votes": self.votes}
        for suffix, values in (("target", self.targets), ("prob", self.probs)):
            columns |= {f"{c}_{suffix}": values[:, k] for k, c in enumerate(self.task.classes)}
        kinds = {"fold": "int64", "votes": "int64"}
        metadata = {"trial": self.trial, "space": self.space, "task": self.task.to_dict()} | {
            "data_fingerprint": self.data_fingerprint,
            "folds_fingerprint": self.folds_fingerprint,
            "selected_on": [int(fold) for fold in self.selected_on],
            "epoch_rule": self.epoch_rule,
            "epochs": [int(epoch) for epoch in self.epochs],
        }
        files.write_table(path, pd.DataFrame(columns).astype(kinds), metadata)

    @classmethod
    def read(cls, path: Path) -> OofTable:
        """Read and check a table.

        Raises:
            DataError: the file is missing, broken, or not a table that `write` made; or its units, targets or
                predictions cannot be. The message names the file.
        """
        metadata = _read_provenance(path)
        task = tasks.from_dict(metadata["task"])
        targets = [f"{c}_target" for c in task.classes]
        probs = [f"{c}_prob" for c in task.classes]
        frame = files.read_table(path, ["unit_id", "group_id", "fold", "votes", *targets, *probs])
        raise_all(_column_faults(frame, targets + probs), DataError, str(path))
        table = cls(
            unit_ids=frame["unit_id"].to_numpy(dtype=str),
            group_ids=frame["group_id"].to_numpy(dtype=str),
            folds=frame["fold"].to_numpy(dtype=np.int64),
            votes=frame["votes"].to_numpy(dtype=np.int64),
            targets=frame[targets].to_numpy(dtype=np.float64),
            probs=frame[probs].to_numpy(dtype=np.float64),
            **metadata | {"task": task} | {name: tuple(metadata[name]) for name in ("selected_on", "epochs")},
        )
        task.check_targets(table.targets, str(path))
        task.check_probs(table.probs, str(path))
        return table


def epochs_of(path: Path) -> tuple[int, ...]:
    """Return the epoch of each fold of a table that `OofTable.write` made; errors as in `OofTable.read`."""
    return tuple(_read_provenance(path)["epochs"])


@dataclass(frozen=True)
class Stack:
    """The tables of one study in one order of units; M members in the order they were given.

    unit_ids, group_ids, folds, votes: (N,), sorted by unit_id
    targets: (N, K); probs: (N, M, K)
    trials, spaces, epoch_rules: of the members; selected_on: every fold that chose any of them
    """

    unit_ids: np.ndarray
    group_ids: np.ndarray
    folds: np.ndarray
    votes: np.ndarray
    targets: np.ndarray
    probs: np.ndarray
    task: Task
    trials: tuple[str, ...]
    spaces: tuple[str, ...]
    epoch_rules: tuple[str, ...]
    data_fingerprint: str
    folds_fingerprint: str
    selected_on: tuple[int, ...]


def stack(tables: Sequence[OofTable]) -> Stack:
    """Bring tables of the same units, targets and folds into one order.

    Raises:
        DataError: tables that do not fit the first one; the message names each and says how it differs.
    """
    assert tables, "a stack needs at least one table"
    orders = [np.argsort(table.unit_ids) for table in tables]
    first, order = tables[0], orders[0]
    faults = [
        f"{table.trial!r} {fault}"
        for table, its_order in zip(tables[1:], orders[1:], strict=True)
        for fault in _misfits(first, order, table, its_order)
    ]
    raise_all(faults, DataError, f"out-of-fold tables that do not fit {first.trial!r}")
    return Stack(
        **{name: getattr(first, name)[order] for name in ("unit_ids", "group_ids", "folds", "votes", "targets")},
        probs=np.stack([table.probs[its] for table, its in zip(tables, orders, strict=True)], axis=1),
        task=first.task,
        trials=tuple(table.trial for table in tables),
        spaces=tuple(table.space for table in tables),
        epoch_rules=tuple(table.epoch_rule for table in tables),
        data_fingerprint=first.data_fingerprint,
        folds_fingerprint=first.folds_fingerprint,
        selected_on=tuple(sorted({fold for table in tables for fold in table.selected_on})),
    )


def _read_provenance(path: Path) -> dict[str, Any]:
    from hms_ray.study.record import check_provenance

    return check_provenance(path, files.read_metadata(path))


def _column_faults(frame: pd.DataFrame, numeric: list[str]) -> list[str]:
    """Say what is wrong with a table's columns: no rows, empty cells, other types, a unit that comes twice."""
    if frame.empty:
        return ["it has no rows"]
    empty = [c for c in ("unit_id", "group_id", "fold", "votes") if frame[c].isna().any()]
    twice = frame["unit_id"][frame["unit_id"].duplicated()].unique()
    faults = [f"column {c!r} has an empty cell in row {int(np.flatnonzero(frame[c].isna())[0])}" for c in empty]
    faults += [f"column {c!r} must hold whole numbers" for c in ("fold", "votes") if frame[c].dtype.kind not in "iu"]
    faults += [
        f"column {c!r} must not be below 0, but is {frame[c].min()}"
        for c in ("fold", "votes")
        if frame[c].dtype.kind in "iu" and frame[c].min() < 0
    ]
    faults += [f"column {c!r} must hold numbers" for c in numeric if frame[c].dtype.kind not in "fiu"]
    if len(twice):
        faults.append(f"{len(twice)} unit_ids come more than once, the first is {str(twice[0])!r}")
    return faults


def _misfits(first: OofTable, order: np.ndarray, other: OofTable, its_order: np.ndarray) -> list[str]:
    """Say how `other` differs from `first` in anything but its predictions.

    That fingerprints differ is said only where nothing else shows the difference.
    """
    faults = [f"has another task: {other.task!r}, not {first.task!r}"] if other.task != first.task else []
    ours, theirs = first.unit_ids[order], other.unit_ids[its_order]
    if not np.array_equal(ours, theirs):
        return [*faults, _other_units(ours, theirs)]
    differ = {name: getattr(first, name)[order] != getattr(other, name)[its_order] for name in ("group_ids", "votes")}
    if first.targets.shape == other.targets.shape:
        differ["targets"] = np.abs(first.targets[order] - other.targets[its_order]).max(-1) > TARGET_TOLERANCE
    faults += [_other_values(name, rows, ours) for name, rows in differ.items() if rows.any()]
    if not faults and first.data_fingerprint != other.data_fingerprint:
        faults.append(f"was made from other data, though its units and their {', '.join(differ)} are the same")
    counts = [len(np.unique(table.folds)) for table in (first, other)]
    moved = first.folds[order] != other.folds[its_order]
    if counts[0] != counts[1]:
        faults.append(f"has another number of folds: {counts[1]}, not {counts[0]}")
    elif moved.any():
        faults.append(f"{_other_values('folds', moved, ours)}: another seed, or another way of dealing them")
    elif not faults and first.folds_fingerprint != other.folds_fingerprint:
        faults.append("was made from other folds, though each unit is in the same one")
    return faults


def _other_values(name: str, rows: np.ndarray, unit_ids: np.ndarray) -> str:
    return f"has other {name} for {int(rows.sum())} units, the first is {str(unit_ids[rows][0])!r}"


def _other_units(ours: np.ndarray, theirs: np.ndarray) -> str:
    parts = []
    for verb, ids in (("lacks", np.setdiff1d(ours, theirs)), ("adds", np.setdiff1d(theirs, ours))):
        if len(ids):
            parts.append(f"{verb} {len(ids)} units, the first is {str(ids[0])!r}")
    return "has other units: it " + " and ".join(parts or [f"repeats some ({len(theirs)} rows, not {len(ours)})"])
