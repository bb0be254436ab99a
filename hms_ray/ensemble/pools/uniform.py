"""Uniform pool: the plain mean of all members, the baseline of every ensemble."""

from __future__ import annotations

import numpy as np

from hms_ray.ensemble.pools import linear
from hms_ray.ensemble.pools._base import Sentences

LABEL = "plain mean"
SENTENCES = Sentences(
    weights="Weights sum to 1.",
    no_bound="the weights are equal; nothing is fitted.",
)


class Pool(linear.Pool):
    """Equal weights (M,). No bound (gap None)."""


def fit(
    probs: np.ndarray, targets: np.ndarray, sample_weight: np.ndarray | None = None, start: Pool | None = None
) -> Pool:
    """Return equal weights; probs (N, M, ..., K). The targets are not used."""
    return Pool(np.full(probs.shape[1], 1 / probs.shape[1]), None)
