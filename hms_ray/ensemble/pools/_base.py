"""The contract of fitted pools, and their JSON: a pool is stored under the name of the file that defines its class."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np

from hms_ray import contracts, registry

Pool = contracts.FittedPool


@dataclasses.dataclass(frozen=True)
class Weighted:
    """Base of the pools with one weight a member; the fields of a subclass are arrays and numbers.

    A field with the metadata UNSAVED is not written.
    """

    weights: np.ndarray

    def reindexed(self, change: Callable[[np.ndarray], np.ndarray]) -> Self:
        """Return the pool over other members; `change` maps weights (..., M) to (..., M')."""
        return dataclasses.replace(self, weights=change(self.weights))

    def to_dict(self) -> dict[str, object]:
        """Return the fields as JSON."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if not field.metadata}
        return {name: v.tolist() if isinstance(v, np.ndarray) else v for name, v in values.items()}

    @classmethod
    def from_dict(cls, content: Mapping[str, object]) -> Self:
        """Restore the pool from the result of `to_dict`."""
        values: dict[str, Any] = {
            field.name: np.array(value, np.float64) if field.type == "np.ndarray" else value
            for field in dataclasses.fields(cls)
            if not field.metadata
            for value in [content[field.name]]
        }
        return cls(**values)


UNSAVED = {"saved": False}  # metadata of a field of a `Weighted` pool


@dataclasses.dataclass(frozen=True)
class Sentences:
    """The report's sentences on a fitted pool.

    weights: the meaning of a member's weight; bound: what the gap bounds, with the fields {gap} and {population}
    no_bound: why there is no bound, in words that follow a colon; composition: the parts of the pool, "" for one pool
    """

    weights: str = "Weights indicate relative importance; this pool does not describe how it combines the members."
    bound: str = "No other fit of this pool is better by more than {gap} on these rows, in sample ({population})."
    no_bound: str = "its fit has no bound on the distance to its optimum."
    composition: str = ""


def explain(pool: Pool) -> Sentences:
    """Return the report's sentences on a pool: from `explain(pool)` of its file, else its SENTENCES."""
    module = registry.load("pools", kind(pool))
    return module.explain(pool) if hasattr(module, "explain") else getattr(module, "SENTENCES", Sentences())


def short_label(pool: Pool) -> str:
    """Return the short name of the method: SHORT_LABEL of its file, else LABEL."""
    module = registry.load("pools", kind(pool))
    return getattr(module, "SHORT_LABEL", module.LABEL)


def restricted(pool: Pool, keep: np.ndarray) -> Pool:
    """Return the pool over some of its members; keep: their positions. The others must have a weight of 0."""
    return pool.reindexed(lambda weights: weights[..., keep])


def spread(pool: Pool, positions: np.ndarray, n_members: int) -> Pool:
    """Return the pool over n_members members; its members get these positions, the others a weight of 0."""

    def scatter(weights: np.ndarray) -> np.ndarray:
        wide = np.zeros((*weights.shape[:-1], n_members))
        wide[..., positions] = weights
        return wide

    return pool.reindexed(scatter)


def kind(pool: Pool) -> str:
    """Return the method's name, under which the file that defines the pool's class is registered."""
    return registry.name_of("pools", type(pool).__module__)


def to_dict(pool: Pool) -> dict[str, object]:
    """Return a pool as JSON, with its kind."""
    return {"kind": kind(pool), **pool.to_dict()}


def from_dict(content: Mapping[str, Any]) -> Pool:
    """Restore a pool of any kind."""
    return registry.load("pools", content["kind"]).Pool.from_dict(content)
