"""What each of several fitted candidates counts, by how its predictions score on rows that it was not fitted on.

rows: units (n,) are positions in it; predicted (C, n, ..., K): each candidate's predictions of these units.
"""

from __future__ import annotations

import numpy as np

from hms_ray.ensemble.bootstrap import by_group, standard_errors
from hms_ray.ensemble.rows import Rows

LEAST_SHARE = 1e-3  # a candidate with less is left out of the average


def best(rows: Rows, units: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return 1 for the candidate with the best score, the first of equals, and 0 for the others, (C,)."""
    return np.eye(len(predicted))[int(_scores(rows, units, predicted).argmin())]


def average(rows: Rows, units: np.ndarray, predicted: np.ndarray, plain: int) -> np.ndarray:
    """Return the candidates' shares in an average (C,); plain: the position of the plain mean of the members.

    A candidate's share falls exponentially with its score, e-fold for each nat that all groups together pay for it.
    Let the blend of these shares score better than the plain mean by d, with a standard error s over groups: of the
    weight it keeps 1 - (s / d)^2, nothing where d < s, and the plain mean gets the rest. That is how an estimate is
    shrunk whose error is known (James and Stein, 1961). So few groups leave the trivial choice as it is unless they
    speak against it, and many decide.
    """
    scores = _scores(rows, units, predicted)
    shares = np.exp((scores.min() - scores) * len(np.unique(rows.groups[units])))
    shares[shares < LEAST_SHARE * shares.sum()] = 0
    shares /= shares.sum()
    kept = _kept(rows, units, predicted[plain], np.tensordot(shares, predicted, axes=1))
    shares *= kept
    shares[plain] += 1 - kept
    shares[shares < LEAST_SHARE] = 0
    return shares / shares.sum()


def _kept(rows: Rows, units: np.ndarray, plain: np.ndarray, blend: np.ndarray) -> float:
    """Return how much of the weight a blend takes from the plain mean, whose predictions (n, ..., K) are given."""
    better = rows.losses(plain, units) - rows.losses(blend, units)
    sums, sizes = by_group(better[:, None], rows.groups[units], rows.weight[units])
    gain = float(sums.sum() / sizes.sum())
    if gain <= 0 or len(sizes) < 2:
        return 0.0
    return max(0.0, 1 - float(standard_errors(sums, sizes)[0] / gain) ** 2)


def _scores(rows: Rows, units: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return each candidate's weighted mean score (C,)."""
    return np.array([np.average(rows.losses(each, units), weights=rows.weight[units]) for each in predicted])
