"""What an ensemble is fitted and scored on: members' predictions and targets of all units, and whose they are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hms_ray.ensemble import bootstrap
from hms_ray.ensemble.terms import CLIP
from hms_ray.tasks import Task


@dataclass(frozen=True)
class Rows:
    """N units, M members; predictions and targets in the task's outcomes, a distribution on the last axis.

    probs (N, M, ..., K); targets (N, ..., K); folds, groups (N,)
    weight (N,): what each unit counts, 0 for those that are predicted but neither fitted on nor scored
    names, families (M,): the members' names, and of which kind each is
    """

    task: Task
    probs: np.ndarray
    targets: np.ndarray
    folds: np.ndarray
    groups: np.ndarray
    weight: np.ndarray
    names: tuple[str, ...]
    families: tuple[str, ...]

    @property
    def n_members(self) -> int:
        """How many members there are."""
        return self.probs.shape[1]

    @cached_property
    def scored(self) -> np.ndarray:
        """The mask (N,) of the units that count."""
        return self.weight > 0

    @cached_property
    def fold_numbers(self) -> tuple[int, ...]:
        """Every fold that occurs, scored or not."""
        return tuple(map(int, np.unique(self.folds)))

    @property
    def n_units(self) -> int:
        """How many units are scored."""
        return int(self.scored.sum())

    @property
    def n_groups(self) -> int:
        """How many groups, patients, the scored units are of."""
        return len(np.unique(self.groups[self.scored]))

    def worth(self, units: np.ndarray) -> float:
        """Return how many groups of equal weight know as much as those of these units."""
        sizes = np.bincount(np.unique(self.groups[units], return_inverse=True)[1], self.weight[units])
        return bootstrap.worth(sizes)

    def outside(self, folds: frozenset[int]) -> np.ndarray:
        """Return the mask (N,) of the scored units of other folds."""
        return self.scored & ~np.isin(self.folds, list(folds))

    def losses(self, pooled: np.ndarray, mask: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return the scores of the units of a mask, or of positions, whose pooled predictions (n, ..., K) are given."""
        return self.task.row_scores(self.task.from_outcomes(self.targets[mask]), self.task.from_outcomes(pooled))

    def score(self, pooled: np.ndarray) -> float:
        """Return the weighted mean score of predictions (N, ..., K) over the scored units."""
        return float(np.average(self.losses(pooled[self.scored], self.scored), weights=self.weight[self.scored]))

    def contradicted(self) -> np.ndarray:
        """Count for each member (M,) the scored predictions of 0 or 1 that targets disagree with; scores clip them."""
        asked = (self.targets.T * self.weight).T > 0
        return np.array([((self.probs[:, m] < CLIP) & asked).sum() for m in range(self.n_members)])
