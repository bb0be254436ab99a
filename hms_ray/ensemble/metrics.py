"""Metrics of cross-fitted predictions; if each class is a question of its own, also at chosen thresholds.

A threshold that is chosen on the rows where it is used makes the F1 optimistic. So the thresholds of each fold are
chosen on the other folds.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hms_ray.ensemble import auroc
from hms_ray.ensemble.bootstrap import Estimate
from hms_ray.ensemble.nested import CrossFit
from hms_ray.ensemble.result import EnsembleMetrics, MetricFigures, PredictionMetrics, VotesScore
from hms_ray.ensemble.rows import Rows


def of_study(
    rows: Rows,
    cross_fit: CrossFit,
    plain: np.ndarray | None,
    by_min_votes: tuple[VotesScore, ...],
    rng: np.random.Generator,
) -> tuple[EnsembleMetrics, PredictionMetrics | None]:
    """Return the metrics of cross-fitted predictions, and those of the plain baseline's predictions (N, K)."""
    area, area_of_plain, gain = aurocs(rows, rows.task.from_outcomes(cross_fit.probs), plain, rng)
    of_ensemble = dict(of_pool(rows, cross_fit)) | {"macro_auroc_interval": area}
    of_plain = None
    if plain is not None:
        of_plain = of_table(rows, plain).model_copy(update={"macro_auroc_interval": area_of_plain})
    return EnsembleMetrics(**of_ensemble, macro_auroc_gain=gain, score_by_min_votes=by_min_votes), of_plain


def of_pool(rows: Rows, cross_fit: CrossFit) -> PredictionMetrics:
    """Return the metrics of a pool's cross-fitted predictions, without and with thresholds.

    The thresholds of a fold are chosen on the scored units of the other folds, as the pool fitted there predicts them.
    """

    def predict(fold: int, others: np.ndarray) -> np.ndarray:
        return rows.task.from_outcomes(cross_fit.pools[fold].predict(rows.probs[others]))

    return _figures(rows, rows.task.from_outcomes(cross_fit.probs), predict)


def of_table(rows: Rows, probs: np.ndarray) -> PredictionMetrics:
    """Return the metrics of a model's out-of-fold predictions (N, K); thresholds are chosen on the other folds."""
    return _figures(rows, probs, lambda fold, others: probs[others])


def aurocs(
    rows: Rows, ensemble: np.ndarray, plain: np.ndarray | None, rng: np.random.Generator
) -> tuple[Estimate | None, Estimate | None, Estimate | None]:
    """Return the macro AUROC of the ensemble, that of the plain baseline, and the first minus the second.

    ensemble, plain: predictions (N, K); all intervals are from the same draws. All three are None unless each class is
    a question of its own; the last two are None without a plain baseline.
    """
    if not rows.task.asks_each_class:
        return None, None, None
    truth, scored = rows.task.decide(rows.task.from_outcomes(rows.targets)), rows.scored
    probs = np.stack([predictions[scored] for predictions in (ensemble, plain) if predictions is not None])
    estimates = auroc.estimates(truth[scored], probs, rows.groups[scored], rng)
    return (estimates[0], None, None) if plain is None else (estimates[0], estimates[1], estimates[2])


def thresholds(rows: Rows, predict: Callable[[int, np.ndarray], np.ndarray]) -> dict[int, np.ndarray] | None:
    """Choose the thresholds (K,) of each fold on the other folds; None if the task's decisions use no thresholds.

    predict: from a fold and a mask (N,) of units outside it to their predictions (n, K), which do not use the fold
    """
    if not rows.task.asks_each_class:
        return None
    targets = rows.task.from_outcomes(rows.targets)
    outside = {fold: rows.outside(frozenset({fold})) for fold in rows.fold_numbers}
    chosen = {fold: rows.task.thresholds(targets[mask], predict(fold, mask)) for fold, mask in outside.items()}
    return {fold: row for fold, row in chosen.items() if row is not None}


def _figures(rows: Rows, probs: np.ndarray, predict: Callable[[int, np.ndarray], np.ndarray]) -> PredictionMetrics:
    scored, by_fold = rows.scored, thresholds(rows, predict)
    of_units = rows.task.from_outcomes(rows.targets)[scored], probs[scored]
    figures = rows.task.metrics(*of_units).to_dict()
    if by_fold is None:
        return PredictionMetrics(**figures, thresholds=None, thresholded=None)
    by_unit = np.stack([by_fold[fold] for fold in rows.folds[scored].tolist()])  # (n, K)
    return PredictionMetrics(
        **figures,
        thresholds={str(fold): tuple(row.tolist()) for fold, row in by_fold.items()},
        thresholded=MetricFigures(**rows.task.metrics(*of_units, by_unit).to_dict()),
    )
