"""The labels of a study, with the examples and the windows of recordings that its folds are trained on."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from hms_ray.datasets import Dataset, Examples, Windows
from hms_ray.study import folds
from hms_ray.study.labels import Labels


@dataclass(frozen=True)
class TrainingLabels(Labels):
    """Labels of units, and of which recordings and windows each unit's examples are made."""

    examples: Examples
    windows: Mapping[str, Windows]

    @classmethod
    def of(cls, dataset: Dataset, table: pd.DataFrame) -> "TrainingLabels":
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
