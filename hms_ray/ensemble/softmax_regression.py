"""Softmax regression with non-negative weights, solved to a certificate: what the log-linear pool and its kin stand on.

Minimise  F(x) = mean_i [logsumexp_k z_ik - sum_k y_ik z_ik] + sum_j r_j (x_j - a_j)^2 / 2  with z_ik = b_k + sum_j w_j
f_ijk, x = (b, w), w >= 0.  F is convex, and each r_j > 0 makes it strongly so: with g its gradient, no x is better by
more than  sum_j max_v [g_j (x_j - v) - r_j (x_j - v)^2 / 2]  over the v that x_j may take. That is the gap.

Arrays are outcome-major, the long axis of units last: features (Q, K, J, N), targets and predictions (Q, K, N), for Q
questions of K outcomes each; every question has its own bias, and all share the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import nnls

from hms_ray.ensemble.terms import blocks
from hms_ray.ensemble.threads import on_one_thread

TOLERANCE = 1e-9
MAX_STEPS = 100
SUFFICIENT = 1e-4  # Armijo: the share of the decrease promised by the slope that a step must keep
SHORTEST = 1e-9  # a step that would have to be shorter is lost in round-off
FAST = 0.05  # a Hessian is used again while the gap shrinks to this share in a step
SLOW = 0.3  # one of a part of the units, where the gap shrinks by less than this in a step, is too rough
HESSIAN_UNITS = 2500  # so many at least are the part
JITTER = 1e-13  # on a Hessian of unit diagonal, for what a small ridge does not hold apart
TILE = 256  # units
COARSER, COARSE_UNITS = 8, 300  # the start is fitted on every eighth unit with weight, where that leaves so many,
COARSE_GAP = 1e-4  # to this gap


@dataclass(frozen=True)
class Penalty:
    """Ridge r and centre a of bias (B,) and weights (J,), in this order: (B + J,) each."""

    ridge: np.ndarray
    centre: np.ndarray

    def value(self, x: np.ndarray) -> float:
        """Return what it adds to the objective."""
        return float(self.ridge @ (x - self.centre) ** 2 / 2)

    def gradient(self, x: np.ndarray) -> np.ndarray:
        """Return its gradient (B + J,)."""
        return self.ridge * (x - self.centre)


@dataclass(frozen=True)
class Solution:
    """Bias (Q, K), weights (J,), the bound on what better ones could gain, and the Newton steps taken."""

    bias: np.ndarray
    weights: np.ndarray
    gap: float
    steps: int


def outcome_major(probs: np.ndarray) -> np.ndarray:
    """Bring members' predictions (N, M, ..., K) into this file's layout, (Q, K, M, N)."""
    rows = probs.reshape(*probs.shape[:2], -1, probs.shape[-1])
    turned = np.empty((*rows.shape[2:], rows.shape[1], len(rows)))
    for start in range(0, len(rows), TILE):  # in tiles that the cache holds, thrice as fast as at once
        turned[..., start : start + TILE] = rows[start : start + TILE].transpose(2, 3, 1, 0)
    return turned


def outcome_major_targets(targets: np.ndarray) -> np.ndarray:
    """Bring targets (N, ..., K) into this file's layout, (Q, K, N)."""
    return outcome_major(targets[:, None])[:, :, 0]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the distribution over outcomes, (Q, K, N) -> (Q, K, N)."""
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


def cross_entropy(logits: np.ndarray, targets: np.ndarray, share: np.ndarray) -> float:
    """Return the mean cross-entropy; share (N,): each unit's part of the mean, divided by the number of questions."""
    top = logits.max(1)
    mass = np.log(np.exp(logits - top[:, None]).sum(1)) + top
    return float((mass - (targets * logits).sum(1)).sum(0) @ share)


@on_one_thread
def fit(
    features: np.ndarray, targets: np.ndarray, share: np.ndarray, penalty: Penalty, start: np.ndarray | None = None
) -> Solution:
    """Minimise F; start (B + J,) defaults to the solution on every eighth unit, or to the penalty's centre.

    If MAX_STEPS pass without a gap below TOLERANCE, the last point is returned with its true gap.
    """
    return _fit(features, targets, share, penalty, start, TOLERANCE)


