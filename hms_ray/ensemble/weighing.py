"""Weights of fitted candidates, from the scores of their predictions on rows that they were not fitted on.

rows: units (n,) are positions in it; predicted (C, n, ..., K): the predictions of each candidate for these units.
"""

from __future__ import annotations

import numpy as np

from hms_ray.ensemble.bootstrap import mean_and_error
from hms_ray.ensemble.rows import Rows

LEAST_SHARE = 1e-3  # candidates with a smaller share are left out of the average


def best(rows: Rows, units: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return (C,): 1 for the candidate with the best score, the first of equal ones, and 0 for the others."""
    return np.eye(len(predicted))[int(_scores(rows, units, predicted).argmin())]


def average(rows: Rows, units: np.ndarray, predicted: np.ndarray, plain: int) -> np.ndarray:
    """Return the candidates' shares in an average (C,); plain: the position of the plain mean of the members.

    Shares fall exponentially with the score: by a factor of e for each nat that all groups together lose. The blend of
    these shares is then shrunk towards the plain mean. If the blend scores better by d, with a standard error s over
    groups, it keeps 1 - (s / d)^2 of the weight, and 0 if d < s; the plain mean gets the rest. This is the shrinkage of
    an estimate with a known error (James and Stein, 1961). With few groups the plain mean stays unless the evidence
    against it is clear.
    """
    scores, groups = _scores(rows, units, predicted), rows.groups[units]
    shares = np.exp((scores.min() - scores) * len(np.unique(groups)))
    shares[shares < LEAST_SHARE * shares.sum()] = 0
    shares /= shares.sum()
    better = rows.losses(predicted[plain], units) - rows.losses(np.tensordot(shares, predicted, axes=1), units)
    gain, error = mean_and_error(better, groups, rows.weight[units])
    kept = max(0.0, 1 - (error / gain) ** 2) if gain > 0 and not np.isnan(error) else 0.0
    shares *= kept
    shares[plain] += 1 - kept
    shares[shares < LEAST_SHARE] = 0
    return shares / shares.sum()


def _scores(rows: Rows, units: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the weighted mean score of each candidate (C,)."""
    return np.array([np.average(rows.losses(each, units), weights=rows.weight[units]) for each in predicted])
