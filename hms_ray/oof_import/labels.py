"""The labels file: votes, folds and patients of every unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from hms_ray import tasks
from hms_ray.core import files
from hms_ray.core.errors import DataError
from hms_ray.oof_import.columns import VOTE, vote_classes
from hms_ray.oof_import.faults import few
from hms_ray.oof_import.ids import GROUP
from hms_ray.oof_import.source import EXACT, Source, key
from hms_ray.study.oof import OofTable, deal_folds
from hms_ray.tasks import Task

HMS_ORDER = ("seizure", "lpd", "gpd", "lrda", "grda", "other")
SPACE = "foreign"
FOLD = "fold"
ROWS = ("unit_ids", "group_ids", "folds", "votes", "targets", "probs")


def task_of(labels: Source) -> Task:
    """Return the task of the labels' classes, in the order of the competition if it is theirs, else of the columns.

    Raises:
        DataError: no column ends in `_vote`.
    """
    classes = vote_classes(labels)
    if not classes:
        have = few(labels.keys, 12)
        raise DataError(f"{labels.path}: labels need a column {VOTE.format('<class>')} for each class; it has {have}")
    if set(map(key, classes)) == set(HMS_ORDER):
        classes = list(HMS_ORDER)
    return tasks.default(classes)


def with_folds(labels: Source, predictions: Sequence[Source], ids: Sequence[str]) -> tuple[Source, list[str]]:
    """Return the labels with a fold for each row, and a note if the folds come from elsewhere.

    Labels without folds take those of a file of predictions; else patients are dealt to folds, as `fit` does.

    Raises:
        DataError: the file of predictions has folds for some of the rows only.
    """
    if FOLD in labels:
        return labels, []
    unit_ids = labels.unit_ids(ids)
    if carrier := next((source for source in predictions if FOLD in source), None):
        known = pd.Series(carrier.whole_numbers(FOLD, least=0), index=carrier.unit_ids(ids)).reindex(unit_ids)
        labels.refuse(known.isna().to_numpy(), f"without a fold: only {carrier.path} has a fold column, and lacks them")
        folds, note = known.astype(np.int64).to_numpy(), f"{labels.path.name} has no folds: {carrier.path.name}'s count"
    else:
        order = np.argsort(unit_ids)
        groups = (labels.strings(GROUP) if GROUP in labels else unit_ids)[order]
        folds = np.empty(len(unit_ids), np.int64)
        folds[order] = deal_folds(groups)
        by = GROUP if GROUP in labels else f"row, since it has no {GROUP} either: rows of one patient may be in several"
        note = f"{labels.path.name} has no folds: its rows were dealt to {len(np.unique(folds))} folds by {by}"
    return replace(labels, frame=labels.frame.assign(**{FOLD: folds})), [note]


def template(labels: Source, ids: list[str], task: Task) -> OofTable:
    """Build a table without predictions, sorted by unit_id.

    Raises:
        DataError: rows are repeated, votes, folds or patients of a row are invalid, or folds split a patient.
    """
    unit_ids = labels.unit_ids(ids)
    values = labels.numbers([VOTE.format(name) for name in task.classes])  # (N, K), counts or shares
    labels.refuse((np.abs(values) >= EXACT).any(1), "with votes that cannot be")
    total = values.sum(1, keepdims=True)
    if (values >= 0).all() and (values == np.round(values)).all():
        votes = total[:, 0].astype(np.int64)
        labels.refuse(votes == 0, "without any vote")
    else:
        task.check_targets(values, str(labels.path))
        votes = np.ones(len(values), dtype=np.int64)
    if "votes" in labels:
        votes = labels.whole_numbers("votes", least=1)
    shares = values / total
    groups = labels.strings(GROUP) if GROUP in labels else unit_ids
    folds = labels.whole_numbers(FOLD, least=0)
    split = pd.Series(folds).groupby(groups).nunique().loc[lambda n: n > 1].index
    if len(split):  # a model would be tested on patients that it was trained on
        raise DataError(f"{labels.path}: folds split {len(split)} {GROUP}s over several folds: {few(split)}")
    table = OofTable(
        unit_ids=unit_ids,
        group_ids=groups,
        folds=folds,
        votes=votes,
        targets=shares,
        probs=np.empty_like(shares),
        task=task,
        trial="",
        space=SPACE,
        data_fingerprint="",
        folds_fingerprint="",
    )
    return select(table, np.argsort(unit_ids))


def select(table: OofTable, rows: np.ndarray) -> OofTable:
    """Return these rows, a mask (N,) or positions, with new fingerprints."""
    kept = {name: getattr(table, name)[rows] for name in ROWS}
    assignment = [kept["unit_ids"].tolist(), kept["group_ids"].tolist()]
    data = [table.task.to_dict(), *assignment, kept["votes"].tolist(), kept["targets"].tolist()]
    return replace(
        table,
        **kept,
        data_fingerprint=files.fingerprint(*data),
        folds_fingerprint=files.fingerprint(*assignment, kept["folds"].tolist()),
    )
