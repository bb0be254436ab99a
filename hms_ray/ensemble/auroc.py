"""Confidence intervals of the macro AUROC by a bootstrap over patients; each patient is drawn with all its units.

The AUROC is not a mean over units, so the intervals are plain percentiles of the draws. scikit-learn's `roc_auc_score`
takes one vector of weights at a time; here one sort serves all draws, which makes hundreds of draws affordable.
"""

from __future__ import annotations

import numpy as np

from hms_ray.ensemble.bootstrap import FEWEST, LEVEL, Estimate

DRAWS = 500
BLOCK = 50  # draws computed at once: weights of a block are (BLOCK, N)


def estimates(
    truth: np.ndarray, probs: np.ndarray, groups: np.ndarray, rng: np.random.Generator, draws: int = DRAWS
) -> list[Estimate]:
    """Estimate the macro AUROC of P predictors, and the first one's minus each other one's, from the same draws.

    truth: bool (N, K); probs (P, N, K); groups (N,)
    Returns P estimates, then P - 1 differences. In a draw where a class has one outcome only, the mean leaves this
    class out. No intervals are given with fewer than FEWEST groups, or where no class has both outcomes.
    """
    _, codes = np.unique(groups, return_inverse=True)
    n_groups = int(codes.max()) + 1
    areas = [macro_aurocs(np.ones((1, len(truth))), truth, probs)]
    for start in range(0, draws if n_groups >= FEWEST else 0, BLOCK):
        counts = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), min(BLOCK, draws - start))
        areas.append(macro_aurocs(counts.astype(np.float64)[:, codes], truth, probs))
    values = np.concatenate(areas)  # (1 + draws, P); the first row is the sample itself
    values = np.hstack([values, values[:, :1] - values[:, 1:]])
    results = []
    for value, drawn in zip(values[0].tolist(), values[1:].T, strict=True):
        drawn = drawn[~np.isnan(drawn)]
        if len(drawn) < 2:
            results.append(Estimate(value, None, None, None))
        else:
            low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
            results.append(Estimate(value, float(drawn.std(ddof=1)), float(low), float(high)))
    return results


def macro_aurocs(weights: np.ndarray, truth: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Return the mean AUROC over classes (D, P) of predictions (P, N, K) for each row of unit weights (D, N).

    The mean leaves out classes that lack one of the two outcomes; it is NaN if all do.
    """
    classes = range(truth.shape[1])
    areas = np.array([[weighted_auroc(weights, truth[:, k], rows[:, k]) for k in classes] for rows in probs])
    known = ~np.isnan(areas)  # (P, K, D)
    sums, counts = np.where(known, areas, 0).sum(1), known.sum(1)
    return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0).T


def weighted_auroc(weights: np.ndarray, truth: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Return the AUROC (D,) of one class for unit weights (D, N): the share of ordered pairs; a tie counts half."""
    order = np.argsort(probs, kind="stable")
    starts = np.flatnonzero(np.diff(probs[order], prepend=-np.inf))  # of each distinct probability
    yes, no = (np.add.reduceat((weights * label)[:, order], starts, axis=1) for label in (truth, ~truth))
    below, pairs = no.cumsum(1) - no / 2, yes.sum(1) * no.sum(1)
    return np.divide((yes * below).sum(1), pairs, out=np.full(len(weights), np.nan), where=pairs > 0)
