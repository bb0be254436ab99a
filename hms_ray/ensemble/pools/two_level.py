"""Two-level pool: members of a family by a linear pool, the families by a log-linear one.

Models of one input err alike and are averaged as probabilities; across inputs evidence adds up, as logarithms do.
Both levels are convex and certified by themselves; the gap is that of the upper level with the lower one as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hms_ray.ensemble.pools import linear, log_linear
from hms_ray.ensemble.pools._base import Sentences

LABEL = "two levels: linear in a space, log-linear between"
SHORT_LABEL = "two levels"
SENTENCES = Sentences(
    weights="A weight is the product of the member's weight in its space and the space's own, an exponent.",
    bound="The pools within the spaces taken as they are: no other class biases, and no weights of the "
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

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` needs to predict alike."""
        return {"inner": self.inner.tolist(), "outer": self.outer.to_dict(), "gap": self.gap}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Pool:
        """Rebuild a pool that `to_dict` described."""
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
        own = names == name
        row[own] = linear.fit(probs[:, own], targets, sample_weight).weights
    blends = _families(probs, inner)
    outer = log_linear.fit(blends, targets, sample_weight, ridge=ridge, bias_ridge=bias_ridge)
    return Pool(inner, outer)


def _families(probs: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Return the families' blends, (N, M, ..., K) and (F, M) -> (N, F, ..., K)."""
    return np.stack([linear.pool(probs, weights) for weights in inner], axis=1)
