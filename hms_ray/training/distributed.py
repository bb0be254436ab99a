"""The workers that train one fold together."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from hms_ray.core.errors import TrialFailed

log = logging.getLogger(__name__)


class Team:
    """What the workers of one fold do together; this one is a worker alone."""

    def wrap(self, model: nn.Module) -> nn.Module:
        """Make the gradients of all agree."""
        return model

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """Return the mean over the workers, so that they never decide differently."""
        return value

    def from_first(self, state: Any) -> Any:
        """Return what the first worker has: the others may sit on machines without its files."""
        return state


@dataclass(frozen=True)
class Replica:
    """One of the `size` workers that train a fold together."""

    device: torch.device
    rank: int = 0
    size: int = 1
    team: Team = field(default_factory=Team)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Raise on every worker the TrialFailed that one of them meets here, so that none waits for it for ever.

        What is done here must not itself wait for another worker.
        """
        failure = None
        try:
            yield
        except TrialFailed as error:
            failure = error
            log.warning("%s", failure)
        failed = self.team.mean(torch.tensor(float(failure is not None), device=self.device))
        if failed.item():
            raise failure or TrialFailed("another worker of this fold failed; the log of its process says why")
