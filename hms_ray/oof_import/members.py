"""The files of predictions: their content, their agreement with the labels, and the rows that all of them have."""

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

TARGET_TOLERANCE = 1e-3  # more than rounding of shares in CSV, less than the difference of one vote
COPY_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Member:
    """The checked predictions of one file, in its order.

    unit_ids (N,), probs (N, K); targets (N, K) and folds (N,) if the file has them
    are_votes: the predictions are in `<class>_vote` columns, as in a submission and as in labels
    """

    source: Source
    unit_ids: np.ndarray
    probs: np.ndarray
    targets: np.ndarray | None
    folds: np.ndarray | None
    are_votes: bool

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return self.source.path.stem

    def table(self, template: OofTable) -> OofTable:
        """Return the predictions for the template's units; the file has all of them."""
        rows = pd.Index(self.unit_ids).get_indexer(template.unit_ids)
        return replace(template, probs=self.probs[rows], trial=self.name)


def read_member(source: Source, ids: Sequence[str], task: Task, named: Sequence[str], faults: Faults) -> Member | None:
    """Return the predictions of a file, checked apart from the labels; None and noted faults if they are invalid."""
    before = len(faults)
    unit_ids = faults.attempt(source.unit_ids, ids) if ids else None
    columns = faults.attempt(class_columns, source, task.classes, named) or []
    probs = faults.attempt(source.numbers, columns) if columns else None
    if probs is not None:
        faults.attempt(task.check_probs, probs, str(source.path))
    targets = faults.attempt(_targets, source, task, columns) if columns else None
    folds = faults.attempt(source.whole_numbers, "fold", 0) if "fold" in source else None
    if unit_ids is None or probs is None or len(faults) > before:
        return None
    votes = [key(VOTE.format(name)) for name in task.classes]
    return Member(source, unit_ids, probs, targets, folds, [key(name) for name in columns] == votes)


def common_rows(members: Sequence[Member], template: OofTable) -> np.ndarray:
    """Return the mask (N,) of the labels' rows that every member has."""
    has = [np.isin(template.unit_ids, member.unit_ids) for member in members]
    return np.logical_and.reduce(has, initial=True)  # without members: all rows


def misfits(member: Member, template: OofTable, labels: Source, ids: Sequence[str]) -> Iterator[str]:
    """Yield a sentence for each way in which a file contradicts the labels."""
    rows = pd.Index(template.unit_ids).get_indexer(member.unit_ids)  # -1 for rows that the labels lack
    known = rows >= 0
    if member.folds is not None:
        other = known & (member.folds != template.folds[rows])
        if other.any():
            yield member.source.fault(other, f"in another fold than in {labels.path}")
    if member.targets is not None:
        other = known & ~(np.abs(member.targets - template.targets[rows]).max(1) <= TARGET_TOLERANCE)
        if other.any():
            yield member.source.fault(other, f"with other targets than {labels.path}, by their {'-'.join(ids)}")
    copied = np.abs(member.probs - template.targets[rows]).max(1)[known] <= COPY_TOLERANCE
    if member.are_votes and copied.any() and copied.all():
        forms = VOTE.format("<class>")
        yield f"{member.source.path}: its {forms} columns are the votes of {labels.path} themselves, not predictions"


def absences(
    member: Member, template: OofTable, labels: Source, ids: Sequence[str], common: np.ndarray | None
) -> Iterator[str]:
    """Yield which rows a file lacks, and which the labels lack; common: rows (N,) that all files have, if known."""
    joined = "-".join(ids)
    if common is not None and not common.any():
        advice = "; and no row is in every file"
    else:
        number = "" if common is None else f"{common.sum():,} "
        advice = f"; --allow-missing would score the {number}rows that every file has"
    extra = ~np.isin(member.unit_ids, template.unit_ids)
    if extra.any():
        yield member.source.fault(extra, f"whose {joined} {labels.path} does not have") + advice
    missing = np.setdiff1d(template.unit_ids, member.unit_ids)
    if len(missing):
        rule = f"missing {len(missing)} rows, for {joined} of {labels.path}: {few(missing)}"
        yield f"{member.source.path}: {rule}{advice}"


def nothing_common(members: Sequence[Member], template: OofTable, labels: Source) -> DataError:
    """Return the error for files without a common row, with one id of each file for comparison."""
    first = template.unit_ids[0]
    has = [
        f"{member.source.path} has {np.isin(template.unit_ids, member.unit_ids).sum()}, its first id is "
        f"{str(member.unit_ids[0])!r}"
        for member in members
    ]
    rule = f"no row of {labels.path} ({len(template.unit_ids)} rows, the first id is {str(first)!r}) is in every file"
    return DataError(f"{rule}: {few(has)}")


def notes(members: Sequence[Member], template: OofTable, labels: Source, common: np.ndarray) -> list[str]:
    """Return notes on ignored rows: rows that some file lacks, and rows that the labels lack."""
    counts = [(m.source.path.name, np.isin(m.unit_ids, template.unit_ids)) for m in members]
    lacks = [f"{name} lacks {n:,}" for name, known in counts if (n := len(template.unit_ids) - known.sum())]
    texts = [f"ignored {n:,} rows of {name} that {labels.path.name} lacks" for name, k in counts if (n := (~k).sum())]
    if lacks:
        rows = f"{common.sum():,} of {len(common):,} rows of {labels.path.name}"
        texts.insert(0, f"scored on the {rows} that every file has; {few(lacks)}")
    return texts


def _targets(source: Source, task: Task, chosen: Sequence[str]) -> np.ndarray | None:
    """Return the targets in a file of predictions as shares; NaN, which equals no target, for a row without votes."""
    columns = carried_targets(source, task.classes, chosen)
    if not columns:
        return None
    values = source.numbers(columns)
    total = values.sum(1, keepdims=True)
    return np.divide(values, total, out=np.full_like(values, np.nan), where=total > 0)
