"""Linear pool, then a temperature: the exponent of the pooled prediction; two convex problems, one after the other.

The gap is that of the linear pool, before the temperature.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hms_ray.ensemble.pools import linear, log_linear
from hms_ray.ensemble.pools._base import Sentences, Weighted

LABEL = "linear, then temperature"
SENTENCES = Sentences(
    weights="Weights sum to 1.",
    bound="Before the temperature, no weights on the simplex can score more than {gap} better than the "
    "fitted ones on these rows, in sample ({population}). The temperature is fitted afterwards, for "
    "these weights.",
)
RIDGE = 1e-6


@dataclass(frozen=True)
class Pool(Weighted):
    """Weights (M,) on the simplex and the exponent, an inverse temperature."""

    exponent: float
    gap: float | None

    def predict(self, probs: np.ndarray) -> np.ndarray:
        """Pool members' predictions, (N, M, ..., K) -> (N, ..., K)."""
        pooled = linear.pool(probs, self.weights)
        sharpen = log_linear.Pool(np.array([self.exponent]), np.zeros(pooled.shape[1:]), 0.0)
        return sharpen.predict(pooled[:, None])


def fit(
    probs: np.ndarray, targets: np.ndarray, sample_weight: np.ndarray | None = None, start: Pool | None = None
) -> Pool:
    """Fit the weights of the linear pool, then the exponent; arguments as there."""
    blend = linear.fit(probs, targets, sample_weight, start)
    pooled = blend.predict(probs)[:, None]
    sharpened = log_linear.fit(pooled, targets, sample_weight, ridge=RIDGE, bias_ridge=np.inf)
    return Pool(blend.weights, float(sharpened.weights[0]), blend.gap)
