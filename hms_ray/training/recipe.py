"""What a fold is trained with: the recipe, and the units that it trains on, holds out and is scored on."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType

import numpy as np
from torch import nn

from hms_ray.core.params import Params
from hms_ray.study.epoch_selection import Candidates, Rule
from hms_ray.training import optim
from hms_ray.training.batches import TrainingData
from hms_ray.training.distributed import Replica
from hms_ray.training.early_stopping import set_aside
from hms_ray.training.stages import Stage


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the result of a fold, except the data.

    augment: the augmentations of each stage
    epoch, candidates: the rule that selects an epoch, and the epochs that it selects from
    test_time: augmentations whose deterministic variants are predicted too, and averaged
    fingerprint: differs between recipes, so that a checkpoint of another recipe is never resumed
    """

    build: Callable[[], nn.Module]
    augment: tuple[tuple[tuple[ModuleType, Params], ...], ...]
    optim: optim.Params
    stages: tuple[Stage, ...]
    epoch: Rule
    candidates: Candidates
    min_votes: int
    test_time: tuple[ModuleType, ...]
    seed: int
    fingerprint: str

    @property
    def plan(self) -> list[tuple[int, int]]:
        """The stage of each epoch and the number of its epochs before; each evaluation counts as an epoch."""
        return [(number, done) for number, stage in enumerate(self.stages) for done in range(stage.rounds)]


@dataclass(frozen=True)
class Fold:
    """One fold of a recipe: it is held out, and trained for on the units of the other folds.

    number: of the fold; replica: the worker that trains it here
    """

    recipe: Recipe
    data: TrainingData
    number: int
    replica: Replica

    @cached_property
    def training_units(self) -> np.ndarray:
        """The units of other folds that have an example to train on."""
        return np.flatnonzero((self.data.folds != self.number) & self.data.trusted)

    @cached_property
    def held_out(self) -> np.ndarray:
        """The units of this fold: those that it predicts."""
        return np.flatnonzero(self.data.folds == self.number)

    @cached_property
    def is_scored(self) -> np.ndarray:
        """The mask (len(held_out),) of the held-out units that the study scores."""
        return self.data.votes[self.held_out] >= self.recipe.min_votes

    def stage_units(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the units that a stage trains on, and those that its early stopping watches instead.

        Raises:
            TrialFailed: there are none to train on, or too few patients to set some aside.
        """
        stage = self.recipe.stages[number]
        units = stage.select_units(self.data.votes, self.training_units)
        watched = np.zeros(len(units), bool)
        if stage.early_stopping:
            watched = set_aside(stage.early_stopping, self.data.groups[units], self.recipe.seed, number)
        return units[~watched], units[watched]

    def stage_steps(self, number: int) -> int:
        """Return the optimiser steps of a stage; errors as in `stage_units`."""
        stage, (units, _) = self.recipe.stages[number], self.stage_units(number)
        return stage.steps(len(self.data.training_examples(units)), self.recipe.optim.batch) * stage.epochs
