"""Two-level pool: a linear pool of the members of each family, then a log-linear pool of the families.

Models of one input make similar errors, so their probabilities are averaged; evidence of different inputs adds up, so
their logarithms are. Each level is convex and certified; the gap is that of the upper level for a fixed lower level.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hms_ray.ensemble.pools import linear, log_linear
from hms_ray.ensemble.pools._base import Sentences

LABEL = "two levels: linear in a space, log-linear between"
SHORT_LABEL = "two levels"
SENTENCES = Sentences(
    weights="A weight is the product of the member's weight in its space and the space's own, an exponent.",
    bound="For fixed pools within the spaces: no other class biases, and no weights of the "
    "spaces of 0 or more, can bring the score plus its penalty more than {gap} below the fitted ones'"
    " on these rows, in sample ({population}).",
)


@dataclass(frozen=True)
class Pool:
    """`inner` (F, M): each family's weights on the simplex; `outer`: the log-linear pool of the families."""

    inner: np.ndarray
    outer: log_linear.Pool

    @property
    def weights(self) -> np.ndarray:
        """Return the product of both levels (M,)."""
        return self.outer.weights @ self.inner

    @property
    def gap(self) -> float | None:
        """The gap of the upper level."""
        return self.outer.gap

    def reindexed(self, change: Callable[[np.ndarray], np.ndarray]) -> Pool:
        """Return the pool over other members; `change` takes weights (..., M) to (..., M')."""
        return replace(self, inner=change(self.inner))

    def predict(self, probs: np.ndarray) -> np.ndarray:
        """Pool members' predictions, (N, M, ..., K) -> (N, ..., K)."""
        return self.outer.predict(_families(probs, self.inner))

    def to_dict(self) -> dict[str, object]:
        """Return everything that `from_dict` needs, as JSON."""
        return {"inner": self.inner.tolist(), "outer": self.outer.to_dict(), "gap": self.gap}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Pool:
        """Restore the pool from the result of `to_dict`."""
        return cls(np.array(content["inner"], np.float64), log_linear.Pool.from_dict(content["outer"]))


def fit(
    probs: np.ndarray,
    targets: np.ndarray,
    sample_weight: np.ndarray | None = None,
    start: Pool | None = None,
    *,
    families: Sequence[str],
    ridge: float = log_linear.RIDGE,
    bias_ridge: float = log_linear.BIAS_RIDGE,
) -> Pool:
    """Fit each family's linear pool, then the log-linear pool of these; families (M,): the family of each member."""
    names = np.asarray(families)
    inner = np.zeros((len(np.unique(names)), len(names)))
    for row, name in zip(inner, np.unique(names), strict=True):
        members = names == name
        row[members] = linear.fit(probs[:, members], targets, sample_weight).weights
    blends = _families(probs, inner)
    outer = log_linear.fit(blends, targets, sample_weight, ridge=ridge, bias_ridge=bias_ridge)
    return Pool(inner, outer)


def _families(probs: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Return the families' blends, (N, M, ..., K) and (F, M) -> (N, F, ..., K)."""
    return np.stack([linear.pool(probs, weights) for weights in inner], axis=1)
