"""How one fold is trained: the page to read first."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from torch import nn

from hms_ray.core import files, seeds
from hms_ray.core.errors import TrialFailed
from hms_ray.core.params import Params
from hms_ray.study.epoch_selection import Candidates, Rule
from hms_ray.training import memory, optim, pseudo_labels
from hms_ray.training.batches import TrainingData
from hms_ray.training.distributed import Replica
from hms_ray.training.history import History
from hms_ray.training.jobs import FoldResult, FoldStopped
from hms_ray.training.learner import Learner
from hms_ray.training.stages import Stage, schedule_group

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the result of a fold, but the data.

    augment: the augmentations of each stage
    epoch, candidates: how the epoch that counts is chosen, and among which
    test_time: augmentations whose full versions are predicted as well, and averaged
    mark: changes with anything above, so that a checkpoint of another run is never continued
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
    mark: str

    @property
    def plan(self) -> list[tuple[int, int]]:
        """The stage of each epoch, and how many epochs of it come before; evaluations count as epochs."""
        return [(number, done) for number, stage in enumerate(self.stages) for done in range(stage.rounds)]


def train_fold(
    recipe: Recipe,
    data: TrainingData,
    fold: int,
    replica: Replica,
    saved: Path,
    on_epoch: Callable[[Mapping[str, Any]], None],
    prune_thresholds: Sequence[float] = (),
    on_taught: Callable[[], None] = lambda: None,
) -> FoldResult | FoldStopped:
    """Train on the other folds, stage after stage, and predict this one; continue from `saved` if it is of this run.

    After each epoch the units of this fold that are scored are predicted, after the last one all.

    on_epoch: is called with each row of the curve; on_taught: after each epoch of a teacher
    prune_thresholds: after epoch i the fold stops if its score is above threshold i; empty: it never does

    Raises:
        TrialFailed: a stage has no rows or too few for its workers, not even one example fits the device, or the
            numbers are no longer finite.
        OSError: the checkpoint cannot be written, which is no fault of the configuration.
    """
    memory.start(replica.device)
    learner = Learner(recipe, data.to(replica.device), fold, replica)
    plan = recipe.plan
    assert len(prune_thresholds) in (0, len(plan)), f"{len(prune_thresholds)} limits for {len(plan)} epochs"
    history = History(saved, recipe.epoch, recipe.candidates, len(plan), recipe.mark)
    if state := replica.team.from_first(history.load() if replica.rank == 0 else None):
        learner.restore(state["learner"])
        history.take(state)
    curve, restored = history.curve, len(history.curve)
    while not (stopped := replica.team.from_first(_is_above(history, prune_thresholds))) and len(curve) < len(plan):
        started = time.monotonic()
        number, done = plan[len(curve)]
        if done == 0 or len(curve) == restored:
            learner.begin(number, done, _targets(recipe, number, learner, saved, on_taught))
        probs, found = _epoch(learner, done, history)
        row = {"fold": fold, "stage": number, "epoch": len(curve) + 1, **found, "lr": _rate(recipe, number)}
        row |= {"memory_gb": memory.peak(replica.device) / 1e9, "seconds": time.monotonic() - started}
        curve.append(row)
        if replica.rank == 0:
            history.add(probs, learner)
        on_epoch(curve[-1])
    if stopped:
        return FoldStopped(fold, curve, **learner.usage())
    return FoldResult(fold, learner.held_out, history.probs, curve, history.weights(), **learner.usage())


def _epoch(learner: Learner, done: int, history: History) -> tuple[np.ndarray, dict[str, float]]:
    """Train the `done`-th epoch of a stage, or pass it where the stage has ended early.

    Return the predictions (rows, K) after it, NaN of units that are not scored unless it is the fold's last, and the
    training loss and the scores of its row. At the end itself the network has gone back already: what it predicts is
    what is kept.
    """
    number = len(history.curve) + 1
    if learner.repeats:
        probs, scores = history.again(learner.repeats)
        row = {"train_loss": math.nan, "skipped_steps": 0} | scores
    else:
        trained, watched = learner.train(done, number - 1), learner.watch(number)
        probs, score = learner.evaluate(number)
        row = trained | {"score": score} | watched
    return (learner.completed(probs, number) if number == history.total else probs), row


def _rate(recipe: Recipe, number: int) -> float | None:
    """Return the largest rate of a stage's schedule."""
    return recipe.stages[schedule_group(recipe.stages, number)[0]].lr


def _is_above(history: History, prune_thresholds: Sequence[float]) -> bool:
    """Whether the score, had the fold ended with the last epoch, is above that epoch's limit; NaN never is."""
    if not (history.curve and prune_thresholds):
        return False
    return bool(history.as_ended[-1] > prune_thresholds[len(history.curve) - 1])


def _targets(recipe: Recipe, number: int, learner: Learner, saved: Path, on_taught: Callable[[], None]) -> np.ndarray:
    """Return the labels (N, K) of a stage; where it has pseudo-labels, teachers are trained for them first."""
    stage, data = recipe.stages[number], learner.data
    targets = stage.targets(data.task, data.targets, data.votes)
    if stage.pseudo is None:
        return targets
    dealt = pseudo_labels.deal(data, learner.rows, stage.pseudo.parts, recipe.seed)
    theirs, taught = pseudo_labels.for_teachers(data, dealt), np.full_like(targets, np.nan)
    for part in range(stage.pseudo.parts):
        held_out, probs = _teach(recipe, number, part, theirs, learner.replica, saved, on_taught)
        taught[held_out] = probs
    return pseudo_labels.mixed(targets, taught, data.votes, stage.pseudo)


def _teach(
    recipe: Recipe,
    number: int,
    part: int,
    data: TrainingData,
    replica: Replica,
    saved: Path,
    on_taught: Callable[[], None],
) -> tuple[np.ndarray, np.ndarray]:
    """Train a teacher by the stages before, and return the rows of its part and what it predicts for them."""
    name = f"teacher-{number}-{part}"
    teacher = replace(
        recipe,
        augment=recipe.augment[:number],
        stages=recipe.stages[:number],
        epoch="last",
        seed=seeds.derive(recipe.seed, name),
        mark=files.fingerprint(recipe.mark, name),
    )
    log.info("training %s, whose predictions are labels of stage %d", name, number)
    try:
        own = saved.parent / name / saved.name
        result = train_fold(teacher, data, part, replica, own, lambda row: on_taught(), on_taught=on_taught)
    except TrialFailed as error:
        raise TrialFailed(f"{name}: {error}") from error.__cause__
    assert isinstance(result, FoldResult), "a teacher has no limits"
    return result.rows, replica.team.from_first(result.probs)[-1]
