"""Epochs of `train_fold` of as many batches as a bench asks for, timed without their evaluation and checkpoint."""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from hms_ray.augment._compose import Batch
from hms_ray.training.batches import TrainingData
from hms_ray.training.distributed import Replica
from hms_ray.training.loop import train_fold
from hms_ray.training.recipe import Recipe
from hms_ray.training.run_stage import RunStage

NO_FOLD = -1  # nothing is held out, so that there is nothing to evaluate


class _Finished(Exception):
    """No further epoch is asked for."""


def train_epochs(
    recipe: Recipe, data: TrainingData, device: torch.device, steps: Iterable[int], on_epoch: Callable[[float], None]
) -> None:
    """Train epochs of so many full batches each, and call `on_epoch` with the seconds of each.

    recipe: one stage of more epochs than are asked for
    """
    counts = iter(steps)

    def epoch_batches(stage: RunStage, epoch: int, done: int) -> Iterator[Batch]:
        count = next(counts, None)
        if count is None:
            raise _Finished
        started = time.perf_counter()
        rows = np.resize(stage.batches.rows, recipe.optim.batch * count)
        weights = stage.settings.weights(data.votes, stage.units, 0)
        yield from replace(stage.batches, rows=rows, weights=weights).batches(*np.random.default_rng(epoch).spawn(2))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        on_epoch(time.perf_counter() - started)

    with (
        tempfile.TemporaryDirectory() as scratch,
        mock.patch.object(RunStage, "epoch_batches", epoch_batches),
        suppress(_Finished),
    ):
        train_fold(recipe, data, NO_FOLD, Replica(device), Path(scratch) / "checkpoint.pt", lambda row: None)
