"""Metrics of cross-fitted predictions beside the score, where classes are questions also at thresholds of other folds.

A threshold chosen on the rows that it is used on flatters the F1, as weights fitted on them flatter the score; so each
fold's thresholds are chosen on the others.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hms_ray.ensemble import auroc
from hms_ray.ensemble.bootstrap import Estimate
from hms_ray.ensemble.nested import CrossFit
from hms_ray.ensemble.result import PredictionMetrics
from hms_ray.ensemble.rows import Rows


def of_pool(rows: Rows, nested: CrossFit) -> PredictionMetrics:
    """Describe a pool's cross-fitted predictions: its metrics, `thresholds` by fold, and those `thresholded` by them.

    The thresholds of a fold are chosen on the other folds' scored units, as the pool fitted there predicts them.
    """

    def predict(fold: int, others: np.ndarray) -> np.ndarray:
        return rows.task.from_outcomes(nested.pools[fold].predict(rows.probs[others]))

    return _figures(rows, rows.task.from_outcomes(nested.probs), predict)


def of_table(rows: Rows, probs: np.ndarray) -> PredictionMetrics:
    """Describe out-of-fold predictions (N, K) of one model likewise; thresholds are chosen on the others of them."""
    return _figures(rows, probs, lambda fold, others: probs[others])


def aurocs(
    rows: Rows, ours: np.ndarray, plain: np.ndarray | None, rng: np.random.Generator
) -> tuple[Estimate | None, Estimate | None, Estimate | None]:
    """Return our macro AUROC, the plain baseline's, and by how much ours is higher, with intervals from the same draws.

    ours, plain: predictions (N, K). All are None where no class is a question of its own, the latter two where there is
    no plain baseline.
    """
    if not rows.task.asks_each_class:
        return None, None, None
    truth, here = rows.task.decide(rows.task.from_outcomes(rows.targets)), rows.scored
    probs = np.stack([predictions[here] for predictions in (ours, plain) if predictions is not None])
    estimates = auroc.estimates(truth[here], probs, rows.groups[here], rng)
    if plain is None:
        return estimates[0], None, None
    of_ours, of_plain, gain = estimates
    return of_ours, of_plain, gain


def thresholds(rows: Rows, predict: Callable[[int, np.ndarray], np.ndarray]) -> dict[int, np.ndarray] | None:
    """Choose each fold's thresholds (K,) on the other folds; None where decisions are no matter of thresholds.

    predict: from a fold and units outside it, a mask (N,), to their predictions (n, K) that know nothing of the fold
    """
    if not rows.task.asks_each_class:
        return None
    targets = rows.task.from_outcomes(rows.targets)
    outside = {fold: rows.outside(frozenset({fold})) for fold in rows.fold_numbers}
    return {fold: rows.task.thresholds(targets[mask], predict(fold, mask)) for fold, mask in outside.items()}


def _figures(rows: Rows, probs: np.ndarray, predict: Callable[[int, np.ndarray], np.ndarray]) -> PredictionMetrics:
    here, by_fold = rows.scored, thresholds(rows, predict)
    of_units = rows.task.from_outcomes(rows.targets)[here], probs[here]
    figures = rows.task.metrics(*of_units).to_dict()
    if by_fold is None:
        return PredictionMetrics(**figures, thresholds=None, thresholded=None)
    by_unit = np.stack([by_fold[fold] for fold in rows.folds[here].tolist()])  # (n, K)
    return PredictionMetrics(
        **figures,
        thresholds={str(fold): tuple(row.tolist()) for fold, row in by_fold.items()},
        thresholded=rows.task.metrics(*of_units, by_unit).to_dict(),
    )
