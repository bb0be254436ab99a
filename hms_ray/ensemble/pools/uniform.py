"""Uniform pool: the plain mean of all members, where every ensemble begins and what it has to beat."""

from __future__ import annotations

import numpy as np

from hms_ray.ensemble.pools import linear
from hms_ray.ensemble.pools._base import Sentences

LABEL = "plain mean"
SENTENCES = Sentences(
    weights="Weights sum to 1.",
    no_bound="the weights are equal, and nothing is fitted.",
)


class Pool(linear.Pool):
    """Equal weights (M,). Nothing bounds what other weights could gain: gap None."""


def fit(
    probs: np.ndarray, targets: np.ndarray, sample_weight: np.ndarray | None = None, start: Pool | None = None
) -> Pool:
    """Return equal weights, whatever the targets; probs (N, M, ..., K)."""
    return Pool(np.full(probs.shape[1], 1 / probs.shape[1]), None)
