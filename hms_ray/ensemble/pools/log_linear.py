"""Log-linear pool: weighted log-probabilities of the members, a bias a class, then a softmax; convex and certified.

Weights are not negative. Their sum is free and acts as an inverse temperature.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.special import softmax

from hms_ray.ensemble import softmax_regression as regression
from hms_ray.ensemble.pools._base import UNSAVED, Sentences, Weighted
from hms_ray.ensemble.terms import clipped, normalised
from hms_ray.tasks import CLIP

LABEL = "log-linear"
SENTENCES = Sentences(
    weights="Weights are exponents of the members' probabilities; their sum acts as an inverse temperature.",
    bound="The fit minimises the score plus a penalty that pulls the weights to equal ones and the "
    "class biases to 0. No other biases and weights of 0 or more can bring this sum more than {gap} "
    "below the fitted ones' on these rows, in sample ({population}).",
)
RIDGE = 1e-3  # per member: pulls the weights towards the plain geometric mean
BIAS_RIDGE = 1e-2
HELD = 1e12  # keeps the bias at 0
LEAST = 1e-8  # a smaller ridge could not be certified; if classes are separable, no optimum would exist


@dataclass(frozen=True)
class Pool(Weighted):
    """Weights (M,) and bias (..., K); `gap` bounds the distance of their penalised KL to the optimum."""

    bias: np.ndarray
    gap: float
    steps: int = field(default=0, metadata=UNSAVED)

    def predict(self, probs: np.ndarray) -> np.ndarray:
        """Pool members' predictions, (N, M, ..., K) -> (N, ..., K)."""
        logits = sum(w * np.log(clipped(probs[:, m])) for m, w in enumerate(self.weights) if w > 0) + self.bias
        shape = (len(probs), *probs.shape[2:])  # without weights, or without members, only the bias counts
        return softmax(np.broadcast_to(logits, shape), axis=-1)


def fit(
    probs: np.ndarray,
    targets: np.ndarray,
    sample_weight: np.ndarray | None = None,
    start: Pool | None = None,
    *,
    ridge: float = RIDGE,
    bias_ridge: float = BIAS_RIDGE,
) -> Pool:
    """Find weights and bias with the smallest mean KL(targets || pool) + penalty.

    probs (N, M, ..., K) are clipped as the metric does; targets (N, ..., K) are shares; sample_weight (N,) defaults to
    ones. The penalty is ridge / 2 times M |w - 1 / M|^2, whose centre is the geometric mean, and bias_ridge / 2
    times |b|^2; an infinite one leaves the bias out. Neither may be below 1e-8.
    """
    assert min(ridge, bias_ridge) >= LEAST, f"ridges must be at least {LEAST:g}, but got {ridge!r} and {bias_ridge!r}"
    n_members, n_bias = probs.shape[1], targets[0].size
    features = regression.outcome_major(probs)  # a copy, whatever the layout
    np.log(np.clip(features, CLIP, 1 - CLIP, out=features), out=features)
    share = normalised(len(targets), sample_weight) / (n_bias // targets.shape[-1])
    ridges = np.repeat([min(bias_ridge, HELD), ridge * n_members], [n_bias, n_members])
    penalty = regression.Penalty(ridges, np.repeat([0, 1 / n_members], [n_bias, n_members]))
    initial = None if start is None else np.concatenate([start.bias.ravel(), start.weights])
    solution = regression.fit(features, regression.outcome_major_targets(targets), share, penalty, initial)
    return Pool(solution.weights, solution.bias.reshape(targets.shape[1:]), solution.gap, solution.steps)
