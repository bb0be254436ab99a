"""Calibrated pool: a linear pool whose temperature and class bias are fitted together with its weights.

The prediction is softmax_k(a log q_ik + b_k) with q = sum_m w_m p_m. What blends best before a sharpening is not what
blends best without, so that the three are worth more together than one after the other. The problem is not convex: it
is solved by Gauss-Newton steps from the linear pool, and has no certificate (gap None).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
    no_bound="weights, temperature and class bias are fitted together, which is not a convex problem, so there"
    " may be better ones.",
)
RIDGE = 1e-3  # pulls the weights to equal ones
BIAS_RIDGE = 1e-2  # on class bias and exponent, centred on 0 and 1
MAX_STEPS = 50
SETTLED = 1e-8  # nats that a step promises, below which it is not taken


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

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` needs to predict alike."""
        return {"weights": self.weights.tolist(), "exponent": self.exponent, "bias": self.bias.tolist(), "gap": None}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Pool:
        """Rebuild a pool that `to_dict` described."""
        return cls(np.array(content["weights"]), content["exponent"], np.array(content["bias"]))


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

    probs (N, M, ..., K), targets (N, ..., K) and sample_weight (N,) as in the linear pool, which is where it starts
    unless `start` says otherwise. The penalty is ridge / 2 times M |w - 1 / M|^2, and a small one on exponent and bias.
    The sum of w, on which no prediction depends, is free until the end, when it is brought to 1.
    """
    start = start or _start(probs, targets, sample_weight, ridge=ridge, bias_ridge=bias_ridge)
    share = normalised(len(targets), sample_weight) * targets.shape[-1] / targets[0].size
    members = regression.outcome_major(probs)  # a copy, whatever the layout
    np.clip(members, CLIP, 1 - CLIP, out=members)
    problem = _Problem(
        members, regression.outcome_major_targets(targets), share, _penalty(targets, probs, ridge, bias_ridge)
    )
    x = problem.settle(np.concatenate([start.bias.ravel(), start.weights, [start.exponent]]))
    bias, weights, exponent = problem.parts(x)
    weights = np.maximum(weights, 0)
    return Pool(weights / weights.sum(), float(exponent), bias.reshape(targets.shape[1:]))


def _start(probs: np.ndarray, targets: np.ndarray, sample_weight: np.ndarray | None, **ridges: float) -> Pool:
    """Begin where a fit on every eighth unit ended, or with few units at the linear pool."""
    units = np.arange(len(targets)) if sample_weight is None else np.flatnonzero(sample_weight)
    units = units[:: regression.COARSER]
    if len(units) < regression.COARSE_UNITS:
        return Pool(linear.fit(probs, targets, sample_weight).weights, 1.0, np.zeros(targets.shape[1:]))
    weight = None if sample_weight is None else sample_weight[units]
    return fit(probs[units], targets[units], weight, **ridges)


def _penalty(targets: np.ndarray, probs: np.ndarray, ridge: float, bias_ridge: float) -> regression.Penalty:
    n_bias, n_members = targets[0].size, probs.shape[1]
    counts = [n_bias, n_members, 1]
    ridges = np.repeat([bias_ridge, ridge * n_members, bias_ridge], counts)
    return regression.Penalty(ridges, np.repeat([0, 1 / n_members, 1], counts))


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
        """Return the linear pool q (Q, K, N); it is linear in x, so that a step's blend is that of the difference."""
        return self.parts(x)[1] @ self.members

    def settle(self, x: np.ndarray) -> np.ndarray:
        """Take Gauss-Newton steps that lower the objective, as long as one promises enough."""
        blend, part = self.blend(x), regression.hessian_part(len(self.share))
        for _ in range(MAX_STEPS):
            predicted = regression.softmax(self._logits(x, blend))
            gradient = self._gradient(x, blend, predicted)
            promised, direction = self._direction(x, blend, predicted, gradient, part)
            if -promised < SETTLED:
                break
            moved = self.blend(direction)

            def objective(t: float, x=x, blend=blend, direction=direction, moved=moved) -> float:
                logits = self._logits(x + t * direction, blend + t * moved)
                value = regression.cross_entropy(logits, self.targets, self.share)
                return value + self.penalty.value(x + t * direction)

            length = regression.step_length(objective, promised)
            if not length:
                break
            x, blend = x + length * direction, blend + length * moved
        return x

    def _direction(
        self, x: np.ndarray, blend: np.ndarray, predicted: np.ndarray, gradient: np.ndarray, part: int
    ) -> tuple[float, np.ndarray]:
        """Return the slope along the best step of the quadratic model, and the step; part: as in `curvature`.

        A weight of 0 that the objective does not want to grow has no part in it.
        """
        n_bias = self.targets[..., 0].size
        free = (np.arange(len(x)) < n_bias) | (x > 0) | (gradient < 0)
        free[-1] = True
        wanted = np.flatnonzero(free)
        members, blend = self.members[:, :, wanted[n_bias:-1] - n_bias, ::part], np.maximum(blend[..., ::part], CLIP)
        features = np.empty((*blend.shape[:2], members.shape[2] + 1, blend.shape[2]))
        np.multiply(members, (x[-1] / blend)[:, :, None], out=features[:, :, :-1])
        features[:, :, -1] = np.log(blend)
        second = regression.curvature(features, predicted[..., ::part], regression.thinned(self.share, part))
        model = regression.Model(wanted, second + np.diag(self.penalty.ridge[wanted]))
        direction = model.step(x, gradient, n_bias)
        return float(gradient @ direction), direction

    def _gradient(self, x: np.ndarray, blend: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """Return the slope of the objective by bias, weights and exponent."""
        blend, excess = np.maximum(blend, CLIP), (predicted - self.targets) * self.share
        by_weight = (self.members @ (excess * (x[-1] / blend))[..., None]).sum((0, 1))[:, 0]
        slopes = [excess.sum(-1).ravel(), by_weight, [float((excess * np.log(blend)).sum())]]
        return np.concatenate(slopes) + self.penalty.gradient(x)

    def _logits(self, x: np.ndarray, blend: np.ndarray) -> np.ndarray:
        bias, _, exponent = self.parts(x)
        return exponent * np.log(np.maximum(blend, CLIP)) + bias.reshape(*blend.shape[:2], 1)
