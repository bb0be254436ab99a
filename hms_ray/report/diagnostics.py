"""Where the error of one set of predictions lies: by class, by confidence, by confusion. N units, K classes."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from hms_ray.oof import OofTable
from hms_ray.report.tables import in_population

MAX_BINS = 10
ROWS_A_BIN = 30  # fewer rows than this in a calibration bin say nothing


@dataclass(frozen=True)
class Predictions:
    """Predictions on the study's population only; targets and probs (N, K), groups (N,), scores (N,)."""

    classes: tuple[str, ...]
    groups: np.ndarray
    targets: np.ndarray
    probs: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class ClassRow:
    """One class. Units belong to the class with most votes; `contribution` of all classes sums to the score."""

    name: str
    units: int
    groups: int
    score: float
    contribution: float
    target_share: float
    predicted_share: float
    calibration_error: float


def predictions(table: OofTable, min_votes: int) -> Predictions:
    """Take the population's rows of a table."""
    keep = in_population(table, min_votes)
    targets, probs = table.targets[keep], table.probs[keep]
    return Predictions(table.task.classes, table.group_ids[keep], targets, probs, table.task.row_scores(targets, probs))


def cluster_error(values: pd.Series, groups: pd.Series) -> float:
    """Return the standard error of the mean of `values` when rows of one group vary together; NaN below two groups.

    Sums of deviations by group are independent; with G groups the variance of the mean of n rows is
    G / (G - 1) * sum_g(sum_i(v_i - mean))^2 / n^2 (the sandwich estimator of a mean).
    """
    sums = (values - values.mean()).groupby(np.asarray(groups)).sum()
    if len(sums) < 2:
        return float("nan")
    return float(np.sqrt(len(sums) / (len(sums) - 1) * (sums**2).sum()) / len(values))


def by_class(found: Predictions) -> list[ClassRow]:
    """Split the score by majority class, beside the mean target and mean predicted share of each class."""
    majority = found.targets.argmax(1)
    return [_class_row(found, k, majority == k) for k in range(len(found.classes))]


def confusion(found: Predictions) -> np.ndarray:
    """Return counts (K, K): rows are the majority class of the votes, columns the most probable class."""
    size = len(found.classes)
    flat = found.targets.argmax(1) * size + found.probs.argmax(1)
    return np.bincount(flat, minlength=size * size).reshape(size, size)


def ties(found: Predictions) -> int:
    """Return how many units have several classes with equally many votes; they count for the first of them."""
    top = found.targets.max(1, keepdims=True)
    return int((np.isclose(found.targets, top).sum(1) > 1).sum())


def calibration(found: Predictions, k: int) -> pd.DataFrame:
    """Return predicted, observed, error, units of class k in bins of equally many rows, by predicted share.

    predicted, observed: mean predicted and mean target share; error: standard error of observed, by patient
    """
    order = np.argsort(found.probs[:, k], kind="stable")
    bins = np.array_split(order, np.clip(len(order) // ROWS_A_BIN, 1, MAX_BINS)) if len(order) else []
    return pd.DataFrame([_bin(found, k, rows) for rows in bins], columns=["predicted", "observed", "error", "units"])


def _class_row(found: Predictions, k: int, rows: np.ndarray) -> ClassRow:
    bins = calibration(found, k)
    gap = (bins["predicted"] - bins["observed"]).abs()
    total = len(found.scores)
    return ClassRow(
        name=found.classes[k],
        units=int(rows.sum()),
        groups=len(np.unique(found.groups[rows])),
        score=float(found.scores[rows].mean()) if rows.any() else float("nan"),
        contribution=float(found.scores[rows].sum() / total) if total else float("nan"),
        target_share=float(found.targets[:, k].mean()) if total else float("nan"),
        predicted_share=float(found.probs[:, k].mean()) if total else float("nan"),
        calibration_error=float((gap * bins["units"]).sum() / total) if total else float("nan"),
    )


def _bin(found: Predictions, k: int, rows: np.ndarray) -> tuple[float, float, float, int]:
    observed = pd.Series(found.targets[rows, k])
    return (
        float(found.probs[rows, k].mean()),
        float(observed.mean()),
        cluster_error(observed, pd.Series(found.groups[rows])),
        len(rows),
    )
