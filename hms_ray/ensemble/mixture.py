"""Mixture weights: the convex problem under the linear pool, solved to a certified and sparse optimum.

Minimise  -sum_t y_t log(sum_m w_m p_tm)  over w >= 0, sum(w) = 1, for terms t whose shares y sum to 1. With q the
pooled prediction, the gradient of member m is -g_m, g_m = sum_t y_t p_tm / q_t, and by convexity no weights are better
than w by more than gap = max_m g_m - 1: the certificate. Because sum_m w_m g_m = 1 for every w, the constraint on the
sum can be dropped for a term + sum(w), which leaves non-negativity alone and makes each Newton step a non-negative
least-squares problem. The optimum is sparse, so steps are taken on a few members, and the certificate prices in those
that are missed.
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
DEEPEST = 0.95  # no pooled prediction may lose more than this share in one step: near 0 the quadratic model is blind
SUFFICIENT = 1e-4  # Armijo: the share of the decrease promised by the slope that a step must keep
COARSER = 8  # the start is fitted on every eighth term, where they are many,
COARSE_TERMS = 500  # which is so often this,
COARSE_GAP = 1e-2  # to this gap
SETTLED = 1e-2  # steps on a few members end at this share of the gap over all, when others may have come to matter
GLANCE = 64  # terms by which most members are told apart
RANK = 1e-10  # an eigenvalue of the active members' correlations below this: one of them is a blend of others


@on_one_thread
def fit(members: np.ndarray, shares: np.ndarray, start: np.ndarray | None = None) -> tuple[np.ndarray, float, int]:
    """Return weights (M,), their gap, and the steps taken, for terms (P, M) and shares (P,).

    Of several optima it is one in which no member is a blend of others, and the first of identical ones stays.
    """
    weights, gap, steps = _optimum(members, shares, _start(members, shares, start), TOLERANCE)
    weights = _on_first(members, weights)
    sparse = _sparsest(members, shares, weights)
    if sparse is not weights:
        sparse_gap = gains(shares, members, members @ sparse).max() - 1
        if sparse_gap < max(gap, TOLERANCE):  # else what was nearly a blend had something of its own to add
            weights, gap = sparse, sparse_gap
    return weights, float(gap), steps


@on_one_thread
def rough(members: np.ndarray, shares: np.ndarray, gap: float) -> np.ndarray:
    """Return weights (M,) that are within `gap` of the optimum."""
    return _optimum(members, shares, _start(members, shares, None), gap)[0]


def gains(shares: np.ndarray, members: np.ndarray, pooled: np.ndarray) -> np.ndarray:
    """Return what the pool gains as weight moves to each member (M,), plus 1: exactly 1 for those with weight."""
    return (shares / pooled) @ members


def _start(members: np.ndarray, shares: np.ndarray, given: np.ndarray | None) -> np.ndarray:
    """Return the given weights, those of a fit on a part of the terms, or equal ones."""
    if given is not None:
        return np.maximum(given, 0) / np.maximum(given, 0).sum()
    if len(shares) < COARSER * COARSE_TERMS:
        return np.full(members.shape[1], 1 / members.shape[1])
    members, shares = members[::COARSER], shares[::COARSER]
    return _optimum(members, shares / shares.sum(), _start(members, shares, None), COARSE_GAP)[0]


def _optimum(
    members: np.ndarray, shares: np.ndarray, weights: np.ndarray, tolerance: float
) -> tuple[np.ndarray, float, int]:
    """Return weights, their gap over all members, and the Newton steps taken."""
    steps, pooled = 0, members @ weights
    while True:
        gained = gains(shares, members, pooled)
        gap = gained.max() - 1
        if gap < tolerance or steps >= MAX_ITERATIONS:
            return weights, gap, steps
        chosen = (weights > 0) | (gained > 1)
        enough = max(tolerance / 2, gap * SETTLED)
        few, most = _columns(members, chosen), MAX_ITERATIONS - steps
        found, pooled, taken = _settle(few, shares, weights[chosen], enough, most)
        weights, steps = np.zeros_like(weights), steps + taken
        weights[chosen] = found


def _settle(
    members: np.ndarray, shares: np.ndarray, weights: np.ndarray, tolerance: float, most: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Take Newton steps, `most` of them, until the gap among these members is below the tolerance.

    Returns the weights, their pooled predictions (P,), and the steps taken.
    """
    pooled = members @ weights
    for taken in range(most):
        gained = gains(shares, members, pooled)
        if gained.max() - 1 < tolerance:
            return weights, pooled, taken
        weights = _improve(members, shares, weights, pooled, gained)
        weights /= weights.sum()
        pooled = members @ weights
    return weights, pooled, most


