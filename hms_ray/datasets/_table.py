"""What a dataset hands over: its task, its units, and a way to read their recordings."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from hms_ray.errors import ConfigError
from hms_ray.tasks import Task


@dataclass(frozen=True)
class Dataset(ABC):
    """Units to be scored and where their recordings lie.

    units: one row a unit: unit_id (str), group_id (str, what must not cross folds), votes (int, how many experts),
        stratum (str, what folds are balanced by), and columns of the dataset's own
    targets: (N, K) float64, or None for data without labels
    fingerprint: changes whenever the labels, or the size of a recording's file, change
    """

    KINDS: ClassVar[tuple[str, ...]] = ()

    name: str
    root: Path
    task: Task
    units: pd.DataFrame
    targets: np.ndarray | None
    fingerprint: str

    @abstractmethod
    def files(self, kind: str) -> list[Path]:
        """Return the file of each unit's recording of that kind, in the order of the units."""

    @abstractmethod
    def recording(self, kind: str, i: int) -> np.ndarray:
        """Return unit i's recording of that kind, float32; gaps are NaN."""

    def require(self, kind: str, who: str) -> None:
        """Raise ConfigError unless the dataset has recordings of that kind."""
        if kind not in self.KINDS:
            raise ConfigError(
                f"{who} needs recordings of kind {kind!r}; dataset {self.name!r} has {', '.join(self.KINDS)}"
            )

    def identity(self) -> dict[str, Any]:
        """Return what study.json keeps of the data."""
        return {
            "name": self.name,
            "root": str(self.root),
            "fingerprint": self.fingerprint,
            "units": len(self.units),
            "groups": int(self.units["group_id"].nunique()),
        }
