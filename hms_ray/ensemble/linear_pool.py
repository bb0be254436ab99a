"""Linear pool: one weight a member, found by a convex problem whose optimum is certified.

Minimise  mean_i -sum_c y_ic log(sum_m w_m p_imc)  over w >= 0, sum(w) = 1.  With q the pooled prediction, the gradient
of member m is -g_m, g_m = mean_i sum_c y_ic p_imc / q_ic, and by convexity no weights are better than w by more than
gap = max_m g_m - 1: the certificate. Because sum_m w_m g_m = 1 for every w, the constraint on the sum can be dropped
for a term + sum(w), which leaves non-negativity alone and makes each Newton step a non-negative least-squares problem.
The optimum is sparse, so steps are taken on a few members, and the certificate prices in those that are missed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import nnls

from hms_ray.ensemble._pool import Weighted
from hms_ray.ensemble._terms import scored_terms
from hms_ray.ensemble._threads import on_one_thread

TOLERANCE = 1e-9
MAX_ITERATIONS = 200
RIDGE = 1e-13  # on a Hessian of unit diagonal: identical members make it singular
DEEPEST = 0.95  # no pooled prediction may lose more than this share in one step: near 0 the quadratic model is blind
SUFFICIENT = 1e-4  # Armijo: the share of the decrease promised by the slope that a step must keep
COARSER = 16  # the start is fitted on every sixteenth term, where they are many,
COARSE_TERMS = 500  # which is so often this,
COARSE_GAP = 1e-2  # to this gap
SETTLED = 1e-2  # steps on a few members end at this share of the gap over all, when others may have come to matter
GLANCE = 64  # terms by which most members are told apart
RANK = 1e-10  # an eigenvalue of the active members' correlations below this: one of them is a blend of others


@dataclass(frozen=True)
class Pool(Weighted):
    """Weights (M,) on the simplex; `gap` bounds how far their KL is from the best one, in nats."""

    gap: float | None
    iterations: int = 0

    @property
    def certified(self) -> bool:
        """Whether the gap is below the tolerance of 1e-9."""
        return self.gap is not None and self.gap < TOLERANCE

    def predict(self, probs: np.ndarray) -> np.ndarray:
        """Pool members' predictions, (N, M, ..., K) -> (N, ..., K)."""
        return pool(probs, self.weights)

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` needs to predict alike."""
        return {"weights": self.weights.tolist(), "gap": self.gap}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Pool:
        """Rebuild a pool that `to_dict` described."""
        return cls(np.array(content["weights"], np.float64), content["gap"])


def pool(probs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted mean of the members' predictions, (N, M, ..., K) and (M,) -> (N, ..., K)."""
    used = weights != 0
    if not used.all():
        probs, weights = probs[:, used], weights[used]
    return np.einsum("m,nm...->n...", weights, probs)


def fit(
    probs: np.ndarray,
    targets: np.ndarray,
    sample_weight: np.ndarray | None = None,
    start: np.ndarray | None = None,
) -> Pool:
    """Find the weights with the smallest mean KL(targets || pool).

    probs (N, M, ..., K) are clipped as the metric does; targets (N, ..., K) are shares; sample_weight (N,) defaults to
    ones; start (M,): weights to begin at, such as those of a fit on nearly the same rows. Of several optima, as with
    identical members, the pool has one in which no member is a blend of others: the first of identical ones stays. If
    MAX_ITERATIONS pass without a gap below TOLERANCE the last weights are returned with their true gap, and
    `certified` is False.
    """
    return fit_terms(*scored_terms(probs, targets, sample_weight), start)


@on_one_thread
def fit_terms(members: np.ndarray, shares: np.ndarray, start: np.ndarray | None = None) -> Pool:
    """Find the weights for clipped predictions (P, M) of scored pairs and their shares (P,), as `fit` does."""
    weights, gap, iterations = _optimum(members, shares, _start(members, shares, start), TOLERANCE)
    weights = _on_first(members, weights)
    sparse = _sparsest(members, shares, weights)
    if sparse is not weights:
        sparse_gap = _gains(shares, members, members @ sparse).max() - 1
        if sparse_gap < max(gap, TOLERANCE):  # else what was nearly a blend had something of its own to add
            weights, gap = sparse, sparse_gap
    return Pool(weights, float(gap), iterations)


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
        gains = _gains(shares, members, pooled)
        gap = gains.max() - 1
        if gap < tolerance or steps >= MAX_ITERATIONS:
            return weights, gap, steps
        chosen = (weights > 0) | (gains > 1)
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
        gains = _gains(shares, members, pooled)
        if gains.max() - 1 < tolerance:
            return weights, pooled, taken
        weights = _improve(members, shares, weights, pooled, gains)
        weights /= weights.sum()
        pooled = members @ weights
    return weights, pooled, most


def _gains(shares: np.ndarray, members: np.ndarray, pooled: np.ndarray) -> np.ndarray:
    """Return what the pool gains as weight moves to each member (M,), plus 1: exactly 1 for those with weight."""
    return (shares / pooled) @ members


def _columns(members: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return the chosen members; without a copy where that is all of them."""
    return members if chosen.all() else members[:, np.flatnonzero(chosen)]


def _improve(
    members: np.ndarray, shares: np.ndarray, weights: np.ndarray, pooled: np.ndarray, gains: np.ndarray
) -> np.ndarray:
    """Take one Newton step on these members, halved until the objective falls as its slope promises."""
    target = _newton_target(members * (np.sqrt(shares) / pooled)[:, None], weights, gains)
    direction = target - weights
    relative = (members @ direction) / pooled
    step = min(1.0, DEEPEST / max(-relative.min(), DEEPEST))
    slope = direction.sum() - gains @ direction
    # log1p keeps the change exact to many digits where two values of the objective would agree in all of theirs
    while step * direction.sum() - shares @ np.log1p(step * relative) > SUFFICIENT * step * slope and step > RIDGE:
        step /= 2
    return target if step == 1 else weights + step * direction


def _newton_target(scaled: np.ndarray, weights: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Minimise the quadratic model over non-negative weights.

    scaled (P, M) are predictions over the pooled one, times the root of the shares, so that H = scaled' scaled. As
    H w = gains, the model around w is x'Hx / 2 - (2 gains - 1)'x: a least-squares problem in H's Cholesky factor.
    The ridge holds x to w, not to 0, so that it slows the last steps at worst and never moves the optimum.
    """
    hessian = scaled.T @ scaled
    scale = np.maximum(np.sqrt(np.diag(hessian)), 1)
    hessian /= np.outer(scale, scale)
    ridge = RIDGE * len(scale)
    factor = np.linalg.cholesky(hessian + ridge * np.eye(len(scale)))
    right = solve_triangular(factor, (2 * gains - 1) / scale + ridge * scale * weights, lower=True)
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
    scaled = members * (np.sqrt(shares) / (members @ weights))[:, None]
    gram = scaled.T @ scaled
    scale = np.sqrt(np.diag(gram))
    return gram / np.outer(scale, scale), scale
