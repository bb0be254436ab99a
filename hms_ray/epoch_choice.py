"""Which epoch of a fold counts: chosen on the other folds, the last one, or the best, which flatters its score.

With short schedules the last epoch is rarely the best, and the best one on the rows that are scored is chosen with the
knowledge of them. The epoch that is best on the OTHER folds is neither. Epochs are counted from 1.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

Rule = Literal["cross_fitted", "last", "best"]


def reachable(rule: Rule, scores: Sequence[float], epochs: int) -> list[int]:
    """Return those of the trained epochs that may yet be chosen, or are, so that their weights are kept.

    scores: the held-out score of each trained epoch, NaN where nothing is scored; epochs: how many there will be
    """
    if rule == "last":
        return [epochs] if len(scores) == epochs else []
    if rule == "best":
        return [_lowest(np.asarray(scores))] if len(scores) else []
    return list(range(1, len(scores) + 1))


def choose(rule: Rule, scores: np.ndarray, units: np.ndarray) -> list[int]:
    """Return the epoch of each fold; of equal ones the first, and the last where nothing can choose.

    scores: (folds, epochs) held-out scores, NaN where a fold has none; units: (folds,) that are scored in each
    """
    if rule == "last":
        return [scores.shape[1]] * len(scores)
    if rule == "best":
        return [_lowest(row) for row in scores]
    return [_lowest(_mean_of_others(scores, units, fold)) for fold in range(len(scores))]


def _mean_of_others(scores: np.ndarray, units: np.ndarray, fold: int) -> np.ndarray:
    """Return the score of each epoch over the units of the other folds; NaN where there are none."""
    others = np.isfinite(scores).all(1) & (np.arange(len(scores)) != fold)
    if not others.any():
        return np.full(scores.shape[1], np.nan)
    return np.average(scores[others], axis=0, weights=units[others])


def _lowest(scores: np.ndarray) -> int:
    return int(np.nanargmin(scores)) + 1 if np.isfinite(scores).any() else len(scores)
