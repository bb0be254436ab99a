"""What every feature takes, and a feature with its parameters."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch

from hms_ray import lookup
from hms_ray.params import Params
from hms_ray.specs import InputSpec

Recordings = Mapping[str, torch.Tensor]
"""A batch of windows by kind: (B, channels, steps) float32, NaN where there is a gap."""


@dataclass(frozen=True)
class FeatureRef:
    """A feature by its name, with its parameters."""

    name: str
    params: Params

    @property
    def module(self) -> ModuleType:
        """The file that implements it."""
        return lookup.load("features", self.name)

    @property
    def spec(self) -> InputSpec:
        """The shape of one example, and the kinds of recordings that it is made of."""
        return self.module.spec(self.params)

    def compute(self, recordings: Recordings) -> torch.Tensor:
        """Return the examples (B, *spec.shape) of a batch of windows."""
        return self.module.compute(recordings, self.params)

    def dump(self) -> dict[str, Any]:
        """Return name and parameters as plain values, defaults included."""
        return {"name": self.name, **self.params.model_dump()}
