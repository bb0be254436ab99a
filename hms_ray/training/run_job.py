"""Trains a fold, or predicts units of a finished one, as a job says, wherever this process runs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from hms_ray.core.errors import TrialFailed, UserError
from hms_ray.store import quality
from hms_ray.store.inputs import Inputs, memory_format, read_quality
from hms_ray.store.share import StoreRef
from hms_ray.training import checkpoint, memory, precision
from hms_ray.training.batches import TrainingData
from hms_ray.training.build import build_model, make_recipe, test_time
from hms_ray.training.distributed import Replica
from hms_ray.training.evaluate import predict
from hms_ray.training.inputs import open_run
from hms_ray.training.jobs import FoldJob, FoldResult, FoldStopped, PredictionJob
from hms_ray.training.labels import TrainingLabels
from hms_ray.training.loop import train_fold
from hms_ray.training.run_config import RunConfig


def train_job(
    job: FoldJob,
    labels: TrainingLabels,
    replica: Replica,
    on_epoch: Callable[[Mapping[str, Any]], None],
    on_teacher_epoch: Callable[[], None] = lambda: None,
) -> FoldResult | FoldStopped:
    """Train one fold, reporting each epoch, and each of a teacher; errors as in `train_fold`."""
    with replica.together():
        if job.weights is not None:
            try:
                job.weights.local()
            except UserError as error:
                raise TrialFailed(str(error)) from error
        inputs, trust = _open(job.run, job.stores, labels)
    data = TrainingData(
        inputs, labels.examples, labels.targets, labels.votes, labels.folds, labels.group_ids, trust, labels.task
    )
    recipe = make_recipe(job.run, labels.task, job.fold, job.weights)
    return train_fold(recipe, data, job.fold, replica, job.saved, on_epoch, job.prune_thresholds, on_teacher_epoch)


def predict_job(job: PredictionJob, labels: TrainingLabels, device: torch.device) -> np.ndarray:
    """Return probabilities (n, K) of the units of a finished fold that are not scored, in the order of the units.

    Raises:
        TrialFailed: this machine cannot have a store, has not the memory for one example, or one is not finite.
    """
    run = job.run
    units = np.flatnonzero((labels.folds == job.fold) & (labels.votes < run.score.min_votes))
    inputs, _ = _open(run, job.stores, labels)
    memory.start(device)
    network = build_model(run, labels.task)
    network.load_state_dict(checkpoint.unpacked(job.weights))
    network.to(device, memory_format=memory_format(1 + len(inputs.spec.shape)))
    dtype = precision.of_device(run.optim.precision, device)
    rows, size = labels.examples.of(units), 2 * run.optim.batch
    probs = predict(network, inputs, rows, labels.task, device, size, test_time(run), dtype)
    if not np.isfinite(probs).all():
        raise TrialFailed(f"the predictions after epoch {job.epoch} are not finite")
    return labels.examples.mean(units, probs)


def _open(run: RunConfig, stores: Sequence[StoreRef], labels: TrainingLabels) -> tuple[Inputs, np.ndarray]:
    """Open what the run reads, and return it with the trust in its examples (E,).

    Raises:
        TrialFailed: this machine cannot have a store; then the fold's workers on other machines stop as well.
    """
    try:
        measures = quality.of_examples(read_quality(stores), labels.windows)
        return open_run(run, stores, labels.windows, labels.examples), quality.trust(measures, run.quality)
    except UserError as error:
        raise TrialFailed(str(error)) from error
