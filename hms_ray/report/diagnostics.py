"""Where the error of one set of predictions lies: by class, by confidence, by confusion. N units, K classes."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from hms_ray.ensemble.bootstrap import standard_error
from hms_ray.report.tables import Population, in_population
from hms_ray.study.oof import OofTable
from hms_ray.tasks import Metrics, Task, calibration_bins


@dataclass(frozen=True)
class Predictions:
    """Predictions on the study's population only; targets and probs (N, K), groups (N,), scores (N,).

    thresholds: those of each row's fold, chosen on the other folds (N, K); None where there are none
    """

    task: Task
    groups: np.ndarray
    targets: np.ndarray
    probs: np.ndarray
    scores: np.ndarray
    thresholds: np.ndarray | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the K classes."""
        return self.task.classes

    @cached_property
    def metrics(self) -> Metrics:
        """The task's metrics; there must be a unit."""
        return self.task.metrics(self.targets, self.probs)

    @cached_property
    def thresholded(self) -> Metrics | None:
        """The task's metrics at the thresholds, where there are such."""
        return None if self.thresholds is None else self.task.metrics(self.targets, self.probs, self.thresholds)


@dataclass(frozen=True)
class ClassRow:
    """One class; `contribution` of all classes sums to the score.

    units: those with most votes for it, of which `score` is the mean; where each class is a question of its own, those
        of which it holds, and `score` is that of the question, over all units
    precision, recall, specificity, f1, auroc, calibration_error: as the task's `Metrics` define them
    """

    name: str
    units: int
    groups: int
    score: float
    contribution: float
    target_share: float
    predicted_share: float
    calibration_error: float
    precision: float
    recall: float
    specificity: float
    f1: float
    auroc: float


@dataclass(frozen=True)
class ReportRow:
    """One line of a classification report: shares of decisions on a class, or on all; NaN where one has no units."""

    name: str
    precision: float
    recall: float
    specificity: float
    f1: float
    auroc: float
    support: int


def predictions(table: OofTable, min_votes: int, thresholds: dict[str, list[float]] | None = None) -> Predictions:
    """Take the population's rows of a table; thresholds: those (K,) of each fold, by its number as JSON has it."""
    keep = in_population(table, min_votes)
    targets, probs = table.targets[keep], table.probs[keep]
    by_row = None if thresholds is None else np.array([thresholds[str(fold)] for fold in table.folds[keep]])
    return Predictions(table.task, table.group_ids[keep], targets, probs, table.task.row_scores(targets, probs), by_row)


def population(found: Predictions, min_votes: int) -> Population:
    """Say which rows predictions are of, that were taken with this many votes."""
    return Population(len(found.scores), len(np.unique(found.groups)), min_votes)


def by_class(found: Predictions) -> list[ClassRow]:
    """Split the score by class, beside the shares and the metrics of each class; there must be a unit."""
    split = _by_question if found.task.asks_each_class else _by_majority
    return [split(found, k) for k in range(len(found.classes))]


def report(metrics: Metrics) -> list[ReportRow]:
    """Return a line for each class, one of all decisions pooled (micro), and one of the classes' means (macro).

    metrics: of a task that asks each class a question
    """
    shares = np.stack([metrics.precision, metrics.recall, metrics.specificity, metrics.f1, metrics.auroc], axis=1)
    lines = [
        ReportRow(name, *map(float, its), int(support))
        for name, its, support in zip(metrics.classes, shares, metrics.support, strict=True)
    ]
    (right_no, wrong_yes), (wrong_no, right_yes) = metrics.confusion.sum(0)
    pooled = (_share(right_yes, wrong_yes), _share(right_yes, wrong_no), _share(right_no, wrong_yes))
    total = int(metrics.support.sum())
    means = [float(its[~np.isnan(its)].mean()) if (~np.isnan(its)).any() else float("nan") for its in shares.T]
    micro = ReportRow("Micro average", *pooled, metrics.micro_f1, float("nan"), total)
    return [*lines, micro, ReportRow("Macro average", *means, total)]


def calibration(found: Predictions, k: int) -> pd.DataFrame:
    """Return predicted, observed, error, units of class k in its calibration bins, by predicted share.

    predicted, observed: mean predicted and mean target share; error: standard error of observed, by patient
    """
    bins = [_bin(found, k, rows) for rows in calibration_bins(found.probs[:, k])]
    return pd.DataFrame(bins, columns=["predicted", "observed", "error", "units"])


def _by_majority(found: Predictions, k: int) -> ClassRow:
    own = found.task.decide(found.targets)[:, k]
    score = float(found.scores[own].mean()) if own.any() else float("nan")
    return _class_row(found, k, own, score, float(found.scores[own].sum() / len(own)))


def _by_question(found: Predictions, k: int) -> ClassRow:
    alone = replace(found.task, classes=(found.classes[k],))
    score = alone.score(found.targets[:, [k]], found.probs[:, [k]])
    return _class_row(found, k, found.task.decide(found.targets)[:, k], score, score / len(found.classes))


def _class_row(found: Predictions, k: int, own: np.ndarray, score: float, contribution: float) -> ClassRow:
    of_classes = found.metrics
    return ClassRow(
        name=found.classes[k],
        units=int(own.sum()),
        groups=len(np.unique(found.groups[own])),
        score=score,
        contribution=contribution,
        target_share=float(found.targets[:, k].mean()),
        predicted_share=float(found.probs[:, k].mean()),
        calibration_error=float(of_classes.class_calibration[k]),
        precision=float(of_classes.precision[k]),
        recall=float(of_classes.recall[k]),
        specificity=float(of_classes.specificity[k]),
        f1=float(of_classes.f1[k]),
        auroc=float(of_classes.auroc[k]),
    )


def _share(some: int, others: int) -> float:
    return float(some / (some + others)) if some + others else float("nan")


def _bin(found: Predictions, k: int, rows: np.ndarray) -> tuple[float, float, float, int]:
    observed = pd.Series(found.targets[rows, k])
    return (
        float(found.probs[rows, k].mean()),
        float(observed.mean()),
        standard_error(np.asarray(observed), found.groups[rows]),
        len(rows),
    )
