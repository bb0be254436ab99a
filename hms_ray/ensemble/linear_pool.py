"""Linear pool: one weight a member, found by a convex problem whose optimum is certified.

Minimise  mean_i -sum_c y_ic log(sum_m w_m p_imc)  over w >= 0, sum(w) = 1.  With q the pooled prediction, the gradient
of member m is -g_m, g_m = mean_i sum_c y_ic p_imc / q_ic, and by convexity no weights are better than w by more than
gap = max_m g_m - 1: the certificate. Because sum_m w_m g_m = 1 for every w, the constraint on the sum can be dropped
for a term + sum(w), which leaves non-negativity alone and makes each Newton step a non-negative least-squares problem.
The optimum is sparse, so Hessians are taken over the active members and those that the certificate prices in.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import nnls

from hms_ray.tasks.votes import CLIP

TOLERANCE = 1e-9
MAX_ITERATIONS = 200
RIDGE = 1e-13  # on a Hessian of unit diagonal: identical members make it singular
DEEPEST = 0.95  # no pooled prediction may lose more than this share in one step: near 0 the quadratic model is blind
SUFFICIENT = 1e-4  # Armijo: the share of the decrease promised by the slope that a step must keep


@dataclass(frozen=True)
class LinearPool:
    """Weights (M,) on the simplex; `gap` bounds how far their KL is from the best one, in nats."""

    weights: np.ndarray
    gap: float
    iterations: int

    @property
    def certified(self) -> bool:
        """Whether the gap is below the tolerance of 1e-9."""
        return self.gap < TOLERANCE

    def predict(self, probs: np.ndarray) -> np.ndarray:
        """Pool members' predictions, (N, M, K) -> (N, K)."""
        return pool(probs, self.weights)


def pool(probs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted mean of the members' predictions, (N, M, K) and (M,) -> (N, K)."""
    return weights @ probs


def fit(probs: np.ndarray, targets: np.ndarray, sample_weight: np.ndarray | None = None) -> LinearPool:
    """Find the weights with the smallest mean KL(targets || pool).

    probs (N, M, K) are clipped as the metric does; targets (N, K) are shares; sample_weight (N,) defaults to ones.
    Deterministic: among identical members the least-squares step decides. If MAX_ITERATIONS pass without a gap below
    TOLERANCE the last weights are returned with their true gap, and `certified` is False.
    """
    members, shares = scored_terms(probs, targets, sample_weight)
    weights = np.full(members.shape[1], 1 / members.shape[1])
    for iteration in itertools.count():
        pooled = _columns(members, weights > 0) @ weights[weights > 0]
        gains = (shares / pooled) @ members
        gap = float(gains.max() - 1)
        if gap < TOLERANCE or iteration == MAX_ITERATIONS:
            return LinearPool(weights, gap, iteration)
        chosen = (weights > 0) | (gains > 1)
        weights[chosen] = _improve(_columns(members, chosen), shares, weights[chosen], pooled, gains[chosen])
        weights /= weights.sum()


def scored_terms(
    probs: np.ndarray, targets: np.ndarray, sample_weight: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Keep the (unit, class) pairs that count, P of them: clipped predictions (P, M) and shares (P,) that sum to 1.

    A pair whose target is 0 contributes nothing to the KL; where experts agree that is most of them.
    """
    shares = targets if sample_weight is None else targets * sample_weight[:, None]
    assert (shares > 0).any(), "a pool cannot be fitted where no unit has weight"
    units, classes = np.nonzero(shares > 0)
    members, shares = probs[units, :, classes], shares[units, classes]
    return np.clip(members, CLIP, 1 - CLIP, out=members), shares / shares.sum()


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
    scale = np.sqrt(np.diag(hessian))
    hessian /= np.outer(scale, scale)
    ridge = RIDGE * len(scale)
    factor = np.linalg.cholesky(hessian + ridge * np.eye(len(scale)))
    right = solve_triangular(factor, (2 * gains - 1) / scale + ridge * scale * weights, lower=True)
    target = solve_triangular(factor, right, lower=True, trans=1)
    if (target < 0).any():
        target = nnls(factor.T, right, maxiter=100 * len(scale))[0]
    return target / scale
