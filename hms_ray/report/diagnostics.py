"""The error of one set of predictions, by class, by confidence and by confusion. N units, K classes."""

from collections.abc import Mapping, Sequence
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
    """Predictions for the study's population; targets and probs (N, K), groups (N,), scores (N,).

    thresholds: of each row's fold, chosen on the other folds (N, K); None if there are none
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
        """The task's metrics at the thresholds, if there are any."""
        return None if self.thresholds is None else self.task.metrics(self.targets, self.probs, self.thresholds)


@dataclass(frozen=True)
class ClassRow:
    """One class; the contributions of all classes sum to the score.

    units: number of units with most votes for the class, whose mean score is `score`; if each class is a question of
        its
        own, number of units of the class, and `score` is the score of the question over all units
    precision, recall, specificity, f1, auroc, calibration_error: as in `tasks.Metrics`
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
    """One row of a classification report: shares of decisions on a class, or on all; NaN without units."""

    name: str
    precision: float
    recall: float
    specificity: float
    f1: float
    auroc: float
    support: int


def predictions(
    table: OofTable, min_votes: int, thresholds: Mapping[str, Sequence[float]] | None = None
) -> Predictions:
    """Return the predictions for the population; thresholds: (K,) by fold, whose number is a string as in JSON."""
    keep = in_population(table, min_votes)
    targets, probs = table.targets[keep], table.probs[keep]
    by_row = None if thresholds is None else np.array([thresholds[str(fold)] for fold in table.folds[keep]])
    return Predictions(table.task, table.group_ids[keep], targets, probs, table.task.row_scores(targets, probs), by_row)


def population(predictions: Predictions, min_votes: int) -> Population:
    """Return the population of predictions that were taken with this number of votes."""
    return Population(len(predictions.scores), len(np.unique(predictions.groups)), min_votes)


def by_class(predictions: Predictions) -> list[ClassRow]:
    """Split the score by class, with the shares and the metrics of each class; there must be a unit."""
    task, metrics, scores = predictions.task, predictions.metrics, predictions.scores
    members, rows = task.decide(predictions.targets), []
    for k, name in enumerate(predictions.classes):
        units = members[:, k]
        if task.asks_each_class:
            alone = replace(task, classes=(name,))
            score = alone.score(predictions.targets[:, [k]], predictions.probs[:, [k]])
            contribution = score / len(predictions.classes)
        else:
            score = float(scores[units].mean()) if units.any() else float("nan")
            contribution = float(scores[units].sum() / len(units))
        rows.append(
            ClassRow(
                name=name,
                units=int(units.sum()),
                groups=len(np.unique(predictions.groups[units])),
                score=score,
                contribution=contribution,
                target_share=float(predictions.targets[:, k].mean()),
                predicted_share=float(predictions.probs[:, k].mean()),
                calibration_error=float(metrics.class_calibration[k]),
                precision=float(metrics.precision[k]),
                recall=float(metrics.recall[k]),
                specificity=float(metrics.specificity[k]),
                f1=float(metrics.f1[k]),
                auroc=float(metrics.auroc[k]),
            )
        )
    return rows


def report(metrics: Metrics) -> list[ReportRow]:
    """Return a row for each class, one of all decisions pooled (micro), and one of the means over classes (macro).

    metrics: of a task whose classes are questions of their own
    """
    shares = np.stack([metrics.precision, metrics.recall, metrics.specificity, metrics.f1, metrics.auroc], axis=1)
    means = [float(x[~np.isnan(x)].mean()) if (~np.isnan(x)).any() else float("nan") for x in shares.T]
    (true_no, false_yes), (false_no, true_yes) = metrics.confusion.sum(0).tolist()
    pooled = [
        part / (part + rest) if part + rest else float("nan")
        for part, rest in ((true_yes, false_yes), (true_yes, false_no), (true_no, false_yes))
    ]
    total = int(metrics.support.sum())
    rows: list[tuple[str, list[float], int]] = [
        *zip(metrics.classes, shares.tolist(), metrics.support.tolist(), strict=True),
        ("Micro average", [*pooled, metrics.micro_f1, float("nan")], total),
        ("Macro average", means, total),
    ]
    return [ReportRow(name, p, r, s, f1, auroc, support) for name, (p, r, s, f1, auroc), support in rows]


def calibration(predictions: Predictions, k: int) -> pd.DataFrame:
    """Return predicted, observed, error, units of class k in its calibration bins, by predicted share.

    predicted, observed: mean predicted and mean target share; error: standard error of observed, by patient
    """
    bins = []
    for rows in calibration_bins(predictions.probs[:, k]):
        observed = predictions.targets[rows, k]
        error = standard_error(observed, predictions.groups[rows])
        bins.append((float(predictions.probs[rows, k].mean()), float(observed.mean()), error, len(rows)))
    return pd.DataFrame(bins, columns=["predicted", "observed", "error", "units"])
