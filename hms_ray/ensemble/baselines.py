"""Baselines of the ensemble: the best member, the uniform average, and the class prior."""

import numpy as np

from hms_ray.ensemble.rows import Rows


def best_single(losses: np.ndarray, weight: np.ndarray) -> int:
    """Return the member with the best score on these rows; losses (n, M), weight (n,).

    It is chosen in hindsight, on the rows that it is scored on. This favours the baseline.
    """
    return int(np.argmin(weight @ losses))


def mean(rows: Rows) -> np.ndarray:
    """Return the uniform average of the members, (N, ..., K)."""
    return rows.probs.mean(1)


def prior(rows: Rows) -> np.ndarray:
    """Predict each fold by the best constant of the other folds' scored units, (N, ..., K).

    If the other folds have no scored unit, all their units are used.
    """
    constants = np.empty_like(rows.targets)
    for fold in rows.fold_numbers:
        others = rows.outside(frozenset({fold}))
        others = others if others.any() else rows.folds != fold
        weight = rows.weight[others] if rows.weight[others].any() else None
        constants[rows.folds == fold] = np.average(rows.targets[others], axis=0, weights=weight)
    return constants
