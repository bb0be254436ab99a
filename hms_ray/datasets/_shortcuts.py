"""Shortcuts: what tells a class apart without any recording, so that the score of that class says less about them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from hms_ray.tasks._metrics import aurocs

LEAST = 0.75  # AUROC from which on it is worth a word
PLACE = "place in the table"


def found(truth: np.ndarray, classes: Sequence[str], numbers: pd.DataFrame) -> list[dict[str, Any]]:
    """Return `class`, `by` and `auroc` of whatever tells a class apart by itself, the surest of each class first.

    truth: bool (N, K); numbers: N rows, a column each, NaN where one is not known, which counts as their mean. A unit's
    place in the table is a number, too: who was recorded last was perhaps recorded otherwise.
    """
    columns = numbers.fillna(numbers.mean()).fillna(0.0).assign(**{PLACE: np.arange(len(numbers))})
    by = {name: np.repeat(column.to_numpy()[:, None], len(classes), 1) for name, column in columns.items()}
    areas = {name: aurocs(truth, values) for name, values in by.items()}
    either_way = pd.DataFrame({name: np.maximum(area, 1 - area) for name, area in areas.items()}, index=list(classes))
    return [
        {"class": name, "by": number, "auroc": float(area)}
        for name, row in either_way.iterrows()
        for number, area in row[row >= LEAST].sort_values(ascending=False, kind="stable").items()
    ]
