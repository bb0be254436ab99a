"""Which epoch of a fold counts: chosen on the other folds, the last one, or the best, which flatters its score.

The best epoch on the rows that are scored is chosen with the knowledge of them; the one that is best on the OTHER folds
is not. But where the scores of epochs differ by chance alone, choosing among them makes the score worse than that of
the last epoch: an earlier one is chosen only where it is better on the other folds by more than the standard error of
that difference, counted over folds. In schedules that go on after the network has learnt what it can, that is plain.

Weights of the epochs that may be chosen lie on disk until one is. Epochs are counted from 1.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from hms_ray.core.params import Params

Rule = Literal["cross_fitted", "last", "best"]


class Candidates(Params):
    """The epochs among which one is chosen: of the last ones of a fold's schedule; each evaluation counts as an
    epoch."""

    share: float = Field(
        1 / 3, gt=0, le=1, description="of the schedule, rounded up: of its last epochs, one is chosen"
    )
    most: int = Field(
        3, ge=1, le=100_000, description="so many of them at equal distances; the weights of each need disk space"
    )

    def epochs(self, rule: Rule, total: int) -> list[int]:
        """Return those of a schedule of so many epochs that may be chosen; the last one always may.

        The best epoch so far is known at any time, so that its weights alone are kept: there, all may be chosen.
        """
        if rule == "last":
            return [total]
        first = total - math.ceil(self.share * total) + 1
        count = total - first + 1 if rule == "best" else min(self.most, total - first + 1)
        return [int(epoch) for epoch in np.linspace(total, first, count).round()[::-1]]

    def files(self, rule: Rule, total: int) -> int:
        """Return how many epochs of a fold have their weights kept until one is chosen."""
        return 1 if rule == "best" else len(self.epochs(rule, total))


EVERY = Candidates(share=1, most=100_000)  # as in studies from before there were candidates


def reachable(rule: Rule, candidates: Candidates, scores: Sequence[float], epochs: int) -> list[int]:
    """Return those of the trained epochs that may yet be chosen, or are, so that their weights are kept.

    scores: the held-out score of each trained epoch, NaN where nothing is scored; epochs: how many there will be
    """
    there = [epoch for epoch in candidates.epochs(rule, epochs) if epoch <= len(scores)]
    return [_lowest(np.asarray(scores), there)] if rule == "best" and there else there


def choose(rule: Rule, candidates: Candidates, scores: np.ndarray, units: np.ndarray) -> list[int]:
    """Return the epoch of each fold, the last one where nothing can choose; of equally good ones the best is the first.

    scores: (folds, epochs) held-out scores, NaN where a fold has none; units: (folds,) that are scored in each
    """
    epochs = candidates.epochs(rule, scores.shape[1])
    if rule == "cross_fitted":
        return [_surely_better(scores, units, fold, epochs) for fold in range(len(scores))]
    return [_lowest(row, epochs) for row in scores]


def as_ended(rule: Rule, candidates: Candidates, scores: Sequence[float], epochs: int) -> np.ndarray:
    """Return the score that a fold would have, had it ended after each epoch: that epoch's own, or by the rule "best"
    the lowest of the candidates so far."""
    ended = np.array(scores, dtype=float)
    if rule == "best":
        start = candidates.epochs(rule, epochs)[0] - 1
        ended[start:] = np.fmin.accumulate(ended[start:])
    return ended


def _surely_better(scores: np.ndarray, units: np.ndarray, fold: int, epochs: Sequence[int]) -> int:
    """Return the epoch that on the other folds is better than the last by most beyond its standard error, else the
    last."""
    others = np.isfinite(scores).all(1) & (np.arange(len(scores)) != fold)
    if others.sum() < 2:  # one tells no error
        return epochs[-1]
    shares = units[others] / units[others].sum()
    apart = scores[others][:, np.array(epochs) - 1] - scores[others, -1:]
    mean = shares @ apart
    squares = shares**2 @ (apart - mean) ** 2
    error = np.sqrt(squares * len(shares) / (len(shares) - 1))
    return epochs[::-1][int((mean + error)[::-1].argmin())]  # of equal ones the later


def _lowest(scores: np.ndarray, epochs: Sequence[int]) -> int:
    """Return which of the epochs has the lowest score, the last one where there is no score."""
    found = scores[np.array(epochs) - 1]
    return epochs[int(np.nanargmin(found))] if np.isfinite(found).any() else epochs[-1]
