"""Checks of the arrays that a user passes: every fault is named before anything is fitted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hms_ray import tasks
from hms_ray.core.errors import DataError, raise_all
from hms_ray.ensemble.rows import Rows
from hms_ray.study.oof import deal_folds
from hms_ray.tasks import Task

FEW = 5


def make_task(task: str | Task, n_classes: int) -> Task:
    """Return the task, or a task of this kind with numbered classes."""
    if isinstance(task, Task):
        return task
    return tasks.from_dict({"kind": task, "classes": [str(k) for k in range(n_classes)]})


def make_rows(
    probs: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray | None,
    folds: np.ndarray | None,
    weights: np.ndarray | None,
    task: str | Task,
    names: Sequence[str] | None,
    families: Sequence[str] | None,
) -> Rows:
    """Check arrays and convert them to the task's outcomes; arguments as in `fit`.

    Raises:
        DataError: wrong shapes, invalid values, or a group in several folds; all faults at once.
    """
    probs, targets = np.asarray(probs), np.asarray(targets, np.float64)
    if probs.ndim != 3 or not probs.size or targets.shape != (probs.shape[0], probs.shape[2]):
        raise DataError(f"probs must be (N, M, K) and targets (N, K), but they are {probs.shape} and {targets.shape}")
    n, m, k = probs.shape
    task = make_task(task, k)
    names = tuple(f"member {i}" for i in range(m)) if names is None else tuple(map(str, names))
    families = ("",) * m if families is None else tuple(map(str, families))
    groups = np.arange(n) if groups is None else np.asarray(groups)
    weight = np.ones(n) if weights is None else np.asarray(weights, np.float64)
    faults = [
        f"{name} must have {length} entries, but its shape is {np.shape(values)}"
        for name, values, length in (
            ("groups", groups, n),
            ("folds", np.zeros(n) if folds is None else folds, n),
            ("weights", weight, n),
            ("names", names, m),
            ("families", families, m),
        )
        if np.shape(values) != (length,)
    ]
    raise_all(faults, DataError, "arrays that do not fit probs")
    folds = deal_folds(groups) if folds is None else np.asarray(folds)
    bad = np.flatnonzero(~(np.isfinite(weight) & (weight >= 0)))
    if len(bad):
        faults = [f"weights must be finite and not negative; {len(bad)} are not: rows {_first(bad)}"]
    elif not weight.any():
        faults = ["weights are all 0: nothing would be fitted"]
    faults += [*_fold_faults(folds, groups), *_prediction_faults(probs, task, names)]
    faults += _faults(task.check_targets, targets, "targets")
    raise_all(faults, DataError, "arrays")
    return Rows(task, task.outcomes(probs), task.outcomes(targets), folds, groups, weight, names, families)


def check_predictions(probs: np.ndarray, task: Task, names: Sequence[str]) -> None:
    """Raise DataError unless probs (N, M, K) are predictions of these members; name the fault of every member."""
    raise_all(_prediction_faults(probs, task, names), DataError, "probs")


def _prediction_faults(probs: np.ndarray, task: Task, names: Sequence[str]) -> list[str]:
    return [fault for m, name in enumerate(names) for fault in _faults(task.check_probs, probs[:, m], name)]


def _faults(check: Callable[[np.ndarray, str], None], rows: np.ndarray, name: str) -> list[str]:
    """Return the message of a task's check if it rejects rows (N, K)."""
    try:
        check(rows, name)
    except DataError as error:
        return [str(error)]
    return []


def _fold_faults(folds: np.ndarray, groups: np.ndarray) -> list[str]:
    if folds.dtype.kind not in "iu":
        return [f"folds must be whole numbers, but they are {folds.dtype}"]
    pairs = np.unique(np.stack([np.unique(groups, return_inverse=True)[1], folds]), axis=1)[0]
    split = np.unique(groups)[np.flatnonzero(np.bincount(pairs) > 1)]
    faults = [f"folds split {len(split)} groups over several folds: {_first(split)}"] if len(split) else []
    present = np.unique(folds)
    if len(present) < 2:
        faults.append(f"cross-fitting needs 2 folds or more; all rows are of fold {present[0]}")
    return faults


def _first(values: np.ndarray) -> str:
    shown = ", ".join(map(str, values[:FEW].tolist()))
    return shown + (f" ... ({len(values)} in all)" if len(values) > FEW else "")