def _fit(
    features: np.ndarray,
    targets: np.ndarray,
    share: np.ndarray,
    penalty: Penalty,
    start: np.ndarray | None,
    tolerance: float,
) -> Solution:
    n_bias = targets[..., 0].size
    x = _start(features, targets, share, penalty) if start is None else start.copy()
    logits, model, earlier, part = _logits(features, x), None, np.inf, hessian_part(len(share))
    for steps in range(MAX_STEPS + 1):
        predicted = softmax(logits)
        gradient = slope(features, predicted - targets, share) + penalty.gradient(x)
        gap = _gap(x, gradient, penalty, n_bias)
        if gap < tolerance or steps == MAX_STEPS:
            break
        part = part if model is None or gap < earlier * SLOW else 1
        wanted = np.flatnonzero((x > 0) | (gradient < 0) | (np.arange(len(x)) < n_bias))
        if model is None or gap > earlier * FAST or len(np.setdiff1d(wanted, model.positions)):
            second = curvature(features, predicted, share, wanted[n_bias:] - n_bias, part)
            model = Model(wanted, second + np.diag(penalty.ridge[wanted]))
        direction, earlier = model.step(x, gradient, n_bias), gap
        moved = _logits(features, direction)

        def objective(t: float, x=x, logits=logits, direction=direction, moved=moved) -> float:
            return cross_entropy(logits + t * moved, targets, share) + penalty.value(x + t * direction)

        length = step_length(objective, gradient @ direction)
        if not length:
            break
        x, logits = x + length * direction, logits + length * moved
    return Solution(x[:n_bias].reshape(targets.shape[:2]), np.maximum(x[n_bias:], 0), gap, steps)


@dataclass(frozen=True)
class Model:
    """The quadratic model over the bias and the weights that matter: positions in x, and the Hessian of these.

    A weight of 0 that the objective does not want to grow has no part in a step.
    """

    positions: np.ndarray
    hessian: np.ndarray

    def step(self, x: np.ndarray, gradient: np.ndarray, n_bias: int) -> np.ndarray:
        """Return the best step (B + J,)."""
        direction = np.zeros_like(x)
        direction[self.positions] = best_step(self.hessian, gradient[self.positions], x[self.positions], n_bias)
        return direction


def _start(features: np.ndarray, targets: np.ndarray, share: np.ndarray, penalty: Penalty) -> np.ndarray:
    units = np.flatnonzero(share)[::COARSER]
    if len(units) < COARSE_UNITS:
        return penalty.centre.copy()
    part = share[units] / share[units].sum() * share.sum()
    coarse = np.ascontiguousarray(features[..., units]), targets[..., units], part
    solution = _fit(*coarse, penalty, None, COARSE_GAP)
    return np.concatenate([solution.bias.ravel(), solution.weights])


