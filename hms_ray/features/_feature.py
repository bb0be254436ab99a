"""What every feature takes, and a feature with its parameters."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from hms_ray import contracts, registry
from hms_ray.core.errors import ConfigError, shown
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
    def module(self) -> contracts.Feature:
        """The module that implements it."""
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
        module = self.module
        source = module.source(self.params) if isinstance(module, contracts.Published) else None
        return None if source is None else source.key

    def compute(self, recordings: Recordings) -> torch.Tensor:
        """Return the examples (B, *spec.shape) of a batch of windows.

        Raises:
            ConfigError: a feature that was added returns something else.
        """
        given = () if self.weights is None else (self.weights,)
        x = self.module.compute(recordings, self.params, *given)
        if registry.is_added("features", self.name):  # the tests of this package hold its own features to it
            self._check(x, (len(next(iter(recordings.values()))), *self.spec.shape))
        return x

    def _check(self, x: object, shape: tuple[int, ...]) -> None:
        if not isinstance(x, torch.Tensor) or x.dtype != torch.float32 or tuple(x.shape) != shape:
            returned = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, torch.Tensor) else shown(x)
            raise ConfigError(f"feature {self.name}: compute must return float32 {shape}, but returned {returned}")

    def dump(self) -> dict[str, Any]:
        """Return name and parameters as plain values, defaults included."""
        return {"name": self.name, **self.params.model_dump()}
