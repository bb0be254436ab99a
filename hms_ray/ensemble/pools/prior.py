"""Prior pool: the shares of the outcomes among the targets, whatever the members say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hms_ray.ensemble.pools._base import Sentences, Weighted
from hms_ray.ensemble.terms import normalised

LABEL = "class shares"
SENTENCES = Sentences(
    weights="No member has weight: every unit is predicted the same.",
    no_bound="it predicts the shares of the classes, whatever the members say.",
)
SPREAD = 0.01  # for outcomes that no unit of the fit has: without it a single one elsewhere would cost 35 nats


@dataclass(frozen=True)
class Pool(Weighted):
    """Weights of 0 (M,) and the constant prediction (..., K). Nothing is left to optimise: gap None."""

    shares: np.ndarray
    gap: float | None = None

    def predict(self, probs: np.ndarray) -> np.ndarray:
        """Predict the same for every unit, (N, M, ..., K) -> (N, ..., K)."""
        return np.broadcast_to(self.shares, (len(probs), *self.shares.shape)).copy()

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` needs to predict alike."""
        return {"weights": self.weights.tolist(), "shares": self.shares.tolist(), "gap": None}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Pool:
        """Rebuild a pool that `to_dict` described."""
        return cls(np.array(content["weights"], np.float64), np.array(content["shares"], np.float64))


def fit(
    probs: np.ndarray, targets: np.ndarray, sample_weight: np.ndarray | None = None, start: Pool | None = None
) -> Pool:
    """Return the mean of the targets, SPREAD of it shared by all outcomes alike; arguments as in the linear pool."""
    shares = np.tensordot(normalised(len(targets), sample_weight), targets, axes=1)
    return Pool(np.zeros(probs.shape[1]), (1 - SPREAD) * shares + SPREAD / targets.shape[-1])
