"""How one fold is trained: the page to read first."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from timm.utils import ModelEmaV3
from torch import nn

from hms_ray import seeds
from hms_ray.augment._compose import Batch, apply_all
from hms_ray.errors import TrialFailed
from hms_ray.params import Params
from hms_ray.store.inputs import memory_format
from hms_ray.training import checkpoint, memory, optim
from hms_ray.training.batches import Epochs, TrainingData
from hms_ray.training.evaluate import predict
from hms_ray.training.gradient import Gradient
from hms_ray.training.stages import Stage
from hms_ray.training.team import Replica


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the result of a fold, but the data.

    test_time: augmentations whose full versions are predicted as well, and averaged
    mark: changes with anything above, so that a checkpoint of another run is never continued
    """

    build: Callable[[], nn.Module]
    augment: tuple[tuple[ModuleType, Params], ...]
    optim: optim.Params
    stages: tuple[Stage, ...]
    min_votes: int
    test_time: tuple[ModuleType, ...]
    seed: int
    mark: str


@dataclass(frozen=True)
class FoldResult:
    """A finished fold: probabilities (len(rows), K) of the held-out rows, packed weights, one dict an epoch.

    peak_gpu_bytes, gpu_bytes: the most that it took of its GPU, and the GPU's size; 0 on a CPU
    out_of_memory: the memory did not suffice, and batches were trained in parts
    """

    fold: int
    rows: np.ndarray
    probs: np.ndarray
    weights: bytes
    epochs: list[dict[str, Any]]
    peak_gpu_bytes: int = 0
    gpu_bytes: int = 0
    out_of_memory: bool = False


@dataclass(frozen=True)
class FoldStopped:
    """A fold that was stopped after an epoch whose score was above the limit; fields as in FoldResult."""

    fold: int
    epochs: list[dict[str, Any]]
    peak_gpu_bytes: int = 0
    gpu_bytes: int = 0
    out_of_memory: bool = False


def train_fold(
    recipe: Recipe,
    data: TrainingData,
    fold: int,
    replica: Replica,
    saved: Path,
    on_epoch: Callable[[Mapping[str, Any]], None],
    limits: Sequence[float] = (),
) -> FoldResult | FoldStopped:
    """Train on the other folds, stage after stage, and predict this one; continue from `saved` if it is of this run.

    limits: after epoch i the fold stops if its score is above limits[i]; empty: it never does

    Raises:
        TrialFailed: a stage has no rows or too few for its workers, not even one example fits the device, or the
            numbers are no longer finite.
        OSError: the checkpoint cannot be written, which is no fault of the configuration.
    """
    memory.start(replica.device)
    learner = _Learner(recipe, data.to(replica.device), fold, replica)
    plan = [(number, done) for number, stage in enumerate(recipe.stages) for done in range(stage.epochs)]
    assert len(limits) in (0, len(plan)), f"{len(limits)} limits for {len(plan)} epochs"
    curve = learner.restore(saved)
    restored = len(curve)
    while not (stopped := replica.team.from_first(_is_above(curve, limits))) and len(curve) < len(plan):
        started = time.monotonic()
        number, done = plan[len(curve)]
        stage = recipe.stages[number]
        if done == 0 or len(curve) == restored:
            learner.begin(stage, done)
        row = {"fold": fold, "stage": number, "epoch": len(curve) + 1, "train_loss": learner.epoch(len(curve))}
        row |= {"score": learner.score(), "lr": stage.lr, "memory_gb": memory.peak(replica.device) / 1e9}
        curve.append(row | {"seconds": time.monotonic() - started})
        if replica.rank == 0:
            learner.save(saved, curve)
        on_epoch(curve[-1])
    return FoldStopped(fold, curve, **learner.usage()) if stopped else learner.result(fold, curve)


def _is_above(curve: list[dict[str, Any]], limits: Sequence[float]) -> bool:
    """Whether the last epoch's score is above its limit; one that is NaN never is."""
    return bool(curve and limits) and curve[-1]["score"] > limits[len(curve) - 1]


