"""Members to measure on: real out-of-fold files, made-up ones, and more of either by jittering."""

import argparse
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hms_ray.core.seeds import stream
from hms_ray.oof_import import import_foreign
from hms_ray.study.folder import StudyFolder
from hms_ray.study.oof import OofTable, Stack, population, stack


@dataclass(frozen=True)
class Members:
    """Scored units of M members: probs (N, M, K), targets (N, K), groups (N,), the patients."""

    probs: np.ndarray
    targets: np.ndarray
    groups: np.ndarray

    def of(self, patients: np.ndarray) -> "Members":
        """Return the units of these patients."""
        inside = np.isin(self.groups, patients)
        return Members(self.probs[inside], self.targets[inside], self.groups[inside])


def add_files(parser: argparse.ArgumentParser) -> None:
    """Add --oof; it defaults to the folder oof of $HMS_RAY_REAL."""
    root = os.environ.get("HMS_RAY_REAL")
    real = sorted((Path(root) / "oof").glob("*.parquet")) if root else []
    parser.add_argument("--oof", nargs="*", type=Path, default=real, help="labels and prediction files")


def read(paths: list[Path]) -> Stack:
    """Read foreign files as a study would."""
    with tempfile.TemporaryDirectory() as root:
        folder = StudyFolder(Path(root) / "bench")
        import_foreign(paths, folder)
        return stack([OofTable.read(folder.oof(trial)) for trial in folder.oof_ids()])


def read_scored(paths: list[Path], min_votes: int) -> Members:
    """Read the units of foreign files that have so many votes."""
    found = read(paths)
    scored = population(found.votes, min_votes)
    groups = np.unique(found.group_ids[scored], return_inverse=True)[1]
    return Members(found.probs[scored], found.targets[scored], groups)


def simulated(n_units: int, n_members: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return members (N, M, 6) of unequal noise around a truth, and the shares (N, 6) of 10 votes drawn from it."""
    rng = stream(seed, "bench", "ensemble")
    logits = rng.normal(0, 2, (n_units, 1, 6))
    noise = rng.uniform(0.8, 1.6, (n_members, 1)) * rng.normal(size=(n_units, n_members, 6))
    truth, probs = softmax(logits[:, 0]), softmax(logits + noise)
    return probs, rng.multinomial(10, truth) / 10


def clustered(
    n_patients: int, n_members: int, rng: np.random.Generator, n_classes: int = 6
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return members (N, M, K) of unequal noise, targets of 3 to 20 votes (N, K), and patients (N,).

    Patients have unequal numbers of units, and a hardness that these share.
    """
    groups = np.repeat(np.arange(n_patients), 1 + rng.geometric(0.25, n_patients))
    hardness = rng.gamma(2, 0.5, n_patients)[groups]
    logits = rng.normal(0, 1.5, (n_patients, n_classes))[groups] + rng.normal(0, 1, (len(groups), n_classes))
    votes = rng.integers(3, 21, len(groups))
    targets = rng.multinomial(votes, softmax(logits)) / votes[:, None]
    noise = rng.normal(size=(len(groups), n_members, n_classes)) * np.linspace(0.6, 1.4, n_members)[:, None]
    return softmax(logits[:, None] + noise * hardness[:, None, None]), targets, groups


def jittered(probs: np.ndarray, n_members: int, seed: int) -> np.ndarray:
    """Return n_members blends of a few members each, their log-probabilities disturbed: (N, M, K) -> (N, M', K)."""
    rng = stream(seed, "bench", "jittered")
    mixed = rng.dirichlet(np.full(probs.shape[1], 0.3), n_members) @ probs
    return softmax(np.log(mixed) + rng.normal(0, 0.3, mixed.shape))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return distributions over the last axis."""
    odds = np.exp(logits)
    return odds / odds.sum(-1, keepdims=True)
