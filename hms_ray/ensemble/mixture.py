"""Mixture weights: the convex problem of the linear pool, solved to a certified and sparse optimum.

Minimise  -sum_t y_t log(sum_m w_m p_tm)  over w >= 0, sum(w) = 1, for terms t whose shares y sum to 1. With q the
pooled prediction, the gradient of member m is -g_m, g_m = sum_t y_t p_tm / q_t, and by convexity no weights are better
than w by more than gap = max_m g_m - 1: the certificate. Because sum_m w_m g_m = 1 for every w, the constraint on the
sum can be replaced by a term + sum(w). Non-negativity remains, and each Newton step is a non-negative least-squares
problem. The optimum is sparse, so steps are taken on few members; the certificate adds those that are missed.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import nnls

from hms_ray.ensemble import TOLERANCE
from hms_ray.ensemble.terms import blocks
from hms_ray.ensemble.threads import on_one_thread

MAX_ITERATIONS = 200
RIDGE = 1e-13  # on a Hessian of unit diagonal: identical members make it singular
DEEPEST = 0.95  # no pooled prediction may lose more than this share in one step: near 0 the quadratic model is wrong
SUFFICIENT = 1e-4  # Armijo: the share of the decrease promised by the slope that a step must reach
COARSER = 8  # the start is fitted on every eighth term, if there are at least
COARSE_TERMS = 500  # times this number of terms,
COARSE_GAP = 1e-2  # to this gap
SETTLED = 1e-2  # steps on few members end at this share of the gap over all members
GLANCE = 64  # terms: enough to see that most members differ
RANK = 1e-10  # below this eigenvalue of the active members' correlations, one of them is a blend of others


@on_one_thread
def fit(members: np.ndarray, shares: np.ndarray, start: np.ndarray | None = None) -> tuple[np.ndarray, float, int]:
    """Return weights (M,), their gap, and the number of steps, for terms (P, M) and shares (P,).

    If there are several optima, no member of the result is a blend of others; of identical members the first is kept.
    """
    raw, gap, steps = _optimum(members, shares, _start(members, shares, start), TOLERANCE)
    weights, glance = np.zeros_like(raw), members[:GLANCE]
    for m in np.flatnonzero(raw):  # the weight of each member moves to the first identical one
        identical = np.flatnonzero((glance[:, : m + 1] == glance[:, [m]]).all(0))
        weights[next(j for j in identical if j == m or np.array_equal(members[:, j], members[:, m]))] += raw[m]
    sparse = _sparsest(members, shares, weights)
    if sparse is not weights:
        sparse_gap = gains(shares, members, members @ sparse).max() - 1
        if sparse_gap < max(gap, TOLERANCE):  # otherwise a member that is almost a blend has its own contribution
            weights, gap = sparse, sparse_gap
    return weights, float(gap), steps


@on_one_thread
def rough(members: np.ndarray, shares: np.ndarray, gap: float) -> np.ndarray:
    """Return weights (M,) that are within `gap` of the optimum."""
    return _optimum(members, shares, _start(members, shares, None), gap)[0]


def gains(shares: np.ndarray, members: np.ndarray, pooled: np.ndarray) -> np.ndarray:
    """Return 1 plus the gain of the pool as weight moves to each member (M,): exactly 1 for members with weight."""
    return (shares / pooled) @ members


def _start(members: np.ndarray, shares: np.ndarray, given: np.ndarray | None) -> np.ndarray:
    """Return the given weights, those of a fit to a part of the terms, or equal ones."""
    if given is not None:
        return np.maximum(given, 0) / np.maximum(given, 0).sum()
    if len(shares) < COARSER * COARSE_TERMS:
        return np.full(members.shape[1], 1 / members.shape[1])
    members, shares = members[::COARSER], shares[::COARSER]
    return _optimum(members, shares / shares.sum(), _start(members, shares, None), COARSE_GAP)[0]


def _optimum(
    members: np.ndarray, shares: np.ndarray, weights: np.ndarray, tolerance: float
) -> tuple[np.ndarray, float, int]:
    """Return weights, their gap over all members, and the number of Newton steps."""
    steps, pooled = 0, members @ weights
    while True:
        gained = gains(shares, members, pooled)
        gap = float(gained.max() - 1)
        if gap < tolerance or steps >= MAX_ITERATIONS:
            return weights, gap, steps
        chosen, enough = (weights > 0) | (gained > 1), max(tolerance / 2, gap * SETTLED)
        few = members if chosen.all() else members[:, np.flatnonzero(chosen)]
        part = weights[chosen]
        pooled = few @ part
        while steps < MAX_ITERATIONS:
            gained = gains(shares, few, pooled)
            if gained.max() - 1 < enough:
                break
            part = _newton_step(few, shares, part, pooled, gained)
            part /= part.sum()
            pooled, steps = few @ part, steps + 1
        weights = np.zeros_like(weights)
        weights[chosen] = part


def _newton_step(
    members: np.ndarray, shares: np.ndarray, weights: np.ndarray, pooled: np.ndarray, gained: np.ndarray
) -> np.ndarray:
    """Return the weights after one Newton step, halved until the objective falls as its slope promises.

    The quadratic model is minimised over non-negative weights. As H w = gained, the model around w is
    x'Hx / 2 - (2 gained - 1)'x: a least-squares problem in the Cholesky factor of H. The ridge pulls x to w, not to 0:
    it may slow the last steps, but does not move the optimum.
    """
    hessian = _hessian(members, np.sqrt(shares) / pooled)
    scale = np.maximum(np.sqrt(np.diag(hessian)), 1)
    hessian = hessian / np.outer(scale, scale)
    ridge = RIDGE * len(scale)
    factor = np.linalg.cholesky(hessian + ridge * np.eye(len(scale)))
    right = solve_triangular(factor, (2 * gained - 1) / scale + ridge * scale * weights, lower=True)
    target = solve_triangular(factor, right, lower=True, trans=1)
    if (target < 0).any():
        target = nnls(factor.T, right, maxiter=100 * len(scale))[0]
    target = target / scale
    direction = target - weights
    relative = (members @ direction) / pooled
    step = min(1.0, DEEPEST / max(-relative.min(), DEEPEST))
    slope = direction.sum() - gained @ direction
    # log1p keeps the digits of the change, which a difference of two values of the objective would lose
    while step * direction.sum() - shares @ np.log1p(step * relative) > SUFFICIENT * step * slope and step > RIDGE:
        step /= 2
    return target if step == 1 else weights + step * direction


def _hessian(members: np.ndarray, root: np.ndarray) -> np.ndarray:
    """Return the Hessian (M, M); root (P,): square root of the shares, divided by the pooled predictions."""
    hessian = np.zeros((members.shape[1],) * 2)
    for rows in blocks(len(members), members.shape[1]):  # temporary arrays stay in the cache
        scaled = members[rows] * root[rows, None]
        hessian += scaled.T @ scaled
    return hessian


def _sparsest(members: np.ndarray, shares: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return weights with the same pooled predictions, in which no member is a blend of others.

    A blend is a direction in which the predictions do not change: follow it until a weight is 0, first the later one's.
    """
    active = np.flatnonzero(weights > 0)
    some = slice(None, None, COARSER if len(shares) > COARSER * COARSE_TERMS else None)
    if np.linalg.eigvalsh(_correlations(members[some][:, active], shares[some], weights[active])[0])[0] > RANK:
        return weights  # a member that is no blend on some of the terms is none on all terms
    gram, scale = _correlations(members[:, active], shares, weights[active])
    reduced, kept = weights[active], np.arange(len(active))
    while True:
        eigenvalues, vectors = np.linalg.eigh(gram[np.ix_(kept, kept)])
        if eigenvalues[0] > RANK or len(kept) == 1:
            break
        blend = vectors[:, 0] / scale[kept]
        blend *= -np.sign(blend[np.flatnonzero(np.abs(blend) > np.abs(blend).max() / 2)[-1]])
        falling = blend < -np.abs(blend).max() * RANK
        reduced[kept] += blend * (reduced[kept][falling] / -blend[falling]).min()
        reduced[kept[falling][(reduced[kept][falling] / -blend[falling]).argmin()]] = 0
        kept = kept[reduced[kept] > 0]
    if len(kept) == len(active):
        return weights
    sparse = np.zeros_like(weights)
    sparse[active[kept]] = reduced[kept] / reduced[kept].sum()
    return sparse


def _correlations(members: np.ndarray, shares: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the Hessian of the members, scaled to a unit diagonal, and the scale."""
    gram = _hessian(members, np.sqrt(shares) / (members @ weights))
    scale = np.sqrt(np.diag(gram))
    return gram / np.outer(scale, scale), scale
