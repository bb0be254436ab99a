"""The pooling methods by name, and the hyper-parameters that are tried for each."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hms_ray import registry
from hms_ray.core import hints
from hms_ray.core.errors import ConfigError, shown
from hms_ray.ensemble.pools._base import Pool

AUTO = "auto"
AUTO_LABEL = "several pools, weighed by nested score"
OPTIONS: dict[str, dict[str, tuple[float, ...]]] = {
    "log_linear": {"ridge": (0.1, 1.0), "bias_ridge": (10.0,)},
    "calibrated": {"ridge": (0.1, 10.0), "bias_ridge": (1.0, 10.0)},
    "two_level": {"ridge": (1.0,), "bias_ridge": (10.0,)},
}
CHOSEN_FROM = ("uniform", "prior", "linear", "log_linear", "calibrated", "two_level")  # combined by `auto`


@dataclass(frozen=True)
class Candidate:
    """A method with its hyper-parameters."""

    method: str
    options: dict[str, Any] = field(default_factory=dict, hash=False, compare=False)  # of every kind of value
    number: int = 0

    def only(self, members: np.ndarray) -> Candidate:
        """Return the candidate for some of the members (positions)."""
        if "families" not in self.options:
            return self
        families = tuple(self.options["families"][m] for m in members)
        return replace(self, options=self.options | {"families": families})

    def fit(
        self, probs: np.ndarray, targets: np.ndarray, weight: np.ndarray, groups: float, start: Pool | None = None
    ) -> Pool:
        """Fit the method; groups: the effective number of groups; other arguments as in the linear pool.

        The ridges among the options refer to the summed score of one group and are divided by the number of groups: the
        errors of one group's units are correlated, so groups, not units, are the independent evidence.
        """
        options = {name: value / groups if name.endswith("ridge") else value for name, value in self.options.items()}
        module = registry.load("pools", self.method)
        pool: Pool = module.fit(probs, targets, weight, start, **options)
        if not isinstance(pool, module.Pool):
            raise ConfigError(f"pool {self.method}: fit must return its Pool, but returned {shown(pool)}")
        return pool


def names() -> list[str]:
    """Return the valid values of `pool`."""
    return [AUTO, *registry.names("pools")]


def methods_for(families: Sequence[str]) -> list[str]:
    """Return the methods that can pool these members; two levels need several families, not all of one member."""
    has_levels = 1 < len(set(families)) < len(families)
    return [name for name in names() if name != "two_level" or has_levels]


def label(name: str) -> str:
    """Return the label of a method for readers: LABEL of its file; an unknown name is returned unchanged."""
    if name == AUTO:
        return AUTO_LABEL
    return str(registry.load("pools", name).LABEL) if name in registry.names("pools") else name


def check(name: str) -> str:
    """Return the name of a method; raise ConfigError if it is unknown."""
    if name not in names():
        raise ConfigError(hints.unknown("pool", name, names()))
    return name


def candidates(method: str, families: Sequence[str]) -> tuple[Candidate, ...]:
    """Return one candidate for each combination of a method's hyper-parameters; `auto`: of the methods CHOSEN_FROM.

    `auto` leaves out methods that cannot pool these members.
    """
    if method == AUTO:
        allowed = methods_for(families)
        return tuple(c for name in CHOSEN_FROM if name in allowed for c in candidates(name, families))
    grid = OPTIONS.get(method, {})
    shared: dict[str, Any] = {"families": tuple(families)} if method == "two_level" else {}
    values = itertools.product(*grid.values())
    return tuple(Candidate(method, shared | dict(zip(grid, v, strict=True)), n) for n, v in enumerate(values))
