"""A network on its way through the stages: steps, schedules, averages and predictions."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from timm.utils import ModelEmaV3
from torch import nn

from hms_ray.augment._compose import Batch, apply_all
from hms_ray.core import seeds
from hms_ray.core.errors import TrialFailed, UserError
from hms_ray.models._heads import fit_covariates
from hms_ray.store.inputs import memory_format
from hms_ray.training import checkpoint, memory, optim, precision
from hms_ray.training.batches import StageBatches, TrainingData
from hms_ray.training.distributed import Replica
from hms_ray.training.early_stopping import EarlyStoppingState, Networks, set_aside
from hms_ray.training.evaluate import predict
from hms_ray.training.microbatch import Gradient, Loss
from hms_ray.training.stages import Stage, schedule_group

if TYPE_CHECKING:
    from hms_ray.training.loop import Recipe


class Learner:
    """A network, its average, and the optimiser and schedule under way.

    rows: the units that it may be trained on; held_out: those that it predicts; units: those that a stage trains on
    """

    def __init__(self, recipe: "Recipe", data: TrainingData, fold: int, replica: Replica) -> None:
        self.recipe, self.data, self.replica = recipe, data, replica
        self.rows = np.flatnonzero((data.folds != fold) & data.trusted)
        self.held_out = np.flatnonzero(data.folds == fold)
        torch.manual_seed(seeds.derive(recipe.seed, "weights"))
        with replica.together():
            self.plain = _built(recipe)
        if data.inputs.covariates is not None:
            fit_covariates(self.plain, data.inputs.covariates[torch.from_numpy(data.learnt_from(self.rows))])
        self.plain.to(replica.device, memory_format=memory_format(1 + len(data.inputs.spec.shape)))
        self.share = -(-recipe.optim.batch // replica.size)  # rows of a batch
        self.average = ModelEmaV3(self.plain, decay=recipe.optim.ema, use_warmup=True) if recipe.optim.ema else None
        if recipe.optim.compile:
            self.plain.compile()
        dtype = precision.agreed(recipe.optim.precision, replica)
        self.gradient = Gradient(self.plain, data.task.loss, replica, self.share, dtype)
        self.updates = 0
        self.watching: EarlyStoppingState | None = None
        self.watching_state: dict[str, Any] | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self.optimizer_state: dict[str, Any] | None = None

    @property
    def scored(self) -> nn.Module:
        """The network that is scored and kept."""
        return self.average.module if self.average else self.plain

    @property
    def repeats(self) -> int | None:
        """The epoch, counted from 1, that the rest of a stage repeats once it has ended early; None: it goes on."""
        return self.watching.epoch if self.watching and self.watching.ended else None

    def begin(self, number: int, done: int, targets: np.ndarray) -> None:
        """Make ready for a stage, `done` of whose epochs are behind; its labels are targets (N, K)."""
        stage, links = self.recipe.stages[number], schedule_group(self.recipe.stages, number)
        self.stage, self.augment = stage, self.recipe.augment[number]
        self.units, watched = self._split(number)
        self.watching = self._watching(stage, watched, is_begun=done > 0)
        self.gradient.loss = self._loss(stage, targets)
        self.epochs = self._epochs(targets)
        if self.epochs.smallest < self.replica.size:  # an empty share has no mean
            raise TrialFailed(f"batches of {self.epochs.smallest} rows cannot be shared by {self.replica.size} workers")
        if self.replica.size > 1:
            self.gradient.rehearse(self.epochs.largest(self.replica.size))
        lengths = [self._length(n) for n in links]
        if self.optimizer is None or number == links[0]:
            self._fresh_optimizer(self.recipe.stages[links[0]], sum(lengths), is_begun=done > 0 or number > links[0])
        epochs, part = divmod(done, stage.evaluations)
        inside = epochs * self.epochs.steps + self.epochs.steps_until(part, stage.evaluations)
        self.step = sum(lengths[: number - links[0]]) + inside

    def train(self, done: int, number: int) -> dict[str, float]:
        """Train one epoch, the `done`-th of its stage and the fold's `number`-th; return its mean loss over workers and
        the steps that were taken, NaN where none was, and how many were skipped.

        All randomness comes from the epoch's own streams, so that a continued run equals an undisturbed one.
        """
        seed, rank = self.recipe.seed, self.replica.rank
        torch.manual_seed(seeds.derive(seed, "dropout", number, rank))
        rng, windows = seeds.stream(seed, "augment", number, rank), seeds.stream(seed, "windows", number, rank)
        epoch, part = divmod(done, self.stage.evaluations)
        order = seeds.stream(seed, "order", number - part)  # all parts of an epoch share its order
        weights = self.stage.weights(self.data.votes, self.units, epoch)
        epochs, parts = replace(self.epochs, weights=weights), (part, self.stage.evaluations)
        total, before = torch.zeros((), device=self.replica.device), self.updates
        self.plain.train()
        for batch in epochs.batches(order, windows, rank, self.replica.size, parts):
            total += self._update(apply_all(batch, rng, self.augment))
        steps, taken = self.epochs.steps_until(part + 1, self.stage.evaluations), self.updates - before
        skipped = steps - self.epochs.steps_until(part, self.stage.evaluations) - taken
        if self.gradient.is_out_of_range:
            where = f"the gradients of epoch {number + 1} are too large for float16"
            raise TrialFailed(f"{where}; set optim.precision to bfloat16 or float32")
        loss = self.replica.team.mean(total).item() / taken if taken else math.nan
        if taken and not math.isfinite(loss):
            raise TrialFailed(
                f"the training loss became {loss} in epoch {number + 1}; a smaller lr or clip_grad may help"
            )
        return {"train_loss": loss, "skipped_steps": skipped}

    def evaluate(self, epoch: int) -> tuple[np.ndarray, float]:
        """Return the probabilities (rows, K) of the held-out units, NaN of those that are not scored, and the score.

        On the first worker; the others have none, and NaN, as has a fold without scored units.

        Raises:
            TrialFailed: on all workers, where a prediction is not finite.
        """
        units, inside = self.held_out, self._is_scored
        probs = np.full((len(units), len(self.data.task.classes)), np.nan)
        with self.replica.together():
            if self.replica.rank > 0:
                return np.empty((0, 0)), math.nan
            probs[inside] = self._predict(units[inside], epoch)
        score = self.data.task.score(self.data.targets[units[inside]], probs[inside]) if inside.any() else math.nan
        return probs, score

    def completed(self, probs: np.ndarray, epoch: int) -> np.ndarray:
        """Return what `evaluate` returned after an epoch, now of all held-out units; errors as there."""
        with self.replica.together():
            if self.replica.rank > 0:
                return probs
            rest = self._predict(self.held_out[~self._is_scored], epoch)
        whole = probs.copy()
        whole[~self._is_scored] = rest
        return whole

    @property
    def _is_scored(self) -> np.ndarray:
        """The mask (rows,) of the held-out units that the study scores."""
        return self.data.votes[self.held_out] >= self.recipe.min_votes

    def watch(self, epoch: int) -> dict[str, float]:
        """Return the score of the units that the stage watches, if any, after an epoch; let rate and end follow.

        Where the stage ends early, the network goes back to the epoch at which that score was best.

        Raises:
            TrialFailed: on all workers, where a prediction is not finite.
        """
        if self.watching is None:
            return {}
        score, units = math.nan, self.watching.units
        with self.replica.together():
            if self.replica.rank == 0:
                score = self.data.task.score(self.data.targets[units], self._predict(units, epoch))
        score = self.replica.team.from_first(score)  # the others decide as it does
        if self.watching.note(epoch, score):
            self.watching.keep(self._networks())
        if self.watching.ended:
            self._put_back(self.watching.network)
            self.watching.network = {}
        self.schedule.step_update(self.step)  # by the new scale
        return {"watched": score}

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
        state = {"updates": self.updates, "networks": self._networks(), "optimizer": self.optimizer.state_dict()}
        state |= {"scaler": self.gradient.scaler.state_dict()}
        return state | {"watching": self.watching and self.watching.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._put_back(state["networks"])
        self.updates, self.optimizer_state = state["updates"], state["optimizer"]
        self.gradient.scaler.load_state_dict(state["scaler"])
        self.watching_state = state["watching"]

    def _networks(self) -> Networks:
        """Return the network's own weights and buffers, and those of its average."""
        average = {"average": self.average.module.state_dict()} if self.average else {}
        return {"plain": self.plain.state_dict()} | average

    def _put_back(self, networks: Networks) -> None:
        """Make the networks what they were."""
        self.plain.load_state_dict(networks["plain"])
        if self.average:
            self.average.module.load_state_dict(networks["average"])

    def _fresh_optimizer(self, first: Stage, steps: int, is_begun: bool) -> None:
        """Make the optimiser and the schedule of stages that share them; of one that is begun, restore the state."""
        assert first.lr is not None, "a stage that begins a schedule has a rate"
        self.optimizer = optim.optimizer(self.plain, self.recipe.optim, first.lr)
        self.schedule = optim.schedule(self.optimizer, first, steps, self._scale)
        if is_begun:
            assert self.optimizer_state is not None, "a schedule is only half done where a checkpoint was restored"
            self.optimizer.load_state_dict(self.optimizer_state)
        self.optimizer_state = None

    def _scale(self) -> float:
        """Return how much of its rate a plateau schedule has left."""
        return self.watching.scale if self.watching else 1.0

    def _watching(self, stage: Stage, units: np.ndarray, is_begun: bool) -> EarlyStoppingState | None:
        """Return what watches a stage; of one that is begun, restore the state."""
        if stage.early_stopping is None:
            return None
        watching = EarlyStoppingState(stage.early_stopping, units)
        if is_begun:
            assert self.watching_state is not None, "a stage is only half done where a checkpoint was restored"
            watching.restore(self.watching_state)
        self.watching_state = None
        return watching

    def _loss(self, stage: Stage, targets: np.ndarray) -> Loss:
        """Return the loss of a stage, whose outcomes are weighed by the labels that it trains on, and no others."""
        task, weights = self.data.task, None
        if stage.class_weight == "balanced":
            weights = torch.from_numpy(task.balance(targets[self.units])).to(self.replica.device, torch.float32)
        return partial(task.loss, weights=weights, focal=stage.focal)

    def _epochs(self, targets: np.ndarray) -> StageBatches:
        data, rows = self.data, self.data.learnt_from(self.units)
        return StageBatches(data, rows, targets, np.ones(len(targets)), self.recipe.optim.batch, self.replica.device)

    def _split(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the units that a stage trains on, and those that it watches."""
        stage = self.recipe.stages[number]
        rows = stage.rows(self.data.votes, self.rows)
        aside = np.zeros(len(rows), bool)
        if stage.early_stopping:
            aside = set_aside(stage.early_stopping, self.data.groups[rows], self.recipe.seed, number)
        return rows[~aside], rows[aside]

    def _length(self, number: int) -> int:
        """Return the steps of a stage."""
        stage, (units, _) = self.recipe.stages[number], self._split(number)
        return stage.steps(len(self.data.learnt_from(units)), self.recipe.optim.batch) * stage.epochs

    def _update(self, batch: Batch) -> torch.Tensor:
        """Take one optimiser step and return the batch's loss; 0 where the step was skipped.

        The schedule counts skipped steps as well: its length is known before they are.
        """
        assert self.optimizer is not None, "a stage has begun"
        loss = self.gradient(batch)
        is_taken = self.gradient.step(self.optimizer, self.recipe.optim.clip_grad)
        self.step += 1
        self.schedule.step_update(self.step)
        if not is_taken:
            return torch.zeros_like(loss)
        self.updates += 1
        if self.average:
            self.average.update(self.plain, step=self.updates)
        return loss

    def _predict(self, units: np.ndarray, epoch: int) -> np.ndarray:
        """Return probabilities (n, K) of n units after an epoch: the mean over their examples.

        Raises:
            TrialFailed: one is not finite.
        """
        recipe, data, rows = self.recipe, self.data, 2 * self.gradient.rows  # no gradients to hold
        probs = predict(
            self.scored,
            data.inputs,
            data.examples.of(units),
            data.task,
            self.replica.device,
            rows,
            recipe.test_time,
            self.gradient.precision,
        )
        if not np.isfinite(probs).all():  # weights that overflow in the last step show in no loss
            raise TrialFailed(f"the predictions after epoch {epoch} are not finite; a smaller lr or clip_grad may help")
        return data.examples.mean(units, probs)


def _built(recipe: "Recipe") -> nn.Module:
    """Build the network; weights that are damaged on one machine fail the trial on all."""
    try:
        return recipe.build()
    except UserError as error:
        raise TrialFailed(str(error)) from error
