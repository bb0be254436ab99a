"""Prior pool: the shares of the outcomes among the targets; it does not use the members."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hms_ray.ensemble.pools._base import Sentences, Weighted
from hms_ray.ensemble.terms import normalised

LABEL = "class shares"
SENTENCES = Sentences(
    weights="No member has weight: every unit is predicted the same.",
    no_bound="it predicts the shares of the classes and does not use the members.",
)
SPREAD = 0.01  # share for outcomes without a unit in the fit: without it, one such unit elsewhere would cost 35 nats


@dataclass(frozen=True)
class Pool(Weighted):
    """Weights of 0 (M,) and the constant prediction (..., K). Nothing is optimised (gap None)."""

    shares: np.ndarray
    gap: float | None = None

    def predict(self, probs: np.ndarray) -> np.ndarray:
        """Predict the same for every unit, (N, M, ..., K) -> (N, ..., K)."""
        return np.broadcast_to(self.shares, (len(probs), *self.shares.shape)).copy()


def fit(
    probs: np.ndarray, targets: np.ndarray, sample_weight: np.ndarray | None = None, start: Pool | None = None
) -> Pool:
    """Return the mean of the targets, mixed with SPREAD of a uniform distribution; arguments as in the linear pool."""
    shares = np.tensordot(normalised(len(targets), sample_weight), targets, axes=1)
    return Pool(np.zeros(probs.shape[1]), (1 - SPREAD) * shares + SPREAD / targets.shape[-1])
