"""A stage under way: everything that its epochs need, made once."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import torch
from timm.scheduler.scheduler import Scheduler

from hms_ray.augment._compose import Batch
from hms_ray.core import seeds
from hms_ray.core.errors import TrialFailed
from hms_ray.core.params import Params
from hms_ray.training import optim
from hms_ray.training.batches import StageBatches
from hms_ray.training.early_stopping import EarlyStoppingState
from hms_ray.training.fold_model import FoldModel
from hms_ray.training.microbatch import Loss
from hms_ray.training.recipe import Fold
from hms_ray.training.stages import Stage, schedule_group


@dataclass
class RunStage:
    """One stage of a fold.

    units: those that it trains on
    batches: of one epoch, in no order yet
    step: optimiser steps since the schedule began, skipped ones too: its length is known before they are
    """

    settings: Stage
    fold: Fold
    units: np.ndarray
    augment: tuple[tuple[ModuleType, Params], ...]
    batches: StageBatches
    loss: Loss
    optimizer: torch.optim.Optimizer
    schedule: Scheduler
    early_stopping: EarlyStoppingState | None
    step: int

    @property
    def repeated_epoch(self) -> int | None:
        """The epoch, counted from 1, that all further epochs repeat; None: the stage did not stop early."""
        return self.early_stopping.epoch if self.early_stopping and self.early_stopping.ended else None

    def epoch_batches(self, epoch: int, done: int) -> Iterator[Batch]:
        """Yield this worker's part of each batch of the fold's epoch `epoch`, counted from 1, the stage's `done` + 1.

        All randomness comes from the epoch's own streams, so that a resumed run equals an undisturbed one.
        """
        seed, replica = self.fold.recipe.seed, self.fold.replica
        whole_epochs, part = divmod(done, self.settings.evaluations)
        order = seeds.stream(seed, "order", epoch - 1 - part)  # all parts of an epoch share its order
        windows = seeds.stream(seed, "windows", epoch - 1, replica.rank)
        weights = self.settings.weights(self.fold.data.votes, self.units, whole_epochs)
        batches = replace(self.batches, weights=weights)
        return batches.batches(order, windows, replica.rank, replica.size, (part, self.settings.evaluations))

    def advance_schedule(self) -> None:
        """Set the learning rates of the next step."""
        self.step += 1
        self.schedule.step_update(self.step)

    def watch(self, model: FoldModel, epoch: int) -> dict[str, float]:
        """Return the score of the patients that were set aside, if any; reduce the rate or stop early by it.

        Where the stage stops early, the network goes back to the epoch at which that score was best.

        Raises:
            TrialFailed: on all workers, where a prediction is not finite.
        """
        stopping = self.early_stopping
        if stopping is None:
            return {}
        score = model.score(stopping.units, model.predict(stopping.units, epoch))
        score = self.fold.replica.team.from_first(score)
        if stopping.note(epoch, score):
            stopping.keep(model.networks())
        if stopping.ended:
            model.load_networks(stopping.network)
            stopping.network = {}
        self.schedule.step_update(self.step)  # the rate may be reduced
        return {"watched": score}

    def state(self) -> dict[str, Any]:
        """Return everything that the next epoch needs of this object."""
        stopping = self.early_stopping and self.early_stopping.state()
        return {"optimizer": self.optimizer.state_dict(), "watching": stopping}


def begin_stage(
    fold: Fold,
    model: FoldModel,
    number: int,
    done: int,
    targets: np.ndarray,
    previous: RunStage | None,
    resumed: Mapping[str, Any] | None,
) -> RunStage:
    """Return stage `number`, `done` of whose epochs are finished.

    targets: labels (N, K) of all units
    previous: the stage before in this process, whose optimiser and schedule a stage may continue
    resumed: the state of the checkpoint that this fold continues from; None: it begins

    Raises:
        TrialFailed: there are no units to train on, or too few for the workers or evaluations.
    """
    recipe, data, replica = fold.recipe, fold.data, fold.replica
    stage, group = recipe.stages[number], schedule_group(recipe.stages, number)
    units, watched = fold.stage_units(number)
    stopping = EarlyStoppingState(stage.early_stopping, watched) if stage.early_stopping else None
    if stopping and done > 0:
        assert resumed is not None, "a stage is half finished only where a checkpoint was loaded"
        stopping.restore(resumed["watching"])

    class_weights = None  # of the labels that the stage trains on, no others
    if stage.class_weight == "balanced":
        class_weights = torch.from_numpy(data.task.balance(targets[units])).to(replica.device, torch.float32)
    examples = data.training_examples(units)
    batches = StageBatches(data, examples, targets, np.ones(len(targets)), recipe.optim.batch, replica.device)
    if batches.smallest < replica.size:  # a worker's empty part would have no mean
        raise TrialFailed(f"batches of {batches.smallest} rows cannot be shared by {replica.size} workers")

    steps = [fold.stage_steps(n) for n in group]
    if previous is not None and number > group[0]:
        optimizer, schedule = previous.optimizer, previous.schedule
    else:
        first = recipe.stages[group[0]]
        assert first.lr is not None, "a stage that begins a schedule has a rate"
        optimizer = optim.optimizer(model.network, recipe.optim, first.lr)
        schedule = optim.schedule(optimizer, first, sum(steps), lambda: stopping.scale if stopping else 1.0)
        if done > 0 or number > group[0]:
            assert resumed is not None, "a schedule is half finished only where a checkpoint was loaded"
            optimizer.load_state_dict(resumed["optimizer"])
    epochs, part = divmod(done, stage.evaluations)
    return RunStage(
        settings=stage,
        fold=fold,
        units=units,
        augment=recipe.augment[number],
        batches=batches,
        loss=partial(data.task.loss, weights=class_weights, focal=stage.focal),
        optimizer=optimizer,
        schedule=schedule,
        early_stopping=stopping,
        step=sum(steps[: number - group[0]]) + epochs * batches.steps + batches.steps_until(part, stage.evaluations),
    )
