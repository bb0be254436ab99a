"""Warnings about the rows and the fit that a reader of the scores needs: clipped predictions, empty folds, leaks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hms_ray.ensemble import TOLERANCE, leaks
from hms_ray.ensemble.pools._base import Pool, kind
from hms_ray.ensemble.result import MethodScore
from hms_ray.ensemble.rows import Rows
from hms_ray.tasks import CLIP


def member_losses(rows: Rows) -> np.ndarray:
    """Return the loss of each member on each scored unit, (n, M)."""
    units = np.flatnonzero(rows.scored)
    return np.stack([rows.losses(rows.probs[units, m], units) for m in range(rows.n_members)], axis=1)


def of(rows: Rows, unit_names: np.ndarray, losses: np.ndarray | None = None) -> list[str]:
    """Return all notes on the rows; unit_names (N,); losses: from `member_losses`, computed if None."""
    losses = member_losses(rows) if losses is None else losses
    notes = [
        f"{name}: {count} predictions are 0 where the target is not; they are scored as {CLIP:g}"
        for name, count in zip(rows.names, rows.contradicted().tolist(), strict=True)
        if count
    ]
    for fold in rows.fold_numbers:
        scored = rows.scored & (rows.folds == fold)
        targets = rows.task.from_outcomes(rows.targets[scored])
        missing = [name for k, name in enumerate(rows.task.classes) if not targets[:, k].any()]
        if scored.any() and missing:
            notes.append(f"fold {fold} has no scored unit of {', '.join(missing)}")
    return [*notes, *leaks.notes(rows, losses, unit_names[rows.scored])]


def of_constant(rows: Rows, pool: Pool) -> list[str]:
    """Return a note if no member has weight, so that the pool predicts the same for every unit."""
    if (pool.weights > 0).any():
        return []
    constant = rows.task.from_outcomes(pool.predict(rows.probs[:1]))[0]
    shares = ", ".join(f"{name} {share:.4f}" for name, share in zip(rows.task.classes, constant, strict=True))
    return [
        f"no member has weight in the {kind(pool)} pool: no member separates the classes better than the class bias "
        f"alone; it predicts the same for every unit ({shares})"
    ]


def of_epochs(optimistic: Sequence[str], candidates: int) -> list[str]:
    """Return a note if epochs of candidates were chosen on the rows that the candidates are scored on."""
    if not optimistic:
        return []
    return [
        f"the epochs of {len(optimistic)} of {candidates} candidates were chosen on the rows that they are scored on, "
        "so their scores, and the scores of every pool of them, are optimistic"
    ]


def of_gaps(methods: Sequence[MethodScore]) -> list[str]:
    """Return a note if a fit stopped before its duality gap was closed."""
    gaps = [gap for method in methods for gap in (method.gap, method.gap_by_fold) if gap is not None]
    if max(gaps, default=0) < TOLERANCE:
        return []
    return [f"weights are not certified: the duality gap is {max(gaps):.3g}, not below {TOLERANCE:g}"]
