"""Linear pool: one weight a member, on the simplex, with the smallest mean KL; convex, and certified (see `_mixture`).

Many members on many rows are fitted few at a time, and the certificate asks for those that are missed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hms_ray.ensemble import mixture
from hms_ray.ensemble.pools._base import Sentences, Weighted
from hms_ray.ensemble.terms import Pairs, blocks, scored_pairs, terms_at
from hms_ray.ensemble.threads import on_one_thread

LABEL = "linear"
SENTENCES = Sentences(
    weights="Weights sum to 1.",
    bound="No weights on the simplex can score more than {gap} better than the fitted ones on these rows, "
    "in sample ({population}).",
)
TOLERANCE = mixture.TOLERANCE
MANY = 1 << 22  # from so many terms on, 32 MB, members are fitted few at a time:
PART = 12  # those that matter on every twelfth pair,
NEARLY = 0.01  # or would with so much more gain, and those that the certificate asks for


@dataclass(frozen=True)
class Pool(Weighted):
    """Weights (M,) on the simplex; `gap` bounds how far their KL is from the best one, in nats."""

    gap: float | None
    iterations: int = 0

    @property
    def certified(self) -> bool:
        """Whether the gap is below the tolerance of 1e-9."""
        return self.gap is not None and self.gap < TOLERANCE

    def predict(self, probs: np.ndarray) -> np.ndarray:
        """Pool members' predictions, (N, M, ..., K) -> (N, ..., K)."""
        return pool(probs, self.weights)

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` needs to predict alike."""
        return {"weights": self.weights.tolist(), "gap": self.gap}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Pool:
        """Rebuild a pool that `to_dict` described."""
        return cls(np.array(content["weights"], np.float64), content["gap"])


def pool(probs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted mean of the members' predictions, (N, M, ..., K) and (M,) -> (N, ..., K)."""
    used = weights != 0
    if not used.all():
        probs, weights = probs[:, used], weights[used]
    return np.einsum("m,nm...->n...", weights, probs)


def fit(
    probs: np.ndarray,
    targets: np.ndarray,
    sample_weight: np.ndarray | None = None,
    start: Weighted | None = None,
) -> Pool:
    """Find the weights with the smallest mean KL(targets || pool).

    probs (N, M, ..., K) are clipped as the metric does; targets (N, ..., K) are shares; sample_weight (N,) defaults to
    ones; start: a pool to begin at, such as that of nearly the same rows. Of several optima, as with
    identical members, the pool has one in which no member is a blend of others: the first of identical ones stays.
    Where too many steps pass without a gap below TOLERANCE the last weights are returned with their true gap, and
    `certified` is False.
    """
    pairs, shares = scored_pairs(targets, sample_weight)
    begun = None if start is None else start.weights
    if len(shares) * probs.shape[1] < MANY:
        return fit_terms(terms_at(probs, pairs), shares, begun)
    return _fit_few(probs, pairs, shares, begun)


@on_one_thread
def _fit_few(probs: np.ndarray, pairs: Pairs, shares: np.ndarray, start: np.ndarray | None) -> Pool:
    """Fit the few members that are likely to matter, price the others block by block, and take in who was missed.

    The optimum and its certificate are those of all members, but their terms are never in memory all at once.
    """
    weights, chosen = _likely(probs, pairs, shares) if start is None else (start, start > 0)
    steps = 0
    while True:
        few = _few_terms(probs, pairs, chosen)
        pool = fit_terms(few, shares, weights[chosen])
        weights, steps = np.zeros(len(chosen)), steps + pool.iterations
        weights[chosen] = pool.weights
        gains = _priced(probs, pairs, shares / (few @ pool.weights))
        gap, missed = float(gains.max() - 1), (gains > 1) & ~chosen
        if gap < TOLERANCE or not missed.any() or steps >= mixture.MAX_ITERATIONS:
            return Pool(weights, gap, steps)
        chosen |= missed


def _likely(probs: np.ndarray, pairs: Pairs, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights (M,) for every twelfth pair, and the mask of members that have weight there, or nearly."""
    some = slice(None, None, PART)
    terms, part = terms_at(probs, tuple(index[some] for index in pairs)), shares[some] / shares[some].sum()
    weights = mixture.rough(terms, part, NEARLY / 100)
    return weights, (weights > 0) | (mixture.gains(part, terms, terms @ weights) > 1 - NEARLY)


def _few_terms(probs: np.ndarray, pairs: Pairs, chosen: np.ndarray) -> np.ndarray:
    """Return the clipped predictions (P, k) of the chosen members."""
    terms, positions = np.empty((len(pairs[0]), int(chosen.sum()))), np.flatnonzero(chosen)
    for rows in blocks(len(terms), probs.shape[1]):
        terms[rows] = terms_at(probs, tuple(index[rows] for index in pairs))[:, positions]
    return terms


def _priced(probs: np.ndarray, pairs: Pairs, ratio: np.ndarray) -> np.ndarray:
    """Return each member's gain (M,), plus 1; ratio (P,): shares over pooled predictions."""
    return sum(
        ratio[rows] @ terms_at(probs, tuple(index[rows] for index in pairs))
        for rows in blocks(len(ratio), probs.shape[1])
    )


def fit_terms(members: np.ndarray, shares: np.ndarray, start: np.ndarray | None = None) -> Pool:
    """Find the weights for clipped predictions (P, M) of scored pairs and their shares (P,), as `fit` does."""
    return Pool(*mixture.fit(members, shares, start))
