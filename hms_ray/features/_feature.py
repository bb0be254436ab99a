"""What every feature takes, and a feature with its parameters."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch

from hms_ray import registry
from hms_ray.core.params import Params
from hms_ray.core.specs import InputSpec
from hms_ray.encoders.pretrained import State

Recordings = Mapping[str, torch.Tensor]
"""A batch of windows by kind: (B, channels, steps) float32, NaN where there is a gap."""

Weights = Callable[[], State]
"""Gives published weights, wherever they have been put; it travels to workers."""


@dataclass(frozen=True)
class FeatureRef:
    """A feature by its name, with its parameters.

    weights: those that it computes with, where they are published; only who computes needs them
    """

    name: str
    params: Params
    weights: Weights | None = None

    @property
    def module(self) -> ModuleType:
        """The file that implements it."""
        return registry.load("features", self.name)

    @property
    def spec(self) -> InputSpec:
        """The shape of one example, and the kinds of recordings that it is made of."""
        return self.module.spec(self.params)

    @property
    def origin(self) -> str | None:
        """What names the published weights that it computes with for good; None: there are none.

        Raises:
            ConfigError: they are in a file that is no longer there.
        """
        source = self.module.source(self.params) if hasattr(self.module, "source") else None
        return source and source.key

    def compute(self, recordings: Recordings) -> torch.Tensor:
        """Return the examples (B, *spec.shape) of a batch of windows."""
        given = () if self.weights is None else (self.weights,)
        return self.module.compute(recordings, self.params, *given)

    def dump(self) -> dict[str, Any]:
        """Return name and parameters as plain values, defaults included."""
        return {"name": self.name, **self.params.model_dump()}
