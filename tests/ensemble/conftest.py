"""Small ensemble problems: rows of any task whose members differ in noise, and a study's folder of such tables."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hms_ray import tasks
from hms_ray.core.seeds import stream
from hms_ray.ensemble.rows import Rows
from hms_ray.study.folder import StudyFolder
from hms_ray.study.oof import OofTable

TASK = tasks.from_dict({"kind": "votes", "classes": ["a", "b", "c"]})
DATA = {"name": "made up", "params": {}, "fingerprint": "data", "units": 1, "groups": 1}


@pytest.fixture(scope="session")
def make_rows() -> Callable[..., Rows]:
    """The function that makes rows; its arguments are below."""
    return _rows


@pytest.fixture(scope="session")
def other_targets() -> Callable[[Rows, np.ndarray], Rows]:
    """The function that gives the units of a mask other targets, each outcome those of the next: other(rows, mask)."""
    return _other_targets


@pytest.fixture(scope="session")
def make_study() -> Callable[..., StudyFolder]:
    """The function that writes a study; its arguments are below."""
    return _study


def _rows(
    *,
    n_groups: int = 24,
    per_group: int = 2,
    n_members: int = 4,
    n_classes: int = 3,
    n_folds: int = 3,
    kind: str = "votes",
    noise: Sequence[float] | None = None,
    families: Sequence[str] | None = None,
    weight: np.ndarray | None = None,
    seed: int = 0,
) -> Rows:
    """Make units of twelve votes each, or of yes-or-no labels, and members that see the truth through noise."""
    rng, n_units = stream(seed, "rows", kind), n_groups * per_group
    tail = (n_classes,) if kind == "votes" else (n_classes, 2)
    truth = rng.dirichlet(np.ones(tail[-1]), (n_units, *tail[:-1]))
    noise = 0.5 + 0.2 * np.arange(n_members) if noise is None else noise
    error = np.stack([rng.normal(0, spread, truth.shape) for spread in noise], axis=1)  # (N, M, ..., K)
    seen = truth[:, None] * np.exp(error)
    votes = 12 if kind == "votes" else 1
    groups = np.repeat(np.arange(n_groups), per_group)
    return Rows(
        task=tasks.from_dict({"kind": kind, "classes": list("abcdefgh"[:n_classes])}),
        probs=seen / seen.sum(-1, keepdims=True),
        targets=rng.multinomial(votes, truth) / votes,
        folds=groups % n_folds,
        groups=groups,
        weight=np.ones(n_units) if weight is None else weight,
        names=tuple(f"m{m}" for m in range(len(noise))),
        families=("",) * len(noise) if families is None else tuple(families),
    )


def _other_targets(rows: Rows, mask: np.ndarray) -> Rows:
    targets = rows.targets.copy()
    targets[mask] = np.roll(targets[mask], 1, axis=-1)
    return replace(rows, targets=targets)


def _study(
    root: Path,
    n_members: int = 4,
    n_units: int = 120,
    spaces: Sequence[str] = ("cnn",),
    n_tried: int = 0,
    kind: str = "votes",
    plain: float | None = None,
    **changes: Any,
) -> StudyFolder:
    """Write a study of members of unequal noise, their spaces in turn; half of the units have ten votes or more.

    kind: "votes", or "multilabel": labels a, b, c of 0 and 1, one vote a unit; plain: the noise of a plain baseline
    n_tried: how many configurations of one noise were tried beside the members; of these and of the members the tables
    of single folds are written. changes: to fields of every table
    """
    folder, rng = StudyFolder(root / "study"), stream(0, "study")
    truth = rng.dirichlet(np.ones(3), n_units)
    task, votes = tasks.from_dict({"kind": kind, "classes": list(TASK.classes)}), 12 if kind == "votes" else 1
    targets = rng.multinomial(12, truth) / 12
    shared = {
        "unit_ids": np.array([f"u{i:03}" for i in range(n_units)]),
        "group_ids": np.array([f"p{i // 2:03}" for i in range(n_units)]),
        "folds": np.arange(n_units) // 2 % 3,
        "votes": np.tile([min(2, votes), votes], n_units // 2),
        "targets": targets if kind == "votes" else (truth > rng.random(truth.shape)).astype(float),
        "task": task,
        "data_fingerprint": "data",
        "folds_fingerprint": "folds",
    }
    for m in range(n_members + n_tried):
        probs = _seen(task, truth, 0.5 + 0.2 * min(m, n_members), rng)
        space = spaces[m % len(spaces)]
        own = {"probs": probs, "trial": f"{space}-{m:04}", "space": space}
        table = OofTable(**{**shared, **own, **changes})
        if m < n_members:
            table.write(folder.oof(table.trial))
        if n_tried:
            _write_folds(folder, table)
    if plain is not None:
        own = {"probs": _seen(task, truth, plain, rng), "trial": "plain", "space": "baseline"}
        OofTable(**{**shared, **own, **changes}).write(folder.baseline)
    identity = {"task": task.to_dict(), "data": DATA, "folds": {"k": 3, "seed": 0, "fingerprint": "folds"}}
    folder.claim({**identity, "score": {"min_votes": min(10, votes)}, "epoch": "last"})
    return folder


def _seen(task: tasks.Task, truth: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Predictions (N, K) of somebody who sees the truth through noise."""
    odds = truth / (1 - truth) if task.asks_each_class else truth
    noisy = odds * np.exp(rng.normal(0, noise, truth.shape))
    return noisy / (1 + noisy if task.asks_each_class else noisy.sum(1, keepdims=True))


def _write_folds(folder: StudyFolder, table: OofTable) -> None:
    """Write the table of each fold as training does, in an order of its own."""
    for k in np.unique(table.folds):
        rows = np.flatnonzero(table.folds == k)[::-1]
        parts = ("unit_ids", "group_ids", "folds", "votes", "targets", "probs")
        part = replace(table, **{name: getattr(table, name)[rows] for name in parts})
        part.write(folder.trial(table.trial).fold(k).oof)
