"""Average of pools: the weighted mean of the predictions of several fitted pools, whose errors differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hms_ray.ensemble.pools import _base, linear, log_linear
from hms_ray.ensemble.pools._base import Pool as AnyPool
from hms_ray.ensemble.pools._base import Sentences

LABEL = "average of linear and log-linear"


@dataclass(frozen=True)
class Pool:
    """Pools and their shares (P,), which sum to 1."""

    pools: tuple[AnyPool, ...]
    shares: np.ndarray

    @property
    def weights(self) -> np.ndarray:
        """Mean of the pools' weights (M,), each normalised to sum 1; they cannot reproduce the prediction."""
        return sum(s * p.weights / max(p.weights.sum(), 1e-300) for s, p in zip(self.shares, self.pools, strict=True))

    @property
    def gap(self) -> float | None:
        """The largest gap of the pools that have one; it holds for these pools only."""
        return max((pool.gap for pool in self.pools if pool.gap is not None), default=None)

    def reindexed(self, change: Callable[[np.ndarray], np.ndarray]) -> Pool:
        """Return the pool over other members; `change` maps weights (..., M) to (..., M')."""
        return replace(self, pools=tuple(pool.reindexed(change) for pool in self.pools))

    def predict(self, probs: np.ndarray) -> np.ndarray:
        """Pool members' predictions, (N, M, ..., K) -> (N, ..., K)."""
        return sum(share * pool.predict(probs) for share, pool in zip(self.shares, self.pools, strict=True))

    def to_dict(self) -> dict[str, object]:
        """Return everything that `from_dict` needs, as JSON."""
        return {"pools": [_base.to_dict(pool) for pool in self.pools], "shares": self.shares.tolist(), "gap": self.gap}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Pool:
        """Restore the pool from the result of `to_dict`."""
        return cls(tuple(map(_base.from_dict, content["pools"])), np.array(content["shares"], np.float64))


def fit(
    probs: np.ndarray, targets: np.ndarray, sample_weight: np.ndarray | None = None, start: Pool | None = None
) -> Pool:
    """Fit the linear and the log-linear pool, and take the mean of both; arguments as there."""
    pools = (linear.fit(probs, targets, sample_weight), log_linear.fit(probs, targets, sample_weight))
    return Pool(pools, np.full(2, 0.5))


def explain(pool: Pool) -> Sentences:
    """Describe the parts of the average, and which of them have a certificate."""
    shares: Counter[str] = Counter()
    for part, share in zip(pool.pools, pool.shares.tolist(), strict=True):
        shares[_base.short_label(part)] += share
    kinds = "; ".join(f"{100 * share:.1f}\u00a0% {label}" for label, share in shares.most_common())
    certified = [_base.short_label(part) for part in pool.pools if part.gap is not None]
    others = dict.fromkeys(_base.short_label(part) for part in pool.pools if part.gap is None)
    bound = (
        f"{len(certified)} of the {len(pool.pools)} pools averaged here have a certificate "
        f"({'; '.join(dict.fromkeys(certified))}): each is within {{gap}} of its own optimum on these rows, in sample "
        "({population}). This bounds each of these fits, not their average."
    )
    return Sentences(
        weights="A weight is the mean of the pools' weights, each normalised to sum 1, weighted by their shares. It "
        "indicates relative importance; these weights cannot reproduce the prediction.",
        bound=bound + (f" The others ({'; '.join(others)}) have none." if others else ""),
        no_bound=_base.explain(pool.pools[int(pool.shares.argmax())]).no_bound,
        composition=f"An average of {len(pool.pools)} pools: {kinds}.",
    )
