"""The terms of a fit: predictions clipped as the metric does, and the (unit, class) pairs with a target above 0.

Everywhere in this package probs are (N, M, ..., K), targets (N, ..., K) and pooled predictions (N, ..., K): members on
the second axis, a distribution over outcomes on the last. If each class is a question of its own, there is an axis of
questions between them: a task of shares has one question; a yes-or-no question has two outcomes.
"""

from collections.abc import Iterator

import numpy as np

from hms_ray.tasks import CLIP

BLOCK = 1 << 18  # entries of a block's temporary arrays: 2 MB in float64, which fits into the cache

Pairs = tuple[np.ndarray, ...]


def clipped(probs: np.ndarray) -> np.ndarray:
    """Return float64 predictions whose logarithms are finite."""
    return np.clip(probs, CLIP, 1 - CLIP, dtype=np.float64)


def normalised(n_units: int, sample_weight: np.ndarray | None = None) -> np.ndarray:
    """Return the units' weights (N,), which sum to 1; None: all equal."""
    weight = np.ones(n_units) if sample_weight is None else np.asarray(sample_weight, np.float64)
    assert weight.sum() > 0, "a pool cannot be fitted where no unit has weight"
    return weight / weight.sum()


def scored_pairs(targets: np.ndarray, sample_weight: np.ndarray | None = None) -> tuple[Pairs, np.ndarray]:
    """Return the indices of the P (unit, class) pairs that count, and their shares (P,), which sum to 1.

    A pair with a target of 0 contributes nothing to the KL. Where experts agree, most pairs do not.
    """
    shares = targets if sample_weight is None else (targets.T * sample_weight).T
    pairs = np.nonzero(shares > 0)
    assert len(pairs[0]), "a pool cannot be fitted where no unit has weight"
    return pairs, shares[pairs] / shares[pairs].sum()


def terms_at(probs: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Return the members' clipped predictions of these pairs, (N, M, ..., K) -> (P, M)."""
    index: tuple[np.ndarray | slice, ...] = (pairs[0], slice(None), *pairs[1:])
    terms = np.asarray(probs[index], np.float64)
    return np.clip(terms, CLIP, 1 - CLIP, out=terms)


def scored_terms(
    probs: np.ndarray, targets: np.ndarray, sample_weight: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the clipped predictions (P, M) of the pairs that count, and their shares (P,)."""
    pairs, shares = scored_pairs(targets, sample_weight)
    return terms_at(probs, pairs), shares


def blocks(n_units: int, entries_a_unit: int) -> Iterator[slice]:
    """Yield slices of N units; arrays with `entries_a_unit` entries a unit stay below BLOCK entries."""
    step = max(1, BLOCK // max(1, entries_a_unit))
    yield from (slice(start, start + step) for start in range(0, n_units, step))
