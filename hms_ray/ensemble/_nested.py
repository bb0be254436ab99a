"""Cross-fitting: the ensemble's score on a fold comes from weights that never saw that fold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hms_ray.errors import ConfigError


class Pool(Protocol):
    """What a method's `fit` returns."""

    @property
    def gap(self) -> float:
        """The bound on the distance to the method's optimum."""

    def predict(self, probs: np.ndarray) -> np.ndarray:
        """Pool members' predictions, (N, M, K) -> (N, K)."""


@dataclass(frozen=True)
class CrossFit:
    """Held-out predictions (N, K) of every unit, the largest gap of the fits, and what has to be said about them."""

    probs: np.ndarray
    gap: float
    notes: tuple[str, ...]


def splits(folds: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each fold that occurs with the mask (N,) of its units.

    Raises:
        ConfigError: there is only one, so nothing could be fitted on the others.
    """
    present = np.unique(folds)
    if len(present) < 2:
        raise ConfigError(f"cross-fitting needs units of 2 folds or more; these are all of fold {present[0]}")
    yield from ((int(fold), folds == fold) for fold in present)


def cross_fit(
    fit: Callable[[np.ndarray, np.ndarray], Pool],
    probs: np.ndarray,
    targets: np.ndarray,
    folds: np.ndarray,
    population: np.ndarray,
) -> CrossFit:
    """For each fold, fit on the population's units of the other folds and predict all of this fold's units.

    probs (N, M, K); targets (N, K); folds (N,); population: mask (N,) of the scored units. A fold whose complement
    holds no scored unit gets the uniform average of the members, and a note.
    """
    pooled, gaps, notes = np.empty(targets.shape), [], []
    for fold, held_out in splits(folds):
        rows = population & ~held_out
        if rows.any():
            fitted = fit(probs[rows], targets[rows])
            pooled[held_out] = fitted.predict(probs[held_out])
            gaps.append(fitted.gap)
        else:
            pooled[held_out] = probs[held_out].mean(1)
            notes.append(f"fold {fold}: no scored unit lies in the other folds, so its members are weighted uniformly")
    return CrossFit(pooled, max(gaps), tuple(notes))
