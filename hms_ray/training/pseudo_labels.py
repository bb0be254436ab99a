"""Pseudo-labels that are honest twice: made by models that never saw the patient, nor the fold that is scored."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hms_ray.core import files, seeds
from hms_ray.core.errors import TrialFailed
from hms_ray.training.batches import TrainingData
from hms_ray.training.distributed import Replica
from hms_ray.training.jobs import FoldResult, FoldStopped
from hms_ray.training.recipe import Fold, Recipe
from hms_ray.training.stages import Pseudo

log = logging.getLogger(__name__)
NOWHERE = -1  # the part of units that teachers neither learn from nor label


class TrainFold(Protocol):
    """`loop.train_fold`, which trains teachers too."""

    def __call__(
        self,
        recipe: Recipe,
        data: TrainingData,
        number: int,
        replica: Replica,
        saved: Path,
        on_epoch: Callable[[Mapping[str, Any]], None],
        *,
        on_teacher_epoch: Callable[[], None],
    ) -> FoldResult | FoldStopped: ...


def stage_targets(
    fold: Fold, number: int, saved: Path, train_fold: TrainFold, on_teacher_epoch: Callable[[], None]
) -> np.ndarray:
    """Return the labels (N, K) of a stage; where it has pseudo-labels, train the teachers that make them first.

    Each teacher goes through the stages before this one. Its checkpoint lies in a folder beside `saved`.

    Raises:
        TrialFailed: there are fewer patients than parts, or a teacher fails.
    """
    recipe, data, replica = fold.recipe, fold.data, fold.replica
    stage = recipe.stages[number]
    targets = stage.targets(data.task, data.targets, data.votes)
    if stage.pseudo is None:
        return targets
    part_of = deal(data, fold.training_units, stage.pseudo.parts, recipe.seed)
    teacher_data, taught = for_teachers(data, part_of), np.full_like(targets, np.nan)
    for part in range(stage.pseudo.parts):
        name = f"teacher-{number}-{part}"
        teacher = replace(
            recipe,
            augment=recipe.augment[:number],
            stages=recipe.stages[:number],
            epoch="last",
            seed=seeds.derive(recipe.seed, name),
            fingerprint=files.fingerprint(recipe.fingerprint, name),
        )
        log.info("training %s, whose predictions are labels of stage %d", name, number)
        try:
            result = train_fold(
                teacher,
                teacher_data,
                part,
                replica,
                saved.parent / name / saved.name,
                lambda row: on_teacher_epoch(),
                on_teacher_epoch=on_teacher_epoch,
            )
        except TrialFailed as error:
            raise TrialFailed(f"{name}: {error}") from error.__cause__
        assert isinstance(result, FoldResult), "a teacher has no thresholds"
        taught[result.rows] = replica.team.from_first(result.probs)[-1]
    return mixed(targets, taught, data.votes, stage.pseudo)


def deal(data: TrainingData, train: np.ndarray, parts: int, seed: int) -> np.ndarray:
    """Return the part (N,) of each unit, whole patients at random; NOWHERE outside `train`.

    Raises:
        TrialFailed: there are fewer patients than parts.
    """
    patients = _patients(data.groups[train], parts)
    order = seeds.stream(seed, "pseudo", "parts").permutation(patients)
    part_of = {patient: i % parts for i, patient in enumerate(order)}
    dealt = np.full(len(data.groups), NOWHERE)
    dealt[train] = [part_of[patient] for patient in data.groups[train]]
    return dealt


def check(pseudo: Pseudo, groups: np.ndarray, votes: np.ndarray, rows: np.ndarray) -> None:
    """See that a stage can have pseudo-labels, and has use for them.

    groups: the patients of the units that a fold is trained on; votes (N,); rows: the units of the stage

    Raises:
        TrialFailed: there are fewer patients than parts, or no unit of the stage is concerned.
    """
    _patients(groups, pseudo.parts)
    if not (votes[rows] < pseudo.below).any():
        raise TrialFailed(f"pseudo.below {pseudo.below}: no unit of the stage has fewer votes")


def for_teachers(data: TrainingData, dealt: np.ndarray) -> TrainingData:
    """Return the data of which part i is held out as fold i, and nothing is trained on outside the parts."""
    return replace(data, folds=dealt, trust=np.where(dealt[data.examples.unit] == NOWHERE, 0.0, data.trust))


def mixed(targets: np.ndarray, taught: np.ndarray, votes: np.ndarray, pseudo: Pseudo) -> np.ndarray:
    """Return the labels (N, K): of units with few votes in part those of the teachers, NaN where they made none."""
    share = np.where((votes < pseudo.below) & np.isfinite(taught).all(1), pseudo.share, 0.0)[:, None]
    return (1 - share) * targets + share * np.nan_to_num(taught)


def _patients(groups: np.ndarray, parts: int) -> np.ndarray:
    patients = np.unique(groups)
    if len(patients) < parts:
        raise TrialFailed(f"pseudo.parts is {parts}, but the fold has {len(patients)} patients to train on")
    return patients
