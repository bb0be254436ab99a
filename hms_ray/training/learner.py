"""A network on its way through the stages: steps, schedules, averages and predictions."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from timm.utils import ModelEmaV3
from torch import nn

from hms_ray import seeds
from hms_ray.augment._compose import Batch, apply_all
from hms_ray.errors import TrialFailed, UserError
from hms_ray.models._heads import fit_side
from hms_ray.store.inputs import memory_format
from hms_ray.training import checkpoint, memory, optim
from hms_ray.training.batches import Epochs, TrainingData
from hms_ray.training.evaluate import predict
from hms_ray.training.gradient import Gradient
from hms_ray.training.stages import Stage, chain
from hms_ray.training.team import Replica

if TYPE_CHECKING:
    from hms_ray.training.loop import Recipe


class Learner:
    """A network, its average, and the optimiser and schedule under way.

    rows: the units that it may be trained on; held_out: those that it predicts
    """

    def __init__(self, recipe: "Recipe", data: TrainingData, fold: int, replica: Replica) -> None:
        self.recipe, self.data, self.replica = recipe, data, replica
        self.rows = np.flatnonzero((data.folds != fold) & data.trusted)
        self.held_out = np.flatnonzero(data.folds == fold)
        torch.manual_seed(seeds.derive(recipe.seed, "weights"))
        with replica.together():
            self.plain = _built(recipe)
        if data.inputs.side is not None:
            fit_side(self.plain, data.inputs.side[torch.from_numpy(data.learnt_from(self.rows))])
        self.plain.to(replica.device, memory_format=memory_format(1 + len(data.inputs.spec.shape)))
        self.share = -(-recipe.optim.batch // replica.size)  # rows of a batch
        self.average = ModelEmaV3(self.plain, decay=recipe.optim.ema, use_warmup=True) if recipe.optim.ema else None
        if recipe.optim.compile:
            self.plain.compile()
        self.gradient = Gradient(self.plain, data.task, replica, self.share, recipe.optim.precision)
        self.updates = 0
        self.optimizer: torch.optim.Optimizer | None = None
        self.optimizer_state: dict[str, Any] | None = None

    @property
    def scored(self) -> nn.Module:
        """The network that is scored and kept."""
        return self.average.module if self.average else self.plain

    def begin(self, number: int, done: int, targets: np.ndarray) -> None:
        """Make ready for a stage, `done` of whose epochs are behind; its labels are targets (N, K)."""
        stage, links = self.recipe.stages[number], chain(self.recipe.stages, number)
        self.stage, self.augment = stage, self.recipe.augment[number]
        self.epochs = self._epochs(stage, targets)
        if self.epochs.smallest < self.replica.size:  # an empty share has no mean
            raise TrialFailed(f"batches of {self.epochs.smallest} rows cannot be shared by {self.replica.size} workers")
        if self.replica.size > 1:
            self.gradient.rehearse(self.epochs.largest(self.replica.size))
        lengths = [self._length(self.recipe.stages[n]) for n in links]
        if self.optimizer is None or number == links[0]:
            self._fresh_optimizer(self.recipe.stages[links[0]], sum(lengths), is_begun=done > 0 or number > links[0])
        epochs, part = divmod(done, stage.evaluations)
        inside = epochs * self.epochs.steps + self.epochs.steps_until(part, stage.evaluations)
        self.step = sum(lengths[: number - links[0]]) + inside

    def train(self, done: int, number: int) -> float:
        """Train one epoch, the `done`-th of its stage and the fold's `number`-th; return its mean loss over steps and
        workers.

        All randomness comes from the epoch's own streams, so that a continued run equals an undisturbed one.
        """
        seed, rank = self.recipe.seed, self.replica.rank
        torch.manual_seed(seeds.derive(seed, "dropout", number, rank))
        rng, windows = seeds.stream(seed, "augment", number, rank), seeds.stream(seed, "windows", number, rank)
        epoch, part = divmod(done, self.stage.evaluations)
        order = seeds.stream(seed, "order", number - part)  # all parts of an epoch share its order
        weights = self.stage.weights(self.data.votes, self._units(self.stage), epoch)
        epochs, parts = replace(self.epochs, weights=weights), (part, self.stage.evaluations)
        total, before = torch.zeros((), device=self.replica.device), self.updates
        self.plain.train()
        for batch in epochs.batches(order, windows, rank, self.replica.size, parts):
            total += self._update(apply_all(batch, rng, self.augment))
        loss = self.replica.team.mean(total).item() / (self.updates - before)
        if not math.isfinite(loss):
            raise TrialFailed(
                f"the training loss became {loss} in epoch {number + 1}; a smaller lr or clip_grad may help"
            )
        return loss

    def evaluate(self, epoch: int) -> tuple[np.ndarray, float]:
        """Return the probabilities (rows, K) of the held-out units and the score of those of the study's population.

        On the first worker; the others have none, and NaN, as has a fold without such units.

        Raises:
            TrialFailed: on all workers, where a prediction is not finite.
        """
        with self.replica.together():
            if self.replica.rank > 0:
                return np.empty((0, 0)), math.nan
            probs = self._predict()
            if not np.isfinite(probs).all():  # weights that overflow in the last step show in no loss
                raise TrialFailed(
                    f"the predictions after epoch {epoch} are not finite; a smaller lr or clip_grad may help"
                )
        inside = self.data.votes[self.held_out] >= self.recipe.min_votes
        targets = self.data.targets[self.held_out][inside]
        return probs, self.data.task.score(targets, probs[inside]) if inside.any() else math.nan

    def usage(self) -> dict[str, Any]:
        """Return what the fold took of its device so far, under the names of FoldResult."""
        device = self.replica.device
        sizes = {"peak_gpu_bytes": memory.peak(device), "gpu_bytes": memory.total(device)}
        return sizes | {"out_of_memory": self.gradient.rows < self.share}

    def packed(self) -> bytes:
        """Return the weights that are scored."""
        return checkpoint.pack(self.scored.state_dict())

    def state(self) -> dict[str, Any]:
        """Return everything that the next epoch needs."""
        assert self.optimizer is not None, "there is a state after an epoch"
        state = {"updates": self.updates, "model": self.plain.state_dict(), "optimizer": self.optimizer.state_dict()}
        return state | {"average": self.scored.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.plain.load_state_dict(state["model"])
        self.scored.load_state_dict(state["average"])
        self.updates, self.optimizer_state = state["updates"], state["optimizer"]

    def _fresh_optimizer(self, first: Stage, steps: int, is_begun: bool) -> None:
        """Make the optimiser and the schedule of stages that share them; of one that is begun, restore the state."""
        assert first.lr is not None, "a stage that begins a schedule has a rate"
        self.optimizer = optim.optimizer(self.plain, self.recipe.optim, first.lr)
        self.schedule = optim.schedule(self.optimizer, first, steps)
        if is_begun:
            assert self.optimizer_state is not None, "a schedule is only half done where a checkpoint was restored"
            self.optimizer.load_state_dict(self.optimizer_state)
        self.optimizer_state = None

    def _epochs(self, stage: Stage, targets: np.ndarray) -> Epochs:
        data, rows = self.data, self.data.learnt_from(self._units(stage))
        return Epochs(data, rows, targets, np.ones(len(targets)), self.recipe.optim.batch, self.replica.device)

    def _units(self, stage: Stage) -> np.ndarray:
        """Return the units of a stage."""
        return stage.rows(self.data.votes, self.rows)

    def _length(self, stage: Stage) -> int:
        """Return the steps of a stage."""
        return stage.steps(len(self.data.learnt_from(self._units(stage))), self.recipe.optim.batch) * stage.epochs

    def _update(self, batch: Batch) -> torch.Tensor:
        """Take one optimiser step and return the batch's loss."""
        assert self.optimizer is not None, "a stage has begun"
        loss = self.gradient(batch)
        nn.utils.clip_grad_norm_(self.plain.parameters(), self.recipe.optim.clip_grad)
        self.optimizer.step()
        self.step, self.updates = self.step + 1, self.updates + 1
        self.schedule.step_update(self.step)
        if self.average:
            self.average.update(self.plain, step=self.updates)
        return loss

    def _predict(self) -> np.ndarray:
        """Return probabilities of the held-out units."""
        recipe, data, rows = self.recipe, self.data, 2 * self.gradient.rows  # no gradients to hold
        probs = predict(
            self.scored,
            data.inputs,
            data.examples.of(self.held_out),
            data.task,
            self.replica.device,
            rows,
            recipe.test_time,
            recipe.optim.precision,
        )
        return data.examples.mean(self.held_out, probs)


def _built(recipe: "Recipe") -> nn.Module:
    """Build the network; weights that are damaged on one machine fail the trial on all."""
    try:
        return recipe.build()
    except UserError as error:
        raise TrialFailed(str(error)) from error
