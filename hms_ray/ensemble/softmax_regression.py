"""Softmax regression with non-negative weights, solved to a certified optimum: the basis of the log-linear pool.

Minimise  F(x) = mean_i [logsumexp_k z_ik - sum_k y_ik z_ik] + sum_j r_j (x_j - a_j)^2 / 2  with z_ik = b_k + sum_j w_j
f_ijk, x = (b, w), w >= 0.  F is convex, and strongly convex for r_j > 0: with g its gradient, no x is better by more
than the gap,  sum_j max_v [g_j (x_j - v) - r_j (x_j - v)^2 / 2]  over the values v that x_j may take.

Arrays are outcome-major; the long axis of units is the last: features (Q, K, J, N), targets and predictions (Q, K, N),
for Q questions of K outcomes each; every question has its own bias, and all share the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import nnls

from hms_ray.ensemble.terms import blocks
from hms_ray.ensemble.threads import on_one_thread

TOLERANCE = 1e-9
MAX_STEPS = 100
SUFFICIENT = 1e-4  # Armijo: the share of the decrease promised by the slope that a step must reach
SHORTEST = 1e-9  # shorter steps are lost in rounding errors
FAST = 0.05  # a Hessian is reused while a step shrinks the gap to this share or less
SLOW = 0.3  # a Hessian of a part of the units is too rough if a step shrinks the gap to more than this share
HESSIAN_UNITS = 2500  # the smallest part
JITTER = 1e-13  # on a Hessian of unit diagonal, which a small ridge may leave singular
TILE = 256  # units
COARSER, COARSE_UNITS = 8, 300  # the start is fitted on every eighth unit with weight, if that leaves this many,
COARSE_GAP = 1e-4  # to this gap


@dataclass(frozen=True)
class Penalty:
    """Ridge r and centre a of bias (B,) and weights (J,), in this order: (B + J,) each."""

    ridge: np.ndarray
    centre: np.ndarray

    def value(self, x: np.ndarray) -> float:
        """Return the penalty, a term of the objective."""
        return float(self.ridge @ (x - self.centre) ** 2 / 2)

    def gradient(self, x: np.ndarray) -> np.ndarray:
        """Return its gradient (B + J,)."""
        return self.ridge * (x - self.centre)


@dataclass(frozen=True)
class Solution:
    """Bias (Q, K), weights (J,), the bound on the distance to the optimum, and the number of Newton steps."""

    bias: np.ndarray
    weights: np.ndarray
    gap: float
    steps: int


def outcome_major(probs: np.ndarray) -> np.ndarray:
    """Return the members' predictions (N, M, ..., K) in the layout (Q, K, M, N)."""
    rows = probs.reshape(*probs.shape[:2], -1, probs.shape[-1])
    turned = np.empty((*rows.shape[2:], rows.shape[1], len(rows)))
    for start in range(0, len(rows), TILE):  # in tiles that fit into the cache, which is three times as fast
        turned[..., start : start + TILE] = rows[start : start + TILE].transpose(2, 3, 1, 0)
    return turned


def outcome_major_targets(targets: np.ndarray) -> np.ndarray:
    """Return targets (N, ..., K) in the layout (Q, K, N)."""
    return outcome_major(targets[:, None])[:, :, 0]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the distribution over outcomes, (Q, K, N) -> (Q, K, N)."""
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


def cross_entropy(logits: np.ndarray, targets: np.ndarray, share: np.ndarray) -> float:
    """Return the mean cross-entropy; share (N,): the weight of each unit, divided by the number of questions."""
    top = logits.max(1)
    mass = np.log(np.exp(logits - top[:, None]).sum(1)) + top
    return float((mass - (targets * logits).sum(1)).sum(0) @ share)


@on_one_thread
def fit(
    features: np.ndarray, targets: np.ndarray, share: np.ndarray, penalty: Penalty, start: np.ndarray | None = None
) -> Solution:
    """Minimise F; start (B + J,) defaults to the solution on every eighth unit, or to the penalty's centre.

    If the gap is not below TOLERANCE after MAX_STEPS, the last point is returned with its gap.
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
    units = np.flatnonzero(share)[::COARSER]
    if start is not None:
        x = start.copy()
    elif len(units) < COARSE_UNITS:
        x = penalty.centre.copy()
    else:
        coarse = np.ascontiguousarray(features[..., units]), targets[..., units]
        solution = _fit(*coarse, share[units] / share[units].sum() * share.sum(), penalty, None, COARSE_GAP)
        x = np.concatenate([solution.bias.ravel(), solution.weights])
    logits, model, previous_gap, part = _logits(features, x), None, np.inf, hessian_part(len(share))
    for steps in range(MAX_STEPS + 1):
        predicted = softmax(logits)
        gradient = slope(features, predicted - targets, share) + penalty.gradient(x)
        furthest = gradient / penalty.ridge  # the gap: what any other point could gain, coordinate by coordinate
        furthest[n_bias:] = np.minimum(furthest[n_bias:], x[n_bias:])
        gap = float((gradient * furthest - penalty.ridge * furthest**2 / 2).sum())
        if gap < tolerance or steps == MAX_STEPS:
            break
        part = part if model is None or gap < previous_gap * SLOW else 1
        positions = np.flatnonzero((x > 0) | (gradient < 0) | (np.arange(len(x)) < n_bias))
        if model is None or gap > previous_gap * FAST or len(np.setdiff1d(positions, model.positions)):
            hessian = curvature(features, predicted, share, positions[n_bias:] - n_bias, part)
            model = Model(positions, hessian + np.diag(penalty.ridge[positions]))
        direction, previous_gap = model.step(x, gradient, n_bias), gap
        moved = _logits(features, direction)

        def objective(
            t: float,
            x: np.ndarray = x,
            logits: np.ndarray = logits,
            direction: np.ndarray = direction,
            moved: np.ndarray = moved,
        ) -> float:
            return cross_entropy(logits + t * moved, targets, share) + penalty.value(x + t * direction)

        length = step_length(objective, gradient @ direction)
        if not length:
            break
        x, logits = x + length * direction, logits + length * moved
    return Solution(x[:n_bias].reshape(targets.shape[:2]), np.maximum(x[n_bias:], 0), gap, steps)


