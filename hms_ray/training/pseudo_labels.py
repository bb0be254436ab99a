"""Pseudo-labels that are honest twice: made by models that never saw the patient, nor the fold that is scored."""

from dataclasses import replace

import numpy as np

from hms_ray.core import seeds
from hms_ray.core.errors import TrialFailed
from hms_ray.training.batches import TrainingData
from hms_ray.training.stages import Pseudo

NOWHERE = -1  # the part of units that teachers neither learn from nor label


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
