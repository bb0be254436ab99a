"""What predictions are worth beside their score: what they get right at a threshold, and whether shares come true."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_BINS = 10
ROWS_A_BIN = 30  # the mean of fewer rows than this in a calibration bin says nothing


@dataclass(frozen=True)
class Metrics:
    """Metrics of predictions of N units in K classes; NaN where one is undefined.

    units: N, all of which every metric is of; ties: those whose targets leave open what is true, several classes with
        most votes or a label of one half, which `Task.decide` settles
    score: as of the task; log_loss: cross-entropy with the targets in nats, the score plus the targets' own entropy
    confusion: counts, true answers by predicted ones; (K, K) where each unit is of one class, and (K, 2, 2), no before
        yes, where each class is a question of its own
    support (K,): units that are of the class; of these, recall is the share predicted so, and of those that are not of
        it specificity the share not predicted so; precision: the share of those predicted so that are of the class; f1:
        the harmonic mean of precision and recall; float64 (K,)
    class_calibration (K,): the calibration error of each class, as `calibration_errors` defines it
    """

    classes: tuple[str, ...]
    units: int
    ties: int
    score: float
    log_loss: float
    confusion: np.ndarray
    support: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    specificity: np.ndarray
    f1: np.ndarray
    class_calibration: np.ndarray

    @property
    def accuracy(self) -> float:
        """The share of right answers: one answer a unit, or one a unit and class where classes are questions."""
        return float(np.trace(self.confusion, axis1=-2, axis2=-1).mean() / self.units)

    @property
    def macro_f1(self) -> float:
        """The mean F1 of the classes that have one; a class that no unit is of and none is predicted has none."""
        known = self.f1[~np.isnan(self.f1)]
        return float(known.mean()) if len(known) else float("nan")

    @property
    def calibration_error(self) -> float:
        """The mean calibration error of the classes."""
        return float(self.class_calibration.mean())

    def to_dict(self) -> dict[str, Any]:
        """Return what ensemble.json keeps: plain numbers and lists, None for NaN."""
        names = ("precision", "recall", "specificity", "f1", "class_calibration")
        rows = {name: [_known(value) for value in getattr(self, name)] for name in names}
        rows = {"units": self.support.tolist(), **rows}
        rows["calibration_error"] = rows.pop("class_calibration")
        return {
            "units": self.units,
            **{name: _known(getattr(self, name)) for name in ("log_loss", "accuracy", "macro_f1", "calibration_error")},
            "per_class": {c: {name: rows[name][k] for name in rows} for k, c in enumerate(self.classes)},
            "confusion": self.confusion.tolist(),
        }


def calibration_bins(probs: np.ndarray) -> list[np.ndarray]:
    """Split predictions (N,) of one class into bins of equally many rows, give or take one, by predicted share.

    Returns the rows of each bin, the smallest shares first: MAX_BINS bins, or so few that each holds ROWS_A_BIN rows.
    """
    order = np.argsort(probs, kind="stable")
    return np.array_split(order, np.clip(len(order) // ROWS_A_BIN, 1, MAX_BINS))


def calibration_errors(targets: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Return the expected calibration error of each class (K,); targets and probs (N, K), N at least 1.

    It is the sum over `calibration_bins` of |mean prediction - mean target|, each weighted by its share of the rows.
    Soft targets count as they are. Chance alone keeps it above 0: a bin's mean target scatters about the truth.
    """
    return np.array([_calibration_error(*columns) for columns in zip(targets.T, probs.T, strict=True)])


def confusion(truth: np.ndarray, predicted: np.ndarray, size: int) -> np.ndarray:
    """Return counts (size, size) of answers (N,) that are numbers below `size`: the true by the predicted."""
    from sklearn.metrics import confusion_matrix  # here and not above: it takes a second, and few ask for metrics

    return confusion_matrix(truth, predicted, labels=np.arange(size))


def one_against_rest(truth: np.ndarray, predicted: np.ndarray) -> Mapping[str, np.ndarray]:
    """Return support, precision, recall, specificity and f1 of each class, each (K,); truth and predicted (N, K)."""
    from sklearn.metrics import precision_recall_fscore_support, recall_score

    found = []
    for true, said in zip(truth.T.astype(int), predicted.T.astype(int), strict=True):
        precision, recall, f1, _ = precision_recall_fscore_support(true, said, average="binary", zero_division=np.nan)
        specificity = recall_score(true, said, pos_label=0, zero_division=np.nan)
        found.append((precision, recall, specificity, f1))
    names = ("precision", "recall", "specificity", "f1")
    return {"support": truth.sum(0), **dict(zip(names, np.array(found, dtype=float).T, strict=True))}


def _calibration_error(targets: np.ndarray, probs: np.ndarray) -> float:
    bins = calibration_bins(probs)
    return sum(len(rows) * abs(probs[rows].mean() - targets[rows].mean()) for rows in bins) / len(probs)


def _known(value: float) -> float | None:
    """JSON has no NaN."""
    return None if np.isnan(value) else float(value)
