"""The rows that an ensemble is fitted and scored on: predictions of the members, targets, folds and groups."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hms_ray.ensemble import bootstrap
from hms_ray.tasks import CLIP, Task


@dataclass(frozen=True)
class Rows:
    """N units, M members; predictions and targets in the task's outcomes, a distribution on the last axis.

    probs (N, M, ..., K); targets (N, ..., K); folds, groups (N,)
    weight (N,): of each unit; 0 for units that are predicted, but neither fitted on nor scored
    names, families (M,): of the members; members of one family are of one kind, such as one space
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
        """The number of members."""
        return int(self.probs.shape[1])

    @cached_property
    def scored(self) -> np.ndarray:
        """The mask (N,) of the scored units."""
        return self.weight > 0

    @cached_property
    def fold_numbers(self) -> tuple[int, ...]:
        """All folds, also those without scored units."""
        return tuple(map(int, np.unique(self.folds)))

    @property
    def n_units(self) -> int:
        """The number of scored units."""
        return int(self.scored.sum())

    @property
    def n_groups(self) -> int:
        """The number of groups, such as patients, of the scored units."""
        return len(np.unique(self.groups[self.scored]))

    def effective_groups(self, units: np.ndarray) -> float:
        """Return the effective number of groups of these units."""
        sizes = np.bincount(np.unique(self.groups[units], return_inverse=True)[1], self.weight[units])
        return bootstrap.effective_groups(sizes)

    def outside(self, folds: frozenset[int]) -> np.ndarray:
        """Return the mask (N,) of the scored units of other folds."""
        return self.scored & ~np.isin(self.folds, list(folds))

    def losses(self, pooled: np.ndarray, mask: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return the losses (n,) of pooled predictions (n, ..., K) for the units of a mask, or of positions."""
        return self.task.row_scores(self.task.from_outcomes(self.targets[mask]), self.task.from_outcomes(pooled))

    def score(self, pooled: np.ndarray) -> float:
        """Return the weighted mean score of predictions (N, ..., K) over the scored units."""
        return float(np.average(self.losses(pooled[self.scored], self.scored), weights=self.weight[self.scored]))

    def contradicted(self) -> np.ndarray:
        """Count for each member (M,) the scored predictions of 0 whose target is above 0; scores clip them."""
        asked = (self.targets.T * self.weight).T > 0
        return np.array([((self.probs[:, m] < CLIP) & asked).sum() for m in range(self.n_members)])