@dataclass(frozen=True)
class Model:
    """The quadratic model over the bias and the active weights: positions in x, and their Hessian.

    A weight of 0 whose slope is not negative takes no part in a step.
    """

    positions: np.ndarray
    hessian: np.ndarray

    def step(self, x: np.ndarray, gradient: np.ndarray, n_bias: int) -> np.ndarray:
        """Return the best step (B + J,)."""
        direction = np.zeros_like(x)
        direction[self.positions] = best_step(self.hessian, gradient[self.positions], x[self.positions], n_bias)
        return direction


def _logits(features: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return z (Q, K, N) at x, bias and weights."""
    n_bias = features.shape[0] * features.shape[1]
    logits = np.stack([x[n_bias:] @ f for f in _flat(features)]) + x[:n_bias, None]
    return logits.reshape(*features.shape[:2], -1)


def slope(features: np.ndarray, excess: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Return the gradient (B + J,) of the cross-entropy; excess (Q, K, N): predictions minus targets."""
    weighted = excess * share
    by_weight = np.asarray(sum(f @ e for f, e in zip(_flat(features), _flat(weighted), strict=True)))
    return np.concatenate([weighted.sum(-1).ravel(), by_weight])


def hessian_part(n_units: int) -> int:
    """Return n: every n-th unit is enough for the first Hessians, which affect the speed, not the optimum."""
    return max(1, n_units // HESSIAN_UNITS)


def thinned(share: np.ndarray, part: int) -> np.ndarray:
    """Return the shares of every n-th unit, scaled to the same sum."""
    return share[::part] * (share.sum() / share[::part].sum())


def curvature(
    features: np.ndarray, predicted: np.ndarray, share: np.ndarray, chosen: np.ndarray | None = None, part: int = 1
) -> np.ndarray:
    """Return the Hessian (B + J, B + J) of the cross-entropy at predictions (Q, K, N); chosen: positions of J features.

    This is the mean covariance of the features and of the outcomes' indicators under each unit's predictions.
    part: n, to use every n-th unit
    """
    if part > 1:
        features, predicted, share = features[..., ::part], predicted[..., ::part], thinned(share, part)
    questions, outcomes, n_features, n_units = features.shape
    columns = None if chosen is None or len(chosen) == n_features else chosen  # None: all, without a copy
    n_features, n_bias = n_features if columns is None else len(columns), questions * outcomes
    hessian = np.zeros((n_bias + n_features, n_bias + n_features))
    bias, weight = slice(0, n_bias), slice(n_bias, None)
    for rows in blocks(n_units, n_features):
        for q in range(questions):
            outcome = slice(q * outcomes, (q + 1) * outcomes)
            p, mass = predicted[q, :, rows], predicted[q, :, rows] * share[rows]  # (K, n)
            mean = np.zeros((n_features, p.shape[1]))
            for k in range(outcomes):
                f = features[q, k, :, rows] if columns is None else features[q, k, columns, rows]  # (J, n)
                scaled = f * p[k]
                mean += scaled
                scaled *= share[rows]
                hessian[weight, weight] += scaled @ f.T
                hessian[weight, outcome.start + k] += scaled.sum(1)
            hessian[weight, weight] -= (mean * share[rows]) @ mean.T
            hessian[weight, outcome] -= mean @ mass.T
            hessian[outcome, outcome] += np.diag(mass.sum(1)) - mass @ p.T
    hessian[bias, weight] = hessian[weight, bias].T
    return hessian


def _flat(rows: np.ndarray) -> np.ndarray:
    """Merge questions and outcomes, (Q, K, ...) -> (QK, ...)."""
    return rows.reshape(rows.shape[0] * rows.shape[1], *rows.shape[2:])


def best_step(hessian: np.ndarray, gradient: np.ndarray, x: np.ndarray, n_bias: int) -> np.ndarray:
    """Minimise the quadratic model exactly over x + d whose weights, all but the first n_bias, are not negative.

    With L the Cholesky factor of the Hessian this is a least-squares problem in L'x. The bias comes first: the weights
    are a non-negative least-squares problem of their own, and the bias follows from them.
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


def step_length(objective: Callable[[float], float], slope: float) -> float:
    """Halve the step until the objective falls as its slope promises; 0: it does not, because of rounding errors."""
    initial, length = objective(0.0), 1.0
    while objective(length) - initial > SUFFICIENT * length * slope:
        length /= 2
        if length < SHORTEST:
            return 0.0
    return length