def _logits(features: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return z (Q, K, N) at x, bias and weights."""
    n_bias = features.shape[0] * features.shape[1]
    logits = np.stack([x[n_bias:] @ f for f in _flat(features)]) + x[:n_bias, None]
    return logits.reshape(*features.shape[:2], -1)


def slope(features: np.ndarray, excess: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Return the gradient (B + J,) of the cross-entropy; excess (Q, K, N): predictions minus targets."""
    weighted = excess * share
    by_weight = sum(f @ e for f, e in zip(_flat(features), _flat(weighted), strict=True))
    return np.concatenate([weighted.sum(-1).ravel(), by_weight])


def hessian_part(n_units: int) -> int:
    """Return n where every n-th unit is enough for a Hessian to begin with: it sets the pace, not where steps end."""
    return max(1, n_units // HESSIAN_UNITS)


def thinned(share: np.ndarray, part: int) -> np.ndarray:
    """Return the share of every n-th unit, which stands for those between; the sum stays."""
    return share[::part] * (share.sum() / share[::part].sum())


def curvature(
    features: np.ndarray, predicted: np.ndarray, share: np.ndarray, chosen: np.ndarray | None = None, part: int = 1
) -> np.ndarray:
    """Return the Hessian (B + J, B + J) of the cross-entropy at predictions (Q, K, N); chosen: positions of J features.

    It is the mean covariance of the features, and of the outcomes' indicators, under each unit's predictions.
    part: of every n-th unit, which stands for those between
    """
    if part > 1:
        features, predicted, share = features[..., ::part], predicted[..., ::part], thinned(share, part)
    questions, outcomes, n_features, n_units = features.shape
    every = chosen is None or len(chosen) == n_features
    n_features, n_bias = n_features if every else len(chosen), questions * outcomes
    hessian = np.zeros((n_bias + n_features, n_bias + n_features))
    bias, weight = slice(0, n_bias), slice(n_bias, None)
    for rows in blocks(n_units, n_features):
        for q in range(questions):
            here = slice(q * outcomes, (q + 1) * outcomes)
            p, mass = predicted[q, :, rows], predicted[q, :, rows] * share[rows]  # (K, n)
            mean = np.zeros((n_features, p.shape[1]))
            for k in range(outcomes):
                f = features[q, k, :, rows] if every else features[q, k, chosen, rows]  # (J, n)
                scaled = f * p[k]
                mean += scaled
                scaled *= share[rows]
                hessian[weight, weight] += scaled @ f.T
                hessian[weight, here.start + k] += scaled.sum(1)
            hessian[weight, weight] -= (mean * share[rows]) @ mean.T
            hessian[weight, here] -= mean @ mass.T
            hessian[here, here] += np.diag(mass.sum(1)) - mass @ p.T
    hessian[bias, weight] = hessian[weight, bias].T
    return hessian


def _flat(rows: np.ndarray) -> np.ndarray:
    """Merge questions and outcomes, (Q, K, ...) -> (QK, ...)."""
    return rows.reshape(rows.shape[0] * rows.shape[1], *rows.shape[2:])


def best_step(hessian: np.ndarray, gradient: np.ndarray, x: np.ndarray, n_bias: int) -> np.ndarray:
    """Minimise the quadratic model exactly over x + d whose weights, all but the first n_bias, are not negative.

    With L the Hessian's Cholesky factor it is a least-squares problem in L'x; the bias comes first, so that it follows
    from the weights, which are a non-negative least-squares problem of their own.
    """
    scale = np.sqrt(np.diag(hessian))
    factor = np.linalg.cholesky(hessian / np.outer(scale, scale) + JITTER * len(scale) * np.eye(len(scale)))
    right = factor.T @ (x * scale) - solve_triangular(factor, gradient / scale, lower=True)
    target = solve_triangular(factor, right, lower=True, trans=1)
    if (target[n_bias:] < 0).any():
        weights = nnls(factor.T[n_bias:, n_bias:], right[n_bias:], maxiter=100 * len(scale))[0]
        rest = right[:n_bias] - factor.T[:n_bias, n_bias:] @ weights
        bias = solve_triangular(factor[:n_bias, :n_bias], rest, lower=True, trans=1) if n_bias else rest
        target = np.concatenate([bias, weights])
    return target / scale - x


def step_length(objective, slope: float) -> float:
    """Halve the step until the objective falls as its slope promises; 0: it does not, which is round-off's limit."""
    begun, length = objective(0.0), 1.0
    while objective(length) - begun > SUFFICIENT * length * slope:
        length /= 2
        if length < SHORTEST:
            return 0.0
    return length


def _gap(x: np.ndarray, gradient: np.ndarray, penalty: Penalty, n_bias: int) -> float:
    """Bound what any other point could gain, coordinate by coordinate."""
    furthest = gradient / penalty.ridge
    furthest[n_bias:] = np.minimum(furthest[n_bias:], x[n_bias:])
    return float((gradient * furthest - penalty.ridge * furthest**2 / 2).sum())
