"""Linear pool: one weight a member, on the simplex, with the smallest mean KL; convex and certified (see `mixture`).

With many members and rows, few members are fitted at a time; the certificate finds members that are missed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from hms_ray.ensemble import TOLERANCE, mixture
from hms_ray.ensemble.pools._base import UNSAVED, Sentences, Weighted
from hms_ray.ensemble.terms import Pairs, blocks, scored_pairs, terms_at
from hms_ray.ensemble.threads import on_one_thread

LABEL = "linear"
SENTENCES = Sentences(
    weights="Weights sum to 1.",
    bound="No weights on the simplex can score more than {gap} better than the fitted ones on these rows, "
    "in sample ({population}).",
)
MANY = 1 << 22  # from this number of terms (32 MB), few members are fitted at a time:
PART = 12  # members with weight in a fit to every twelfth pair,
NEARLY = 0.01  # or within this gain of it, and those that the certificate finds


@dataclass(frozen=True)
class Pool(Weighted):
    """Weights (M,) on the simplex; `gap` bounds the distance of their KL to the optimum, in nats."""

    gap: float | None
    iterations: int = field(default=0, metadata=UNSAVED)

    @property
    def certified(self) -> bool:
        """Whether the gap is below the tolerance of 1e-9."""
        return self.gap is not None and self.gap < TOLERANCE

    def predict(self, probs: np.ndarray) -> np.ndarray:
        """Pool members' predictions, (N, M, ..., K) -> (N, ..., K)."""
        return pool(probs, self.weights)


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
    ones; start: a pool to start from, such as one of similar rows. If there are several optima, the result is one in
    which no member is a blend of others; of identical members, the first keeps the weight. If the gap is not below
    TOLERANCE after the allowed steps, the last weights are returned with their gap, and `certified` is False.
    """
    pairs, shares = scored_pairs(targets, sample_weight)
    initial = None if start is None else start.weights
    if len(shares) * probs.shape[1] < MANY:
        return fit_terms(terms_at(probs, pairs), shares, initial)
    return _fit_few(probs, pairs, shares, initial)


@on_one_thread
def _fit_few(probs: np.ndarray, pairs: Pairs, shares: np.ndarray, start: np.ndarray | None) -> Pool:
    """Fit the few members that are likely to matter, price all members block by block, and add those that are missed.

    The optimum and its certificate are those of all members, but the terms of all members are never in memory at once.
    """
    weights, chosen = likely_members(probs, pairs, shares) if start is None else (start, start > 0)
    slices, steps = list(blocks(len(shares), probs.shape[1])), 0
    while True:
        few, positions = np.empty((len(shares), int(chosen.sum()))), np.flatnonzero(chosen)
        for rows in slices:
            few[rows] = terms_at(probs, tuple(index[rows] for index in pairs))[:, positions]
        pool = fit_terms(few, shares, weights[chosen])
        weights, steps = np.zeros(len(chosen)), steps + pool.iterations
        weights[chosen] = pool.weights
        ratio = shares / (few @ pool.weights)
        gains = sum(ratio[rows] @ terms_at(probs, tuple(index[rows] for index in pairs)) for rows in slices)  # (M,)
        gap, missed = float(gains.max() - 1), (gains > 1) & ~chosen
        if gap < TOLERANCE or not missed.any() or steps >= mixture.MAX_ITERATIONS:
            return Pool(weights, gap, steps)
        chosen |= missed


def likely_members(probs: np.ndarray, pairs: Pairs, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights (M,) for every twelfth pair, and the mask of members with weight there, or nearly."""
    some = slice(None, None, PART)
    terms, part = terms_at(probs, tuple(index[some] for index in pairs)), shares[some] / shares[some].sum()
    weights = mixture.rough(terms, part, NEARLY / 100)
    return weights, (weights > 0) | (mixture.gains(part, terms, terms @ weights) > 1 - NEARLY)


def fit_terms(members: np.ndarray, shares: np.ndarray, start: np.ndarray | None = None) -> Pool:
    """Find the weights for clipped predictions (P, M) of scored pairs and their shares (P,), as `fit` does."""
    return Pool(*mixture.fit(members, shares, start))
