"""Which epoch of a fold counts: chosen on the other folds, the last one, or the best, which flatters its score.

With short schedules the last epoch is rarely the best, and the best one on the rows that are scored is chosen with the
knowledge of them. The epoch that is best on the OTHER folds is neither. Only the last epochs of a schedule are
candidates, since the weights of each lie on disk until one is chosen. Epochs are counted from 1.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from hms_ray.params import Params

Rule = Literal["cross_fitted", "last", "best"]


class Candidates(Params):
    """The epochs among which one is chosen: the last ones of a fold's schedule; each evaluation counts as an epoch."""

    share: float = Field(1 / 3, gt=0, le=1, description="of the schedule, rounded up: its last epochs may be chosen")
    most: int = Field(8, ge=1, le=100_000, description="and at most so many; the weights of each need disk space")

    def count(self, rule: Rule, epochs: int) -> int:
        """Return how many epochs of a schedule of so many may be chosen."""
        return 1 if rule == "last" else min(self.most, math.ceil(self.share * epochs))

    def first(self, rule: Rule, epochs: int) -> int:
        """Return the first epoch that may be chosen."""
        return epochs - self.count(rule, epochs) + 1


EVERY = Candidates(share=1, most=100_000)  # as in studies from before there were candidates


def reachable(rule: Rule, candidates: Candidates, scores: Sequence[float], epochs: int) -> list[int]:
    """Return those of the trained epochs that may yet be chosen, or are, so that their weights are kept.

    scores: the held-out score of each trained epoch, NaN where nothing is scored; epochs: how many there will be
    """
    first = candidates.first(rule, epochs)
    if rule == "best" and len(scores) >= first:
        return [_lowest(np.asarray(scores), first)]
    return list(range(first, len(scores) + 1))


def choose(rule: Rule, candidates: Candidates, scores: np.ndarray, units: np.ndarray) -> list[int]:
    """Return the epoch of each fold; of equal ones the first, and the last where nothing can choose.

    scores: (folds, epochs) held-out scores, NaN where a fold has none; units: (folds,) that are scored in each
    """
    first = candidates.first(rule, scores.shape[1])
    if rule == "cross_fitted":
        return [_lowest(_mean_of_others(scores, units, fold), first) for fold in range(len(scores))]
    return [_lowest(row, first) for row in scores]


def as_ended(rule: Rule, candidates: Candidates, scores: Sequence[float], epochs: int) -> np.ndarray:
    """Return the score that a fold would have, had it ended after each epoch: that epoch's own, or by the rule "best"
    the lowest of the candidates so far."""
    scores = np.array(scores, dtype=float)
    if rule == "best":
        start = candidates.first(rule, epochs) - 1
        scores[start:] = np.fmin.accumulate(scores[start:])
    return scores


def _mean_of_others(scores: np.ndarray, units: np.ndarray, fold: int) -> np.ndarray:
    """Return the score of each epoch over the units of the other folds; NaN where there are none."""
    others = np.isfinite(scores).all(1) & (np.arange(len(scores)) != fold)
    if not others.any():
        return np.full(scores.shape[1], np.nan)
    return np.average(scores[others], axis=0, weights=units[others])


def _lowest(scores: np.ndarray, first: int) -> int:
    """Return the epoch of the lowest score from the `first` on, the last one where there is no score."""
    scores = scores[first - 1 :]
    return first + (int(np.nanargmin(scores)) if np.isfinite(scores).any() else len(scores) - 1)
