"""Best single: all weight on the member with the best score on the rows of the fit."""

from __future__ import annotations

import numpy as np

from hms_ray.ensemble.pools import linear
from hms_ray.ensemble.pools._base import Sentences
from hms_ray.ensemble.terms import scored_terms

LABEL = "best single, chosen without the fold"
SENTENCES = Sentences(
    weights="Weights sum to 1.",
    no_bound="all weight goes to one member; no weights are fitted.",
)


class Pool(linear.Pool):
    """All weight (M,) on one member; no bound (gap None)."""


def fit(
    probs: np.ndarray, targets: np.ndarray, sample_weight: np.ndarray | None = None, start: Pool | None = None
) -> Pool:
    """Choose one member, the first of equal ones; arguments as in the linear pool."""
    members, shares = scored_terms(probs, targets, sample_weight)
    return Pool(np.eye(probs.shape[1])[int(np.argmax(shares @ np.log(members)))], None)
