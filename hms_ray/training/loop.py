"""How one fold is trained: the page to read first."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hms_ray.augment._compose import Batch, apply_all
from hms_ray.core import seeds
from hms_ray.core.errors import TrialFailed
from hms_ray.training import memory, microbatch, pseudo_labels
from hms_ray.training.batches import TrainingData
from hms_ray.training.distributed import Replica
from hms_ray.training.fold_model import FoldModel
from hms_ray.training.history import History
from hms_ray.training.jobs import FoldResult, FoldStopped
from hms_ray.training.precision import autocast
from hms_ray.training.recipe import Fold, Recipe
from hms_ray.training.run_stage import begin_stage
from hms_ray.training.stages import schedule_group


def train_fold(
    recipe: Recipe,
    data: TrainingData,
    number: int,
    replica: Replica,
    saved: Path,
    on_epoch: Callable[[Mapping[str, Any]], None],
    prune_thresholds: Sequence[float] = (),
    on_teacher_epoch: Callable[[], None] = lambda: None,
) -> FoldResult | FoldStopped:
    """Train on all folds but one, stage after stage, and predict that one; continue from `saved` if it is of this run.

    After each epoch the held-out units that are scored are predicted, after the last one all held-out units.

    number: of the fold that is held out
    saved: the file of its checkpoint
    on_epoch: is called with each row of the learning curve; on_teacher_epoch: after each epoch of a teacher
    prune_thresholds: after epoch i the fold stops if its score is above threshold i; empty: it never does

    Raises:
        TrialFailed: a stage has no units or too few for its workers, not even one example fits the device, or the
            numbers are no longer finite.
        OSError: the checkpoint cannot be written, which is no fault of the configuration.
    """
    memory.start(replica.device)
    fold, plan, stage = Fold(recipe, data.to(replica.device), number, replica), recipe.plan, None
    assert len(prune_thresholds) in (0, len(plan)), f"{len(prune_thresholds)} thresholds for {len(plan)} epochs"
    model = FoldModel(fold)
    history = History(saved, recipe.epoch, recipe.candidates, len(plan), recipe.fingerprint)
    resumed = replica.team.from_first(history.load() if replica.rank == 0 else None)
    if resumed:
        model.load_state(resumed["learner"])
        history.restore(resumed)
    curve = history.curve
    while not (is_pruned := replica.team.from_first(history.is_above(prune_thresholds))) and len(curve) < len(plan):
        started, epoch, (stage_number, done) = time.monotonic(), len(curve) + 1, plan[len(curve)]
        if stage is None or done == 0:
            targets = pseudo_labels.stage_targets(fold, stage_number, saved, train_fold, on_teacher_epoch)
            stage = begin_stage(fold, model, stage_number, done, targets, stage, resumed and resumed["learner"])
            resumed = None  # its tensors are not needed again
            if replica.size > 1:
                rehearse(model, stage.batches.largest(replica.size), stage.loss)
        row: dict[str, float | None] = {"fold": number, "stage": stage_number, "epoch": epoch}

        if stage.repeated_epoch is None:
            # Train: batch -> augment -> forward -> loss -> backward -> clip -> step -> average.
            torch.manual_seed(seeds.derive(recipe.seed, "dropout", epoch - 1, replica.rank))
            augment_rng = seeds.stream(recipe.seed, "augment", epoch - 1, replica.rank)
            loss_sum, taken, skipped = torch.zeros((), device=replica.device), 0, 0
            model.network.train()
            for batch in stage.epoch_batches(epoch, done):
                batch = apply_all(batch, augment_rng, stage.augment)  # x (B, *spec.shape), y (B, K)
                loss = forward_backward(model, batch, stage.loss)
                is_taken = clip_and_step(model, stage.optimizer, recipe.optim.clip_grad)
                stage.advance_schedule()
                if not is_taken:
                    skipped += 1
                    continue
                loss_sum += loss
                taken += 1
                model.updates += 1
                if model.average:
                    model.average.update(model.network, step=model.updates)
            row |= {"train_loss": _mean_loss(model, loss_sum, taken, epoch), "skipped_steps": skipped}
            # Evaluate: first the patients that early stopping watches, then the held-out units that are scored.
            watched = stage.watch(model, epoch)
            probs = np.full((len(fold.held_out), len(data.task.classes)), np.nan)  # (rows, K)
            probs[fold.is_scored] = model.predict(fold.held_out[fold.is_scored], epoch)
            score = model.score(fold.held_out[fold.is_scored], probs[fold.is_scored])
            row |= {"score": score} | watched
        else:  # the stage stopped early, and the network is what it was at that epoch
            probs, scores = history.repeat(stage.repeated_epoch)
            row |= {"train_loss": math.nan, "skipped_steps": 0} | scores
        if epoch == len(plan):
            rest = model.predict(fold.held_out[~fold.is_scored], epoch)
            if replica.rank == 0:
                probs[~fold.is_scored] = rest

        row["lr"] = recipe.stages[schedule_group(recipe.stages, stage_number)[0]].lr
        row |= {"memory_gb": memory.peak(replica.device) / 1e9, "seconds": time.monotonic() - started}
        curve.append(row)
        if replica.rank == 0:
            history.add(probs, model.packed, model.state() | stage.state())
        on_epoch(row)
    if is_pruned:
        return FoldStopped(number, curve, **model.usage())
    return FoldResult(number, fold.held_out, history.probs, curve, history.weights(), **model.usage())


def forward_backward(model: FoldModel, batch: Batch, loss: microbatch.Loss, is_rehearsal: bool = False) -> torch.Tensor:
    """Leave the gradient of a batch's mean loss in the parameters, averaged over the team; return this worker's loss.

    The batch passes through the network in parts of `model.rows` rows. A worker alone halves them when its device runs
    out of memory. Workers of a team cannot: the others would wait in the middle of averaging their gradients. They try
    what fits before, in a rehearsal, which averages nothing and holds the memory that Adam's state will take.

    Raises:
        TrialFailed: the memory does not suffice for one row.
        torch.OutOfMemoryError: in a team.
    """
    in_team = model.fold.replica.size > 1 and not is_rehearsal
    network = model.wrapped if in_team else model.network

    def accumulate(rows: int) -> torch.Tensor:
        held = [torch.empty_like(p) for p in network.parameters() for _ in range(2)] if is_rehearsal else []
        model.network.zero_grad(set_to_none=True)
        total = torch.zeros((), device=model.device)
        parts = microbatch.split(batch, rows)
        for part in parts:
            with microbatch.synced(network, is_last=part is parts[-1]):
                with autocast(model.device, model.precision):
                    logits = network(*part.inputs)  # (b, K)
                part_loss = (part.weight * loss(logits.float(), part.y)).sum() / len(batch.x)
                model.scaler.scale(part_loss).backward()
            total += part_loss.detach()
        del held
        return total

    rows = min(model.rows, len(batch.x))
    if in_team:
        return accumulate(rows)
    mean_loss, fitted = memory.attempt(accumulate, rows, model.device)
    if fitted < rows:
        model.rows = fitted
    return mean_loss


def clip_and_step(model: FoldModel, optimizer: torch.optim.Optimizer, clip_grad: float) -> bool:
    """Take an optimiser step along the gradient, its norm at most `clip_grad`; False: it is infinite, so no step.

    Small gradients of float16 would become 0: `model.scaler` multiplies the loss, and here divides the gradient. A
    scale that is too large makes the gradient infinite; then the step is skipped and the scale halved. All workers of
    a team have the same gradient and scale, so they skip the same steps. Other precisions have no scale and never skip.
    """
    scale = model.scaler.get_scale()
    model.scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(model.network.parameters(), clip_grad)
    model.scaler.step(optimizer)
    model.scaler.update()
    return bool(model.scaler.get_scale() >= scale)


def rehearse(model: FoldModel, batch: Batch, loss: microbatch.Loss) -> None:
    """Find how many rows fit the device before a team averages its first gradient; the network stays as it is.

    Raises:
        TrialFailed: on every worker, where one has not the memory for one row.
    """
    model.network.train()
    with model.fold.replica.together(), microbatch.buffers_kept(model.network):
        forward_backward(model, batch, loss, is_rehearsal=True)
    model.network.zero_grad(set_to_none=True)


def _mean_loss(model: FoldModel, loss_sum: torch.Tensor, taken: int, epoch: int) -> float:
    """Return the mean loss of the steps that were taken, over all workers; NaN where none was.

    Raises:
        TrialFailed: it is not finite, or no scale keeps the gradients in the range of float16.
    """
    if model.scaler.get_scale() < 1:
        raise TrialFailed(
            f"the gradients of epoch {epoch} are too large for float16; set optim.precision to bfloat16 or float32"
        )
    if not taken:
        return math.nan
    loss = float(model.fold.replica.team.mean(loss_sum).item()) / taken
    if not math.isfinite(loss):
        raise TrialFailed(f"the training loss became {loss} in epoch {epoch}; a smaller lr or clip_grad may help")
    return loss
