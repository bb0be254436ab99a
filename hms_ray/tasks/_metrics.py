"""What predictions are worth beside their score: what they get right at a threshold, and whether shares come true."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_BINS = 10
FIGURES = ("log_loss", "accuracy", "macro_f1", "micro_f1", "macro_auroc", "calibration_error")  # of all classes
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
    micro_f1: F1 of the decisions on all classes, pooled
    auroc (K,): the area under the ROC curve of each class against the rest: how often a unit that is of the class has
        the higher probability of two, the other of which is not; no threshold matters for it
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
    micro_f1: float
    auroc: np.ndarray
    class_calibration: np.ndarray

    @property
    def accuracy(self) -> float:
        """The share of right answers: one answer a unit, or one a unit and class where classes are questions."""
        return float(np.trace(self.confusion, axis1=-2, axis2=-1).mean() / self.units)

    @property
    def macro_f1(self) -> float:
        """The mean F1 of the classes that have one; a class that no unit is of and none is predicted has none."""
        return _mean_of_known(self.f1)

    @property
    def macro_auroc(self) -> float:
        """The mean AUROC of the classes that have one; a class that all units are of, or none, has none."""
        return _mean_of_known(self.auroc)

    @property
    def calibration_error(self) -> float:
        """The mean calibration error of the classes."""
        return float(self.class_calibration.mean())

    def to_dict(self) -> dict[str, Any]:
        """Return what ensemble.json keeps: plain numbers and lists, None for NaN."""
        names = ("precision", "recall", "specificity", "f1", "auroc", "class_calibration")
        rows = {name: [_known(value) for value in getattr(self, name)] for name in names}
        rows = {"units": self.support.tolist(), **rows}
        rows["calibration_error"] = rows.pop("class_calibration")
        return {
            "units": self.units,
            **{name: _known(getattr(self, name)) for name in FIGURES},
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
    return np.bincount(truth * size + predicted, minlength=size * size).reshape(size, size)


def one_against_rest(truth: np.ndarray, predicted: np.ndarray) -> Mapping[str, Any]:
    """Return support, precision, recall, specificity and f1 of each class, each (K,), and micro_f1.

    truth, predicted: bool (N, K)
    """
    right, true, said = (truth & predicted).sum(0), truth.sum(0), predicted.sum(0)
    return {
        "support": true,
        "precision": _shares(right, said),
        "recall": _shares(right, true),
        "specificity": _shares((~truth & ~predicted).sum(0), len(truth) - true),
        "f1": _shares(2 * right, true + said),
        "micro_f1": float(_shares(2 * right.sum(), true.sum() + said.sum())),
    }


def aurocs(truth: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve of each class (K,), NaN where all or none are of it; truth bool (N, K)."""
    return np.array([_auroc(*columns) for columns in zip(truth.T, probs.T, strict=True)])


def threshold(truth: np.ndarray, probs: np.ndarray, usual: float) -> float:
    """Return the threshold above which saying yes has the largest F1; truth bool (N,), probs (N,).

    Candidates lie midway between neighbouring distinct probabilities, so that saying yes to all is none; of those that
    tie, the one nearest to the usual threshold counts. Where all units are of the class, or none, or all probabilities
    are one, it is the usual one.
    """
    values = np.unique(probs)
    if truth.all() or not truth.any() or len(values) == 1:
        return usual
    middle = values[:-1] + np.diff(values) / 2
    candidates = np.where(middle < values[1:], middle, values[:-1])  # between neighbouring numbers there is none
    said, right = (_above(candidates, rows) for rows in (probs, probs[truth]))
    f1 = 2 * right / (said + truth.sum())
    best = candidates[f1 == f1.max()]  # equal fractions are equal numbers: a quotient is rounded once
    return float(best[np.abs(best - usual).argmin()])


def _calibration_error(targets: np.ndarray, probs: np.ndarray) -> float:
    bins = calibration_bins(probs)
    return sum(len(rows) * abs(probs[rows].mean() - targets[rows].mean()) for rows in bins) / len(probs)


def _above(thresholds: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Count the values above each threshold."""
    return len(values) - np.searchsorted(np.sort(values), thresholds, side="right")


def _shares(some: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Return some / of; NaN where there is nothing to take a share of."""
    return np.divide(some, of, out=np.full(np.shape(of), np.nan), where=of > 0)


def _auroc(truth: np.ndarray, probs: np.ndarray) -> float:
    """Return the share of (yes, no) pairs of units in order, ties counting half; truth bool (N,), probs (N,)."""
    _, place = np.unique(probs, return_inverse=True)
    yes, no = (np.bincount(place[mask], minlength=place.max() + 1) for mask in (truth, ~truth))
    pairs = int(yes.sum()) * int(no.sum())
    return float(yes @ (no.cumsum() - no / 2)) / pairs if pairs else float("nan")


def _mean_of_known(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _known(value: float) -> float | None:
    """JSON has no NaN."""
    return None if np.isnan(value) else float(value)
