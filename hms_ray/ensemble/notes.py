"""What a reader has to know about the rows before believing a score: clipped predictions, empty folds, leaks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from hms_ray.ensemble import leaks
from hms_ray.ensemble.pools._base import Pool, kind
from hms_ray.ensemble.rows import Rows
from hms_ray.tasks import CLIP


def member_losses(rows: Rows) -> np.ndarray:
    """Return each member's score on each scored unit, (n, M)."""
    units = np.flatnonzero(rows.scored)
    return np.stack([rows.losses(rows.probs[units, m], units) for m in range(rows.n_members)], axis=1)


def of(rows: Rows, unit_names: np.ndarray, losses: np.ndarray | None = None) -> list[str]:
    """Return every such sentence; unit_names (N,); losses: what `member_losses` returns, if that is known already."""
    losses = member_losses(rows) if losses is None else losses
    return [*_contradicted(rows), *_absent(rows), *leaks.notes(rows, losses, unit_names[rows.scored])]


def of_constant(rows: Rows, pool: Pool) -> list[str]:
    """Return the sentence on a pool in which no member has weight, so that it predicts alike for every unit."""
    if (pool.weights > 0).any():
        return []
    constant = rows.task.from_outcomes(pool.predict(rows.probs[:1]))[0]
    shares = ", ".join(f"{name} {share:.4f}" for name, share in zip(rows.task.classes, constant, strict=True))
    return [
        f"no member has weight in the {kind(pool)} pool, since none tells the classes apart better than its class bias "
        f"does alone: it predicts the same for every unit ({shares})"
    ]


def of_epochs(optimistic: Sequence[str], candidates: int) -> list[str]:
    """Return the sentence on candidates whose epochs were chosen on the rows that they are scored on, if any were."""
    if not optimistic:
        return []
    return [
        f"the epochs of {len(optimistic)} of {candidates} candidates were chosen on the rows that they are scored on, "
        "so that their scores, and those of every pool of them, are optimistic"
    ]


def _contradicted(rows: Rows) -> Iterator[str]:
    for name, count in zip(rows.names, rows.contradicted(), strict=True):
        if count:
            yield f"{name}: {count} predictions are 0 where the target is not; they are scored as {CLIP:g}"


def _absent(rows: Rows) -> Iterator[str]:
    """Say which outcomes a fold has no scored unit of, so that its score says nothing about them."""
    for fold in rows.fold_numbers:
        here = rows.scored & (rows.folds == fold)
        present = rows.task.from_outcomes(rows.targets[here]).any(0)
        missing = [name for name, there in zip(rows.task.classes, present, strict=True) if not there]
        if here.any() and missing:
            yield f"fold {fold} has no scored unit of {', '.join(missing)}"
