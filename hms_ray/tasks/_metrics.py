"""Metrics of predictions beside the score: of decisions at a threshold, of rankings, and of calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_BINS = 10
FIGURES = ("log_loss", "accuracy", "macro_f1", "micro_f1", "macro_auroc", "calibration_error")  # of all classes
ROWS_A_BIN = 30  # least number of rows in a calibration bin


@dataclass(frozen=True)
class Metrics:
    """Metrics of predictions of N units in K classes; NaN where one is undefined.

    units: N; ties: units whose targets have several classes with most votes, or a label of one half
    score: of the task; log_loss: cross-entropy with the targets in nats, the score plus the entropy of the targets
    confusion: counts of true by predicted answers; (K, K) if each unit has one class, (K, 2, 2), no before yes, if each
        class is a question
    support (K,): number of units of the class; recall: share of these that are predicted; specificity: share of other
        units that are not predicted; precision: share of predicted units that are of the class; f1: harmonic mean of
        precision and recall; float64 (K,)
    micro_f1: F1 of the pooled decisions on all classes
    auroc (K,): area under the ROC curve of each class against the rest, which depends on no threshold
    class_calibration (K,): calibration error of each class, see `calibration_errors`
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
        """The share of correct answers; one answer per unit, or one per unit and class if classes are questions."""
        return float(np.trace(self.confusion, axis1=-2, axis2=-1).mean() / self.units)

    @property
    def macro_f1(self) -> float:
        """The mean F1 of the classes; a class that is neither true nor predicted for any unit has none."""
        return _mean_of_known(self.f1)

    @property
    def macro_auroc(self) -> float:
        """The mean AUROC of the classes; a class of all units, or of none, has none."""
        return _mean_of_known(self.auroc)

    @property
    def calibration_error(self) -> float:
        """The mean calibration error of the classes."""
        return float(self.class_calibration.mean())

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ensemble.json: plain numbers and lists, None for NaN."""
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
    """Split predictions (N,) of one class by predicted share into bins whose sizes differ by one row at most.

    Returns the rows of each bin, smallest shares first: MAX_BINS bins, or fewer of at least ROWS_A_BIN rows.
    """
    order = np.argsort(probs, kind="stable")
    return np.array_split(order, np.clip(len(order) // ROWS_A_BIN, 1, MAX_BINS))


def calibration_errors(targets: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Return the expected calibration error of each class (K,); targets and probs (N, K), N at least 1.

    It is the sum over `calibration_bins` of |mean prediction - mean target|, each weighted by its share of the rows.
    Soft targets are used unchanged. Random variation of a bin's mean target keeps it above 0.
    """
    errors = []
    for truth, p in zip(targets.T, probs.T, strict=True):
        gaps = (len(rows) * abs(p[rows].mean() - truth[rows].mean()) for rows in calibration_bins(p))
        errors.append(sum(gaps) / len(p))
    return np.array(errors)


def confusion(truth: np.ndarray, predicted: np.ndarray, size: int) -> np.ndarray:
    """Return counts (size, size) of true by predicted answers (N,), which are numbers below `size`."""
    return np.bincount(truth * size + predicted, minlength=size * size).reshape(size, size)


def one_against_rest(truth: np.ndarray, predicted: np.ndarray) -> Mapping[str, np.ndarray]:
    """Return support, precision, recall, specificity and f1 of each class, each (K,); truth, predicted: bool (N, K)."""
    correct, true, positive = (truth & predicted).sum(0), truth.sum(0), predicted.sum(0)
    return {
        "support": true,
        "precision": _shares(correct, positive),
        "recall": _shares(correct, true),
        "specificity": _shares((~truth & ~predicted).sum(0), len(truth) - true),
        "f1": _shares(2 * correct, true + positive),
    }


def micro_f1(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Return the F1 of the pooled decisions on all classes; truth, predicted: bool (N, K)."""
    return float(_shares(2 * (truth & predicted).sum(), truth.sum() + predicted.sum()))


def aurocs(truth: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve of each class (K,), NaN if all or no units are of it; truth bool (N, K).

    It is the share of pairs of a unit of the class and another unit in which the first has the larger probability; ties
    count one half.
    """
    areas = []
    for true, p in zip(truth.T, probs.T, strict=True):
        _, rank = np.unique(p, return_inverse=True)
        yes, no = (np.bincount(rank[mask], minlength=rank.max() + 1) for mask in (true, ~true))
        pairs = int(yes.sum()) * int(no.sum())
        areas.append(float(yes @ (no.cumsum() - no / 2)) / pairs if pairs else float("nan"))
    return np.array(areas)


def threshold(truth: np.ndarray, probs: np.ndarray, default: float) -> float:
    """Return the threshold with the largest F1; truth bool (N,), probs (N,).

    Candidates lie midway between neighbouring distinct probabilities, so that "yes" to all units is not a candidate; of
    a tie, the one nearest to the default is chosen. The default is returned if all units are of the class, or none, or
    all probabilities are equal.
    """
    values = np.unique(probs)
    if truth.all() or not truth.any() or len(values) == 1:
        return default
    middle = values[:-1] + np.diff(values) / 2
    candidates = np.where(middle < values[1:], middle, values[:-1])  # no number lies between adjacent floats
    # Counts of values above each candidate: all of them, and those of the class.
    positive, correct = (len(p) - np.searchsorted(np.sort(p), candidates, side="right") for p in (probs, probs[truth]))
    f1 = 2 * correct / (positive + truth.sum())
    best = candidates[f1 == f1.max()]  # equal fractions are equal numbers: a quotient is rounded once
    return float(best[np.abs(best - default).argmin()])


def _shares(counts: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Return counts / totals; NaN where a total is 0."""
    return np.divide(counts, totals, out=np.full(np.shape(totals), np.nan), where=totals > 0)


def _mean_of_known(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _known(value: float) -> float | None:
    """JSON has no NaN."""
    return None if np.isnan(value) else float(value)
