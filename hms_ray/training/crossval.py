"""From a run to the out-of-fold table of its folds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from hms_ray import registry
from hms_ray.core import files, provenance, seeds
from hms_ray.core.errors import ConfigError, TrialFailed, UserError
from hms_ray.core.progress import Progress
from hms_ray.datasets import Dataset, Examples, Windows
from hms_ray.features._feature import FeatureRef
from hms_ray.models._heads import takes_covariates
from hms_ray.store import quality
from hms_ray.store.inputs import Inputs, input_spec, memory_format, open_inputs, read_quality
from hms_ray.store.prepare import check, prepare_all
from hms_ray.store.share import StoreRef
from hms_ray.store.workers import Workers
from hms_ray.study import folds
from hms_ray.study.folder import FoldFolder, StudyFolder
from hms_ray.study.oof import OofTable
from hms_ray.tasks import Task
from hms_ray.training import checkpoint, memory, precision
from hms_ray.training.batches import TrainingData
from hms_ray.training.distributed import Replica
from hms_ray.training.evaluate import predict
from hms_ray.training.jobs import FoldJob, FoldResult, FoldStopped, PredictionJob
from hms_ray.training.loop import train_fold
from hms_ray.training.published_weights import equipped, origin
from hms_ray.training.published_weights import read as read_weights
from hms_ray.training.recipe import Recipe
from hms_ray.training.run_config import RunConfig, parse_run


@dataclass(frozen=True)
class Labels:
    """What every trial of a study shares: targets (N, K), votes, folds and ids (N,), the task, and the examples."""

    unit_ids: np.ndarray
    group_ids: np.ndarray
    targets: np.ndarray
    votes: np.ndarray
    folds: np.ndarray
    task: Task
    examples: Examples
    windows: Mapping[str, Windows]
    data_fingerprint: str
    folds_fingerprint: str

    @classmethod
    def of(cls, dataset: Dataset, table: pd.DataFrame) -> "Labels":
        """Return the labels of a dataset with its folds, both in the order of the units."""
        return cls(
            unit_ids=table["unit_id"].to_numpy(dtype=str),
            group_ids=table["group_id"].to_numpy(dtype=str),
            targets=dataset.targets,
            votes=dataset.units["votes"].to_numpy(),
            folds=table["fold"].to_numpy(),
            task=dataset.task,
            examples=dataset.examples,
            windows=dataset.windows,
            data_fingerprint=dataset.fingerprint,
            folds_fingerprint=folds.fingerprint(table),
        )


def train_job(
    job: FoldJob,
    labels: Labels,
    replica: Replica,
    on_epoch: Callable[[Mapping[str, Any]], None],
    on_taught: Callable[[], None] = lambda: None,
) -> FoldResult | FoldStopped:
    """Train one fold wherever this process runs, reporting each epoch, and each of a teacher."""
    run = parse_run(job.run)
    with replica.together():
        if job.weights is not None:
            _local(job.weights)
        inputs, trust = _opened(run, job.stores, labels)
    data = TrainingData(
        inputs, labels.examples, labels.targets, labels.votes, labels.folds, labels.group_ids, trust, labels.task
    )
    how = recipe(run, labels.task, job.fold, job.weights)
    return train_fold(how, data, job.fold, replica, job.saved, on_epoch, job.prune_thresholds, on_taught)


def predict_job(job: PredictionJob, labels: Labels, device: torch.device) -> np.ndarray:
    """Return probabilities (n, K) of the units of a finished fold that are not scored, in the order of the units.

    Raises:
        TrialFailed: this machine cannot have a store, has not the memory for one example, or one is not finite.
    """
    run = parse_run(job.run)
    units = np.flatnonzero((labels.folds == job.fold) & (labels.votes < run.score.min_votes))
    inputs, _ = _opened(run, job.stores, labels)
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


def _local(weights: StoreRef) -> None:
    """See that published weights are on this machine; errors as in `_opened`."""
    try:
        weights.local()
    except UserError as error:
        raise TrialFailed(str(error)) from error


def _opened(run: RunConfig, stores: Sequence[StoreRef], labels: Labels) -> tuple[Inputs, np.ndarray]:
    """Open what the run reads, and return it with the trust in its examples.

    Raises:
        TrialFailed: this machine cannot have a store; then the fold's workers on other machines stop as well.
    """
    try:
        measures = quality.of_examples(read_quality(stores), labels.windows)
        inputs = open_run(run, stores, labels.windows, labels.examples)
        return inputs, quality.trust(measures, run.quality)
    except UserError as error:
        raise TrialFailed(str(error)) from error


def recipe(run: RunConfig, task: Task, fold: int, weights: StoreRef | None = None) -> Recipe:
    """Return what training needs of a run; the seed differs from fold to fold."""
    own = {k: v for k, v in run.content.items() if k not in ("data", "folds")}  # a study has one of these
    return Recipe(
        build=lambda: build_model(run, task, weights),
        augment=tuple(tuple((own.module, own.params) for own in stage) for stage in run.stage_augment),
        optim=run.optim,
        stages=run.stages,
        epoch=run.epoch,
        candidates=run.epoch_candidates,
        min_votes=run.score.min_votes,
        test_time=test_time(run),
        seed=fold_seed(run, fold),
        fingerprint=files.fingerprint(provenance.fingerprint(), own, fold, weights and weights.name),
    )


def fold_seed(run: RunConfig, fold: int) -> int:
    """Return the seed of a fold."""
    return seeds.derive(run.seed, "fold", fold)


def test_time(run: RunConfig) -> tuple[ModuleType, ...]:
    """Return the augmentations whose full versions are predicted as well."""
    return tuple(registry.load("augment", name) for name in run.test_time)


def build_model(run: RunConfig, task: Task, weights: StoreRef | None = None) -> nn.Module:
    """Build the run's network, from published weights where there are some.

    Raises:
        ConfigError: they are another network's, or it takes no numbers beside its input.
        DataError: they are not on this machine.
    """
    spec, params, given = input_spec(_feature(run), run.input), run.model.params, ()
    if weights is not None:
        name = {"pretrained": origin(weights)}  # a worker's run says false, which is no name
        params = params.model_copy(update=name)
        given = (read_weights(weights),)
    network = run.model.module.build(spec, len(task.classes), params, *given)
    if spec.covariates and not takes_covariates(network):
        raise ConfigError(
            f"input.covariates: model {run.model.name} takes nothing beside its {spec.layout}: leave it out"
        )
    return network


def with_random_weights(content: Mapping[str, Any], *sections: str) -> Mapping[str, Any]:
    """Return the run's plain values without the pretrained weights of those sections, by default the model's.

    It needs neither the hub nor the file it had. What is no run is left as it is, for `parse_run` to refuse.
    """
    if not isinstance(content, Mapping):
        return content
    given = {key: content.get(key) for key in sections or ("model",)}
    random = {k: {**v, "pretrained": False} for k, v in given.items() if isinstance(v, Mapping) and "pretrained" in v}
    return {**content, **random}


def prepare_inputs(dataset: Dataset, run: RunConfig, workers: Workers | None = None) -> tuple[StoreRef, ...]:
    """Return the stores that the run reads, prepared unless that is done; errors as in `prepare_runs`."""
    return prepare_runs(dataset, [run], workers)[0]


def prepare_runs(
    dataset: Dataset, runs: Sequence[RunConfig], workers: Workers | None = None
) -> list[tuple[StoreRef, ...]]:
    """Return the stores that each run reads, prepared unless that is done; errors as in `store.prepare`.

    Each recording is read once for all of them.

    Raises:
        ConfigError: besides, a feature's published weights cannot be had, or are another network's.
    """
    return prepare_all(dataset, [(equipped(_feature(run)), run.input) for run in runs], Progress, workers)


def check_inputs(dataset: Dataset, run: RunConfig) -> None:
    """Refuse recordings that the run cannot read, before any work; errors as in `store.check`."""
    check(dataset, _feature(run), run.input)


def open_run(run: RunConfig, stores: Sequence[StoreRef], windows: Mapping[str, Windows], examples: Examples) -> Inputs:
    """Open what the run reads."""
    return open_inputs(stores, _feature(run), run.input, windows, examples)


def _feature(run: RunConfig) -> FeatureRef:
    return FeatureRef(run.feature.name, run.feature.params)


def write_fold(folder: FoldFolder, table: OofTable, by_epoch: np.ndarray) -> None:
    """Write a finished fold, whose weights are there: the table last, since it is what says that it is finished."""
    files.write_array(folder.by_epoch, by_epoch)
    table.write(folder.oof)
    folder.drop_checkpoint()


def fold_table(result: FoldResult, labels: Labels, trial: str, space: str, selected_on: tuple[int, ...]) -> OofTable:
    """Return the out-of-fold rows of one finished fold, after its last epoch."""
    table = table_of(labels, result.probs[-1], trial, space, result.rows)
    return replace(table, selected_on=selected_on, epoch_rule="last", epochs=(len(result.probs),))


def table_of(
    labels: Labels, probs: np.ndarray, trial: str, space: str, rows: np.ndarray | slice = slice(None)
) -> OofTable:
    """Return predictions (R, K) of some units as a table."""
    return OofTable(
        unit_ids=labels.unit_ids[rows],
        group_ids=labels.group_ids[rows],
        folds=labels.folds[rows],
        votes=labels.votes[rows],
        targets=labels.targets[rows],
        probs=probs,
        task=labels.task,
        trial=trial,
        space=space,
        data_fingerprint=labels.data_fingerprint,
        folds_fingerprint=labels.folds_fingerprint,
    )


def finished_folds(study: StudyFolder, trial: str, k: int) -> list[int]:
    """Return the folds of a trial that need no training."""
    return [fold for fold in range(k) if study.trial(trial).fold(fold).oof.is_file()]


def write_epochs(path: Path, rows: list[dict[str, Any]]) -> None:
    """Replace the learning curves by those rows, sorted by fold and epoch."""
    files.write_table(path, pd.DataFrame(rows).sort_values(["fold", "epoch"], ignore_index=True))
