"""What every trial of a study shares: its units, their labels and their folds."""

from dataclasses import dataclass

import numpy as np

from hms_ray.study.oof import OofTable
from hms_ray.tasks import Task


@dataclass(frozen=True)
class Labels:
    """The N units of a study.

    unit_ids, group_ids, votes, folds: (N,); a group, as a patient, lies in one fold
    targets: (N, K)
    """

    unit_ids: np.ndarray
    group_ids: np.ndarray
    targets: np.ndarray
    votes: np.ndarray
    folds: np.ndarray
    task: Task
    data_fingerprint: str
    folds_fingerprint: str

    @property
    def n_folds(self) -> int:
        """The number of folds."""
        return int(self.folds.max()) + 1

    def table(self, probs: np.ndarray, trial: str, space: str, units: np.ndarray | slice = slice(None)) -> OofTable:
        """Return predictions (n, K) of some units, by default all, as an out-of-fold table."""
        return OofTable(
            unit_ids=self.unit_ids[units],
            group_ids=self.group_ids[units],
            folds=self.folds[units],
            votes=self.votes[units],
            targets=self.targets[units],
            probs=probs,
            task=self.task,
            trial=trial,
            space=space,
            data_fingerprint=self.data_fingerprint,
            folds_fingerprint=self.folds_fingerprint,
        )
