"""Quality measures of recordings, computed as they are read; bad examples get less loss weight, but are scored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pydantic import Field

from hms_ray.core.params import Params

if TYPE_CHECKING:
    from hms_ray.core.recordings import RecordingKind
    from hms_ray.datasets import Examples, Windows

MEASURES = ("nan", "flat", "outliers", "missing")
Measures = dict[str, str | float]  # kind, name, seconds, and the measures


class QualityParams(Params):
    """Limits of the measures; an example beyond any of them gets less loss weight, or none.

    By default every recording is within the limits.
    """

    nan: float = Field(1.0, ge=0, le=1, description="share of values that are missing")
    flat: float = Field(1.0, ge=0, le=1, description="share of channels that are constant or empty")
    outliers: float = Field(1.0, ge=0, le=1, description="share of values beyond the kind's limit")
    missing: float = Field(1.0, ge=0, le=1, description="share of steps that are empty in all channels")
    weight: float = Field(
        0.0, ge=0, lt=1, description="factor of the loss weight of examples beyond a limit; 0: not trained on"
    )


def measure(kind: RecordingKind, name: str, recording: np.ndarray) -> Measures:
    """Return the measures of a recording (channels, steps).

    nan: share of its values that are missing
    flat: share of its channels that are constant or empty
    outliers: share of its values beyond the kind's limit
    missing: share of its steps that are empty in all channels, or that the window needs beyond its end
    """
    low, high = recording.min(1, initial=np.inf), recording.max(1, initial=-np.inf)
    measures: Measures = {"kind": kind.name, "name": name, "seconds": recording.shape[1] / kind.rate_hz}
    steps = max(recording.shape[1], kind.steps)
    if np.isfinite([low, high]).all() and max(-low.min(), high.max()) <= kind.outlier:  # true of most: no second pass
        flat = float((low >= high).mean())
        return measures | {"nan": 0.0, "flat": flat, "outliers": 0.0, "missing": 1 - recording.shape[1] / steps}
    known = np.isfinite(recording)
    low = np.where(known, recording, np.inf).min(1, initial=np.inf)
    high = np.where(known, recording, -np.inf).max(1, initial=-np.inf)
    return measures | {
        "nan": float(1 - known.mean()) if recording.size else 1.0,
        "flat": float((low >= high).mean()),
        "outliers": float((np.abs(recording) > kind.outlier).mean()) if recording.size else 0.0,
        "missing": float(1 - known.any(0).sum() / steps),
    }


def of_examples(table: pd.DataFrame, windows: Mapping[str, Windows]) -> pd.DataFrame:
    """Return the measures of each example (E rows), the worst of its recordings.

    table: kind, name and measures of each recording
    """
    values = [
        rows.set_index("name").loc[windows[str(kind)].names, list(MEASURES)].to_numpy()
        for kind, rows in table.groupby("kind")
    ]
    worst = np.maximum.reduce(values) if values else None
    return pd.DataFrame(worst, columns=list(MEASURES))


def of_units(examples: Examples, measures: pd.DataFrame) -> pd.DataFrame:
    """Return the measures of each unit (N rows), the worst of its examples."""
    return measures.groupby(examples.unit).max()


def trust(measures: pd.DataFrame, params: QualityParams) -> np.ndarray:
    """Return the factor of each row's loss weight: 1, or `params.weight` where a measure exceeds its limit."""
    good = np.all([measures[name].to_numpy() <= getattr(params, name) for name in MEASURES], axis=0)
    return np.where(good, 1.0, params.weight)