class _Learner:
    """A network, its average, and the optimiser of the stage under way."""

    def __init__(self, recipe: Recipe, data: TrainingData, fold: int, replica: Replica) -> None:
        self.recipe, self.data, self.replica = recipe, data, replica
        self.train = np.flatnonzero((data.folds != fold) & (data.trust > 0))
        self.held_out = np.flatnonzero(data.folds == fold)
        torch.manual_seed(seeds.derive(recipe.seed, "weights"))
        self.plain = recipe.build().to(replica.device, memory_format=memory_format(1 + len(data.inputs.spec.shape)))
        self.share = -(-recipe.optim.batch // replica.size)  # rows of a batch
        self.gradient = Gradient(self.plain, data.task, replica, self.share)
        self.average = ModelEmaV3(self.plain, decay=recipe.optim.ema, use_warmup=True) if recipe.optim.ema else None
        self.updates = 0
        self.optimizer_state: dict[str, Any] | None = None

    @property
    def scored(self) -> nn.Module:
        """The network that is scored and kept."""
        return self.average.module if self.average else self.plain

    def begin(self, stage: Stage, done: int) -> None:
        """Make the stage's optimiser and schedule; with `done` epochs behind it, continue the restored ones."""
        rows = stage.rows(self.data.votes, self.train)
        targets = stage.targets(self.data.targets, self.data.votes)
        weights = stage.weights(self.data.votes, rows) * self.data.trust
        self.epochs = Epochs(self.data, rows, targets, weights, self.recipe.optim.batch, self.replica.device)
        if self.epochs.smallest < self.replica.size:  # an empty share has no mean
            raise TrialFailed(f"batches of {self.epochs.smallest} rows cannot be shared by {self.replica.size} workers")
        if self.replica.size > 1:
            self.gradient.rehearse(self.epochs.largest(self.replica.size))
        self.optimizer = optim.optimizer(self.plain, self.recipe.optim, stage)
        self.schedule = optim.schedule(self.optimizer, stage, self.epochs.steps * stage.epochs)
        self.step = done * self.epochs.steps  # steps of the stage so far
        if done:
            assert self.optimizer_state is not None, "a stage is only half done where a checkpoint was restored"
            self.optimizer.load_state_dict(self.optimizer_state)

    def epoch(self, number: int) -> float:
        """Train one epoch and return its mean loss over steps and workers.

        All randomness comes from the epoch's own streams, so that a continued run equals an undisturbed one.
        """
        seed, rank = self.recipe.seed, self.replica.rank
        torch.manual_seed(seeds.derive(seed, "dropout", number, rank))
        rng = seeds.stream(seed, "augment", number, rank)
        total = torch.zeros((), device=self.replica.device)
        self.plain.train()
        order, windows = seeds.stream(seed, "order", number), seeds.stream(seed, "windows", number, rank)
        for batch in self.epochs.batches(order, windows, rank, self.replica.size):
            total += self._update(apply_all(batch, rng, self.recipe.augment))
        loss = self.replica.team.mean(total).item() / self.epochs.steps
        if not math.isfinite(loss):
            raise TrialFailed(
                f"the training loss became {loss} in epoch {number + 1}; a smaller lr or clip_grad may help"
            )
        return loss

    def _update(self, batch: Batch) -> torch.Tensor:
        """Take one optimiser step and return the batch's loss."""
        loss = self.gradient(batch)
        nn.utils.clip_grad_norm_(self.plain.parameters(), self.recipe.optim.clip_grad)
        self.optimizer.step()
        self.step, self.updates = self.step + 1, self.updates + 1
        self.schedule.step_update(self.step)
        if self.average:
            self.average.update(self.plain, step=self.updates)
        return loss

    def predict(self) -> np.ndarray:
        """Return probabilities of the held-out units."""
        rows = 2 * self.gradient.rows  # no gradients to hold
        data, device = self.data, self.replica.device
        return predict(self.scored, data.inputs, self.held_out, data.task, device, rows, self.recipe.test_time)

    def result(self, fold: int, curve: list[dict[str, Any]]) -> FoldResult:
        """Return what a trained fold hands over."""
        with self.replica.together():
            probs = self.predict()
            if not np.isfinite(probs).all():  # weights that overflow in the last step show in no loss
                raise TrialFailed(f"the predictions of fold {fold} are not finite; a smaller lr or clip_grad may help")
        weights = checkpoint.pack(self.scored.state_dict())
        return FoldResult(fold, self.held_out, probs, weights, curve, **self.usage())

    def score(self) -> float:
        """Return the score on the held-out units of the study's population; NaN where there are none."""
        inside = self.data.votes[self.held_out] >= self.recipe.min_votes
        with self.replica.together():
            if self.replica.rank > 0 or not inside.any():
                return math.nan
            return self.data.task.score(self.data.targets[self.held_out][inside], self.predict()[inside])

    def usage(self) -> dict[str, Any]:
        """Return what the fold took of its device so far, under the names of FoldResult."""
        device = self.replica.device
        sizes = {"peak_gpu_bytes": memory.peak(device), "gpu_bytes": memory.total(device)}
        return sizes | {"out_of_memory": self.gradient.rows < self.share}

    def save(self, path: Path, curve: list[dict[str, Any]]) -> None:
        """Write everything that the next epoch needs."""
        state = {"of": self.recipe.mark, "curve": curve, "updates": self.updates}
        state |= {"model": self.plain.state_dict(), "optimizer": self.optimizer.state_dict()}
        checkpoint.save(path, state | {"average": self.scored.state_dict()})

    def restore(self, path: Path) -> list[dict[str, Any]]:
        """Load the last finished epoch, if there is one, and return the curve so far."""
        state = checkpoint.load(path, self.recipe.mark) if self.replica.rank == 0 else None
        state = self.replica.team.from_first(state)
        if state is None:
            return []
        self.plain.load_state_dict(state["model"])
        self.scored.load_state_dict(state["average"])
        self.updates, self.optimizer_state = state["updates"], state["optimizer"]
        return state["curve"]