def _columns(members: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return the chosen members; without a copy where that is all of them."""
    return members if chosen.all() else members[:, np.flatnonzero(chosen)]


def _improve(
    members: np.ndarray, shares: np.ndarray, weights: np.ndarray, pooled: np.ndarray, gained: np.ndarray
) -> np.ndarray:
    """Take one Newton step on these members, halved until the objective falls as its slope promises."""
    target = _newton_target(_hessian(members, np.sqrt(shares) / pooled), weights, gained)
    direction = target - weights
    relative = (members @ direction) / pooled
    step = min(1.0, DEEPEST / max(-relative.min(), DEEPEST))
    slope = direction.sum() - gained @ direction
    # log1p keeps the change exact to many digits where two values of the objective would agree in all of theirs
    while step * direction.sum() - shares @ np.log1p(step * relative) > SUFFICIENT * step * slope and step > RIDGE:
        step /= 2
    return target if step == 1 else weights + step * direction


def _hessian(members: np.ndarray, root: np.ndarray) -> np.ndarray:
    """Return the Hessian (M, M); root (P,): root of the shares over the pooled predictions."""
    hessian = np.zeros((members.shape[1],) * 2)
    for rows in blocks(len(members), members.shape[1]):  # what a cache holds: nothing large is written
        scaled = members[rows] * root[rows, None]
        hessian += scaled.T @ scaled
    return hessian


def _newton_target(hessian: np.ndarray, weights: np.ndarray, gained: np.ndarray) -> np.ndarray:
    """Minimise the quadratic model over non-negative weights.

    As H w = gained, the model around w is x'Hx / 2 - (2 gained - 1)'x: a least-squares problem in H's Cholesky factor.
    The ridge holds x to w, not to 0, so that it slows the last steps at worst and never moves the optimum.
    """
    scale = np.maximum(np.sqrt(np.diag(hessian)), 1)
    hessian = hessian / np.outer(scale, scale)
    ridge = RIDGE * len(scale)
    factor = np.linalg.cholesky(hessian + ridge * np.eye(len(scale)))
    right = solve_triangular(factor, (2 * gained - 1) / scale + ridge * scale * weights, lower=True)
    target = solve_triangular(factor, right, lower=True, trans=1)
    if (target < 0).any():
        target = nnls(factor.T, right, maxiter=100 * len(scale))[0]
    return target / scale


def _on_first(members: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Move the weight of each member to the first one that is identical."""
    moved, glance = np.zeros_like(weights), members[:GLANCE]
    for m in np.flatnonzero(weights):
        alike = np.flatnonzero((glance[:, : m + 1] == glance[:, [m]]).all(0))
        moved[next(j for j in alike if j == m or np.array_equal(members[:, j], members[:, m]))] += weights[m]
    return moved


def _sparsest(members: np.ndarray, shares: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return weights with the same pooled predictions in which no member is a blend of others.

    Such a blend is a direction in which nothing changes: follow it until a weight is 0, the later member's first.
    """
    active = np.flatnonzero(weights > 0)
    some = slice(None, None, COARSER if len(shares) > COARSER * COARSE_TERMS else None)
    if np.linalg.eigvalsh(_likeness(members[some][:, active], shares[some], weights[active])[0])[0] > RANK:
        return weights  # what is no blend on some of the terms is none on all
    gram, scale = _likeness(members[:, active], shares, weights[active])
    found, kept = weights[active], np.arange(len(active))
    while True:
        values, vectors = np.linalg.eigh(gram[np.ix_(kept, kept)])
        if values[0] > RANK or len(kept) == 1:
            break
        blend = vectors[:, 0] / scale[kept]
        blend *= -np.sign(blend[np.flatnonzero(np.abs(blend) > np.abs(blend).max() / 2)[-1]])
        falling = blend < -np.abs(blend).max() * RANK
        found[kept] += blend * (found[kept][falling] / -blend[falling]).min()
        found[kept[falling][(found[kept][falling] / -blend[falling]).argmin()]] = 0
        kept = kept[found[kept] > 0]
    if len(kept) == len(active):
        return weights
    sparse = np.zeros_like(weights)
    sparse[active[kept]] = found[kept] / found[kept].sum()
    return sparse


def _likeness(members: np.ndarray, shares: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the members' Hessian scaled to a unit diagonal, and that scale."""
    gram = _hessian(members, np.sqrt(shares) / (members @ weights))
    scale = np.sqrt(np.diag(gram))
    return gram / np.outer(scale, scale), scale
