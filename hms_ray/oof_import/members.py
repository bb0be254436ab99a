"""The files with predictions: what each holds, how it fits the labels, and the rows that all of them have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from hms_ray.core.errors import DataError
from hms_ray.oof_import.columns import VOTE, carried_targets, class_columns
from hms_ray.oof_import.faults import Faults, few
from hms_ray.oof_import.source import Source, key
from hms_ray.study.oof import OofTable
from hms_ray.tasks import Task

TARGET_TOLERANCE = 1e-3  # CSV round-offs of shares pass; other votes differ by more
COPY_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Member:
    """One file's predictions, checked row by row, in its order.

    unit_ids (N,), probs (N, K); targets (N, K) and folds (N,) where the file carries them
    are_votes: the predictions stand in `<class>_vote` columns, as in a submission and as in labels
    """

    source: Source
    unit_ids: np.ndarray
    probs: np.ndarray
    targets: np.ndarray | None
    folds: np.ndarray | None
    are_votes: bool

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.source.path.stem

    def table(self, template: OofTable) -> OofTable:
        """Return the predictions for the template's units, all of which the file has."""
        rows = pd.Index(self.unit_ids).get_indexer(template.unit_ids)
        return replace(template, probs=self.probs[rows], trial=self.name)


def read_member(source: Source, ids: Sequence[str], task: Task, named: Sequence[str], faults: Faults) -> Member | None:
    """Check what can be checked without the labels' rows; None and noted faults where that fails."""
    before = len(faults)
    unit_ids = faults.attempt(source.unit_ids, ids) if ids else None
    columns = faults.attempt(class_columns, source, task.classes, named) or []
    probs = faults.attempt(_probs, source, columns, task) if columns else None
    targets = faults.attempt(_targets, source, task, columns) if columns else None
    folds = faults.attempt(source.whole_numbers, "fold", 0) if "fold" in source else None
    if unit_ids is None or probs is None or len(faults) > before:
        return None
    votes = [key(VOTE.format(name)) for name in task.classes]
    return Member(source, unit_ids, probs, targets, folds, [key(name) for name in columns] == votes)


def common_rows(members: Sequence[Member], template: OofTable) -> np.ndarray:
    """Return the mask (N,) of the labels' rows that every member has."""
    has = [np.isin(template.unit_ids, member.unit_ids) for member in members]
    return np.logical_and.reduce(has, initial=True)  # of no members: all rows


def misfits(member: Member, template: OofTable, labels: Source, ids: Sequence[str]) -> Iterator[str]:
    """Say in which rows a file contradicts the labels."""
    place = pd.Index(template.unit_ids).get_indexer(member.unit_ids)  # -1 for rows that the labels lack
    known = place >= 0
    if member.folds is not None:
        other = known & (member.folds != template.folds[place])
        if other.any():
            yield member.source.fault(other, f"in another fold than in {labels.path}")
    if member.targets is not None:
        other = known & ~(_distance(member.targets, template.targets[place]) <= TARGET_TOLERANCE)
        if other.any():
            yield member.source.fault(other, f"with other targets than {labels.path}, by their {'-'.join(ids)}")
    copied = _distance(member.probs, template.targets[place])[known] <= COPY_TOLERANCE
    if member.are_votes and copied.any() and copied.all():
        forms = VOTE.format("<class>")
        yield f"{member.source.path}: its {forms} columns are the votes of {labels.path} themselves, not predictions"


def absences(
    member: Member, template: OofTable, labels: Source, ids: Sequence[str], common: np.ndarray | None
) -> Iterator[str]:
    """Say which rows a file lacks or has alone. common: the mask (N,) of rows that every file has, if that is known."""
    joined = "-".join(ids)
    extra = ~np.isin(member.unit_ids, template.unit_ids)
    if extra.any():
        yield member.source.fault(extra, f"whose {joined} {labels.path} does not have") + _way_out(common)
    missing = np.setdiff1d(template.unit_ids, member.unit_ids)
    if len(missing):
        what = f"missing {len(missing)} rows, for {joined} of {labels.path}: {few(missing)}"
        yield f"{member.source.path}: {what}" + _way_out(common)


def nothing_common(members: Sequence[Member], template: OofTable, labels: Source) -> DataError:
    """Return the error of files that have no row in common, with an id of each side to compare."""
    first = template.unit_ids[0]
    has = [
        f"{member.source.path} has {np.isin(template.unit_ids, member.unit_ids).sum()}, its first id is "
        f"{str(member.unit_ids[0])!r}"
        for member in members
    ]
    rule = f"no row of {labels.path} ({len(template.unit_ids)} rows, the first id is {str(first)!r}) is in every file"
    return DataError(f"{rule}: {few(has)}")


def notes(members: Sequence[Member], template: OofTable, labels: Source, common: np.ndarray) -> list[str]:
    """Say what was left out: rows that some file lacks, and rows that the labels lack."""
    counts = [(m.source.path.name, np.isin(m.unit_ids, template.unit_ids)) for m in members]
    lacks = [f"{name} lacks {n:,}" for name, known in counts if (n := len(template.unit_ids) - known.sum())]
    found = [f"ignored {n:,} rows of {name} that {labels.path.name} lacks" for name, k in counts if (n := (~k).sum())]
    if lacks:
        rows = f"{common.sum():,} of {len(common):,} rows of {labels.path.name}"
        found.insert(0, f"scored on the {rows} that every file has; {few(lacks)}")
    return found


def _way_out(common: np.ndarray | None) -> str:
    if common is not None and not common.any():
        return "; and no row is in every file"
    number = "" if common is None else f"{common.sum():,} "
    return f"; --allow-missing would score the {number}rows that every file has"


def _probs(source: Source, columns: Sequence[str], task: Task) -> np.ndarray:
    probs = source.numbers(columns)
    task.check_probs(probs, str(source.path))
    return probs


def _targets(source: Source, task: Task, chosen: Sequence[str]) -> np.ndarray | None:
    """Return the carried targets as shares; a row without votes is NaN, which no target is."""
    columns = carried_targets(source, task.classes, chosen)
    if not columns:
        return None
    values = source.numbers(columns)
    total = values.sum(1, keepdims=True)
    return np.divide(values, total, out=np.full_like(values, np.nan), where=total > 0)


def _distance(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    return np.abs(ours - theirs).max(1)
