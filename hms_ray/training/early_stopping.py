"""Patients of the training folds that a stage does not train on: when they gain no more, its rate falls, or it ends."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from hms_ray.core import seeds
from hms_ray.core.errors import TrialFailed
from hms_ray.training.stages import EarlyStopping

Networks = dict[str, dict[str, torch.Tensor]]  # the weights and buffers of the network, and of its average


def check(settings: EarlyStopping, groups: np.ndarray) -> None:
    """See that a stage can set patients aside; groups: the patients of its units.

    Raises:
        TrialFailed: there is one patient alone.
    """
    patients = len(np.unique(groups))
    if patients < 2:
        raise TrialFailed(
            f"early_stopping.share {settings.share}: of one patient none can be set aside; a stage needs two or more"
        )


def set_aside(settings: EarlyStopping, groups: np.ndarray, seed: int, number: int) -> np.ndarray:
    """Return the mask (n,) of the units that a stage watches: all that it has of some patients, at random.

    groups: (n,) the patients of its units; seed, number: of the recipe, and the stage's

    Raises:
        TrialFailed: as `check`.
    """
    check(settings, groups)
    patients = seeds.stream(seed, "watch", number).permutation(np.unique(groups))
    return np.isin(groups, patients[: max(1, round(settings.share * len(patients)))])


class EarlyStoppingState:
    """How the watched score of a stage went: lower is better.

    units: those that are watched
    epoch, score: the best evaluation so far, the epoch counted from 1 over all stages; network: as it was there
    stale: evaluations since; scale: of the rate of a plateau schedule
    """

    def __init__(self, how: EarlyStopping, units: np.ndarray) -> None:
        self.how, self.units = how, units
        self.epoch, self.score, self.stale, self.scale = 0, math.inf, 0, 1.0
        self.network: Networks = {}

    @property
    def ended(self) -> bool:
        """Whether the stage ends early."""
        return self.how.stop is not None and self.stale >= self.how.stop

    def note(self, epoch: int, score: float) -> bool:
        """Take in the next evaluation, and return whether it is the best so far."""
        if score < self.score:
            self.epoch, self.score, self.stale = epoch, score, 0
            return True
        self.stale += 1
        if self.stale % self.how.patience == 0:
            self.scale *= self.how.factor
        return False

    def keep(self, networks: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        """Remember the networks, in the host's memory: a GPU has better use for its own."""
        self.network = {
            name: {key: value.detach().to("cpu", copy=True) for key, value in weights.items()}
            for name, weights in networks.items()
        }

    def state(self) -> dict[str, Any]:
        """Return everything that the next evaluation needs."""
        names = ("epoch", "score", "stale", "scale", "network")
        return {name: getattr(self, name) for name in names}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        vars(self).update(state)
