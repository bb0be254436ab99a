"""Greedy selection with replacement (Caruana et al., 2004), a common method; here it is a baseline.

It starts with no member. Each step adds the member that improves the mean of the chosen ones most.
"""

from __future__ import annotations

import numpy as np

from hms_ray.ensemble.pools import linear
from hms_ray.ensemble.pools._base import Sentences
from hms_ray.ensemble.terms import scored_terms

LABEL = "greedy selection"
SENTENCES = Sentences(
    weights="Weights sum to 1.",
    no_bound="members are added one by one, each time the one that helps most; optimal weights are not searched for.",
)
STEPS = 25


class Pool(linear.Pool):
    """Weights (M,): each member's share of the choices. No bound (gap None)."""


def fit(
    probs: np.ndarray,
    targets: np.ndarray,
    sample_weight: np.ndarray | None = None,
    start: Pool | None = None,
    *,
    steps: int = STEPS,
) -> Pool:
    """Choose `steps` members; arguments as in the linear pool. The weights are the shares of the choices."""
    terms, shares = scored_terms(probs, targets, sample_weight)
    members = np.ascontiguousarray(terms.T)  # (M, P)
    counts, total = np.zeros(len(members)), np.zeros_like(shares)
    for _ in range(steps):
        best = int(np.argmax([np.log(total + member) @ shares for member in members]))
        counts[best] += 1
        total += members[best]
    return Pool(counts / steps, None)
