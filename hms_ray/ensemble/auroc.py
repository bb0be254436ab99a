"""Intervals of the macro AUROC by a bootstrap over patients: each is drawn with all of its units, as for the score.

An AUROC is no mean over units, so that the interval is of plain percentiles.
"""

from __future__ import annotations

import numpy as np

from hms_ray.ensemble.bootstrap import FEWEST, LEVEL, Estimate

DRAWS = 500
BLOCK = 50  # draws at a time: weights of a block are (BLOCK, N)


def estimates(
    truth: np.ndarray, probs: np.ndarray, groups: np.ndarray, rng: np.random.Generator, draws: int = DRAWS
) -> list[Estimate]:
    """Estimate the macro AUROC of each of P predictors, and its difference to the first one's, from the same draws.

    truth: bool (N, K); probs (P, N, K); groups (N,)
    Returns P estimates and then the first's macro AUROC less each other's, P - 1 of them. A class that has one outcome
    only in a draw is left out of that draw's mean. There is no interval where there are fewer than FEWEST groups, or no
    class with both outcomes.
    """
    _, codes = np.unique(groups, return_inverse=True)
    values = _with_differences(macro_aurocs(np.ones((1, len(truth))), truth, probs))[0]
    n_groups = int(codes.max()) + 1
    if n_groups < FEWEST:
        return [Estimate(float(value), None, None, None) for value in values]
    even, found = np.full(n_groups, 1 / n_groups), []
    for start in range(0, draws, BLOCK):
        counts = rng.multinomial(n_groups, even, min(BLOCK, draws - start)).astype(np.float64)
        found.append(macro_aurocs(counts[:, codes], truth, probs))
    drawn = _with_differences(np.concatenate(found))
    return [_estimate(float(value), column[~np.isnan(column)]) for value, column in zip(values, drawn.T, strict=True)]


def macro_aurocs(weights: np.ndarray, truth: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Return the mean AUROC over classes (D, P) of predictions (P, N, K) for each row of unit weights (D, N).

    Classes without both outcomes are left out; NaN where that leaves none.
    """
    classes = range(truth.shape[1])
    found = np.array([[_aurocs(weights, truth[:, k], its[:, k]) for k in classes] for its in probs])  # (P, K, D)
    known = ~np.isnan(found)
    sums, counts = np.where(known, found, 0).sum(1), known.sum(1)
    return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0).T


def _aurocs(weights: np.ndarray, truth: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Return the AUROC (D,) of one class for unit weights (D, N): the share of pairs in order, ties counting half."""
    order = np.argsort(probs, kind="stable")
    starts = np.flatnonzero(np.diff(probs[order], prepend=-np.inf))  # of each distinct probability
    yes, no = (np.add.reduceat((weights * its)[:, order], starts, axis=1) for its in (truth, ~truth))
    below, pairs = no.cumsum(1) - no / 2, yes.sum(1) * no.sum(1)
    return np.divide((yes * below).sum(1), pairs, out=np.full(len(weights), np.nan), where=pairs > 0)


def _with_differences(values: np.ndarray) -> np.ndarray:
    """Append the first column less each other one, (D, P) -> (D, 2 P - 1)."""
    return np.hstack([values, values[:, :1] - values[:, 1:]])


def _estimate(value: float, drawn: np.ndarray) -> Estimate:
    """The standard error and the percentiles of the draws (D,) that have a figure."""
    if len(drawn) < 2:
        return Estimate(value, None, None, None)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(drawn.std(ddof=1)), float(low), float(high))
