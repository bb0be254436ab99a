"""Calibrated pool: a linear pool whose temperature and class bias are fitted together with its weights.

The prediction is softmax_k(a log q_ik + b_k) with q = sum_m w_m p_m. The best weights before sharpening differ from the
best weights without it, so all three are fitted together. The problem is not convex: Gauss-Newton steps start from the
linear pool, and there is no certificate (gap None).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from hms_ray.ensemble import softmax_regression as regression
from hms_ray.ensemble.pools import linear
from hms_ray.ensemble.pools._base import Sentences, Weighted
from hms_ray.ensemble.terms import clipped, normalised
from hms_ray.ensemble.threads import on_one_thread
from hms_ray.tasks import CLIP

LABEL = "calibrated: linear, with temperature and class bias"
SHORT_LABEL = "calibrated"
SENTENCES = Sentences(
    weights="Weights sum to 1.",
    no_bound="weights, temperature and class bias are fitted together. This problem is not convex, so there"
    " may be better ones.",
)
RIDGE = 1e-3  # pulls the weights to equal ones
BIAS_RIDGE = 1e-2  # on class bias and exponent, centred on 0 and 1
MAX_STEPS = 50
SETTLED = 1e-8  # nats: a step that promises less is not taken


@dataclass(frozen=True)
class Pool(Weighted):
    """Weights (M,) on the simplex, exponent (an inverse temperature) and bias (..., K)."""

    exponent: float
    bias: np.ndarray
    gap: float | None = None

    def predict(self, probs: np.ndarray) -> np.ndarray:
        """Pool members' predictions, (N, M, ..., K) -> (N, ..., K)."""
        logits = self.exponent * np.log(clipped(linear.pool(probs, self.weights))) + self.bias
        return softmax(logits, axis=-1)


@on_one_thread
def fit(
    probs: np.ndarray,
    targets: np.ndarray,
    sample_weight: np.ndarray | None = None,
    start: Pool | None = None,
    *,
    ridge: float = RIDGE,
    bias_ridge: float = BIAS_RIDGE,
) -> Pool:
    """Find weights, exponent and bias with a small mean KL(targets || pool) + penalty.

    probs (N, M, ..., K), targets (N, ..., K) and sample_weight (N,) as in the linear pool. The penalty is ridge / 2
    times M |w - 1 / M|^2, and a small one on exponent and bias. No prediction depends on the sum of w: it is free
    during the fit, and normalised to 1 at the end.
    """
    n_bias, n_members = targets[0].size, probs.shape[1]
    if start is None:  # from a fit on every eighth unit; with few units, from the linear pool
        units = np.arange(len(targets)) if sample_weight is None else np.flatnonzero(sample_weight)
        units = units[:: regression.COARSER]
        if len(units) < regression.COARSE_UNITS:
            start = Pool(linear.fit(probs, targets, sample_weight).weights, 1.0, np.zeros(targets.shape[1:]))
        else:
            weight = None if sample_weight is None else sample_weight[units]
            start = fit(probs[units], targets[units], weight, ridge=ridge, bias_ridge=bias_ridge)
    share = normalised(len(targets), sample_weight) * targets.shape[-1] / n_bias
    members = regression.outcome_major(probs)  # a copy, whatever the layout
    np.clip(members, CLIP, 1 - CLIP, out=members)
    counts = [n_bias, n_members, 1]
    ridges = np.repeat([bias_ridge, ridge * n_members, bias_ridge], counts)
    penalty = regression.Penalty(ridges, np.repeat([0, 1 / n_members, 1], counts))
    problem = _Problem(members, regression.outcome_major_targets(targets), share, penalty)
    x = problem.settle(np.concatenate([start.bias.ravel(), start.weights, [start.exponent]]))
    bias, weights, exponent = problem.parts(x)
    weights = np.maximum(weights, 0)
    return Pool(weights / weights.sum(), float(exponent), bias.reshape(targets.shape[1:]))


@dataclass(frozen=True)
class _Problem:
    """members (Q, K, M, N), targets (Q, K, N), share (N,); a point x is bias (QK,), weights (M,), exponent."""

    members: np.ndarray
    targets: np.ndarray
    share: np.ndarray
    penalty: regression.Penalty

    def parts(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """Return bias, weights and exponent of a point."""
        n_bias = self.targets[..., 0].size
        return x[:n_bias], x[n_bias:-1], x[-1]

    def blend(self, x: np.ndarray) -> np.ndarray:
        """Return the linear pool q (Q, K, N); it is linear in x, so the blend of a step is that of the difference."""
        return self.parts(x)[1] @ self.members

    def settle(self, x: np.ndarray) -> np.ndarray:
        """Take Gauss-Newton steps that lower the objective, while a step promises at least SETTLED.

        A weight of 0 whose slope is not negative takes no part in a step.
        """
        n_bias, part = self.targets[..., 0].size, regression.hessian_part(len(self.share))
        blend = self.blend(x)
        for _ in range(MAX_STEPS):
            predicted, clipped_blend = regression.softmax(self._logits(x, blend)), np.maximum(blend, CLIP)
            excess = (predicted - self.targets) * self.share
            by_weight = (self.members @ (excess * (x[-1] / clipped_blend))[..., None]).sum((0, 1))[:, 0]
            slopes = [excess.sum(-1).ravel(), by_weight, [float((excess * np.log(clipped_blend)).sum())]]
            gradient = np.concatenate(slopes) + self.penalty.gradient(x)
            free = (np.arange(len(x)) < n_bias) | (x > 0) | (gradient < 0)
            free[-1] = True  # the exponent
            positions, few = np.flatnonzero(free), clipped_blend[..., ::part]
            members = self.members[:, :, positions[n_bias:-1] - n_bias, ::part]
            features = np.empty((*few.shape[:2], members.shape[2] + 1, few.shape[2]))
            np.multiply(members, (x[-1] / few)[:, :, None], out=features[:, :, :-1])
            features[:, :, -1] = np.log(few)
            hessian = regression.curvature(features, predicted[..., ::part], regression.thinned(self.share, part))
            model = regression.Model(positions, hessian + np.diag(self.penalty.ridge[positions]))
            direction = model.step(x, gradient, n_bias)
            promised = float(gradient @ direction)
            if -promised < SETTLED:
                break
            moved = self.blend(direction)

            def objective(
                t: float,
                x: np.ndarray = x,
                blend: np.ndarray = blend,
                direction: np.ndarray = direction,
                moved: np.ndarray = moved,
            ) -> float:
                logits = self._logits(x + t * direction, blend + t * moved)
                value = regression.cross_entropy(logits, self.targets, self.share)
                return value + self.penalty.value(x + t * direction)

            length = regression.step_length(objective, promised)
            if not length:
                break
            x, blend = x + length * direction, blend + length * moved
        return x

    def _logits(self, x: np.ndarray, blend: np.ndarray) -> np.ndarray:
        bias, _, exponent = self.parts(x)
        return exponent * np.log(np.maximum(blend, CLIP)) + bias.reshape(*blend.shape[:2], 1)
