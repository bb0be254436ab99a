"""What every method's `fit` returns, and how it is kept: as JSON, under the name of the file that its class is in."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, Self

import numpy as np

from hms_ray import registry


class Pool(Protocol):
    """A fitted pool; immutable."""

    @property
    def weights(self) -> np.ndarray:
        """What each member counts (M,); whether and to what they sum is the method's affair."""

    @property
    def gap(self) -> float | None:
        """The bound on the distance to the method's optimum, in nats; None where there is no such bound."""

    def predict(self, probs: np.ndarray) -> np.ndarray:
        """Pool members' predictions, (N, M, ..., K) -> (N, ..., K)."""

    def reindexed(self, change: Callable[[np.ndarray], np.ndarray]) -> Self:
        """Return the pool over other members; `change` takes weights (..., M) to (..., M')."""

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` needs to predict alike."""

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Rebuild a pool that `to_dict` described."""


@dataclasses.dataclass(frozen=True)
class Weighted:
    """The base of pools with one weight a member."""

    weights: np.ndarray

    def reindexed(self, change: Callable[[np.ndarray], np.ndarray]) -> Self:
        """Return the pool over other members; `change` takes weights (..., M) to (..., M')."""
        return dataclasses.replace(self, weights=change(self.weights))


@dataclasses.dataclass(frozen=True)
class Sentences:
    """What the report says of a fitted pool.

    weights: what a member's weight means; bound: what the gap bounds, with {gap} and {population} left to fill in
    no_bound: why there is no such bound, as it follows a colon; composition: what the pool is made of, "" for one pool
    """

    weights: str = "Weights indicate how much each member counts; this pool does not say how it combines them."
    bound: str = "No other fit of this pool is better by more than {gap} on these rows, in sample ({population})."
    no_bound: str = "its fit has no bound on the distance to its optimum."
    composition: str = ""


def explain(pool: Pool) -> Sentences:
    """Return what the report says of a pool: what `explain(pool)` of its file returns, else its SENTENCES."""
    module = registry.load("pools", kind(pool))
    return module.explain(pool) if hasattr(module, "explain") else getattr(module, "SENTENCES", Sentences())


def short_label(pool: Pool) -> str:
    """Return the method's name within a list: SHORT_LABEL of its file, else LABEL."""
    module = registry.load("pools", kind(pool))
    return getattr(module, "SHORT_LABEL", module.LABEL)


def restricted(pool: Pool, keep: np.ndarray) -> Pool:
    """Return the pool over some of its members; keep: their positions. The others must have no weight."""
    return pool.reindexed(lambda weights: weights[..., keep])


def spread(pool: Pool, positions: np.ndarray, n_members: int) -> Pool:
    """Return the pool over more members; positions: where its own are among them. The others get no weight."""

    def scatter(weights: np.ndarray) -> np.ndarray:
        wide = np.zeros((*weights.shape[:-1], n_members))
        wide[..., positions] = weights
        return wide

    return pool.reindexed(scatter)


def kind(pool: Pool) -> str:
    """Return the method's name: that of the file of the pool's class."""
    return type(pool).__module__.rpartition(".")[-1]


def to_dict(pool: Pool) -> dict[str, Any]:
    """Return a pool as JSON that names its kind."""
    return {"kind": kind(pool), **pool.to_dict()}


def from_dict(content: dict[str, Any]) -> Pool:
    """Rebuild a pool of any kind."""
    return registry.load("pools", content["kind"]).Pool.from_dict(content)
