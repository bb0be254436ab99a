"""The methods that can be asked for by name, and the hyper-parameters that are tried for each."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hms_ray import registry
from hms_ray.core import hints
from hms_ray.core.errors import ConfigError
from hms_ray.ensemble.pools._base import Pool

AUTO = "auto"
AUTO_LABEL = "several pools, weighed by nested score"
OPTIONS = {
    "log_linear": {"ridge": (0.1, 1.0), "bias_ridge": (10.0,)},
    "calibrated": {"ridge": (0.1, 10.0), "bias_ridge": (1.0, 10.0)},
    "two_level": {"ridge": (1.0,), "bias_ridge": (10.0,)},
}
CHOSEN_FROM = ("uniform", "prior", "linear", "log_linear", "calibrated", "two_level")  # what `auto` combines


@dataclass(frozen=True)
class Candidate:
    """A method with its hyper-parameters."""

    method: str
    options: dict[str, Any] = field(default_factory=dict, hash=False, compare=False)
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
        """Fit it to rows that are worth as much as so many equal groups; other arguments as in the linear pool.

        The ridges among the options are for the summed score of one group. The units of one group err together, so
        that it is by groups that what was measured outweighs a prior.
        """
        options = {name: value / groups if name.endswith("ridge") else value for name, value in self.options.items()}
        return registry.load("pools", self.method).fit(probs, targets, weight, start, **options)


def names() -> list[str]:
    """Return what `pool=` may be."""
    return [AUTO, *registry.names("pools")]


def methods_for(families: Sequence[str]) -> list[str]:
    """Return the methods that these members can be pooled by."""
    return [name for name in names() if name != "two_level" or _levels(families)]


def label(name: str) -> str:
    """Return what a reader calls a method: the LABEL of its file; a name that nothing here has stays as it is."""
    if name == AUTO:
        return AUTO_LABEL
    return str(registry.load("pools", name).LABEL) if name in registry.names("pools") else name


def check(name: str) -> str:
    """Return the name if there is such a method, or raise ConfigError."""
    if name not in names():
        raise ConfigError(hints.unknown("pool", name, names()))
    return name


def candidates(method: str, families: Sequence[str]) -> tuple[Candidate, ...]:
    """Return what a method is chosen from: one candidate for each combination of hyper-parameters; `auto`: of several.

    Two levels are no candidate of `auto` where all members are of one family, or each of its own.
    """
    if method == AUTO:
        allowed = methods_for(families)
        found = (candidates(name, families) for name in CHOSEN_FROM if name in allowed)
        return tuple(itertools.chain.from_iterable(found))
    grid = OPTIONS.get(method, {})
    shared = {"families": tuple(families)} if method == "two_level" else {}
    values = itertools.product(*grid.values())
    return tuple(Candidate(method, shared | dict(zip(grid, v, strict=True)), n) for n, v in enumerate(values))


def _levels(families: Sequence[str]) -> bool:
    """Say whether families differ and any has several members, so that there are two levels."""
    return 1 < len(set(families)) < len(families)
