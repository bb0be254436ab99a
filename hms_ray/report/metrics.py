"""Rows of the report's metrics section, and the score by number of votes."""

import math
from dataclasses import dataclass

from hms_ray.ensemble.bootstrap import Estimate
from hms_ray.report import diagnostics, words
from hms_ray.report.diagnostics import Predictions
from hms_ray.report.summary import EnsembleSummary
from hms_ray.report.tables import Population, Scored, Study
from hms_ray.study.folder import StudyFolder
from hms_ray.study.oof import OofTable
from hms_ray.tasks import Metrics

MOST_COMPARED = 10  # tables by metric; the section of finalists has all tables

RIGHT_CLASS = "Share of units whose most probable class has most votes; of tied classes, the first."
RIGHT_LABELS = "Share of right answers, mean over classes: a class is predicted if its probability is above 0.5."
MACRO_F1 = "Mean F1 of the classes; small and large classes count the same."
MICRO_F1 = "F1 of all answers pooled; frequent classes count more."
MACRO_AUROC = (
    "Mean over classes of the area under the ROC curve: of a unit of the class and another unit, the probability that "
    "the first has the higher prediction. 0.5 is chance. It does not depend on a threshold."
)
GAIN = "Macro AUROC minus that of the plain baseline; + if the ensemble is better. The interval is from the same draws."
THRESHOLDS = "The same at thresholds that were chosen, for each fold, on the other folds (see Classes)."
CALIBRATION = (
    "Mean distance between observed and predicted shares, in bins of equally many rows, mean over classes. Chance "
    "alone keeps it above 0."
)


@dataclass(frozen=True)
class MetricRow:
    """One metric as printed, its meaning and, if it has one, its interval."""

    name: str
    value: str
    meaning: str
    interval: str = ""


@dataclass(frozen=True)
class VotesRow:
    """Mean scores on the units with at least this number of votes; main: whether this is the study's population."""

    population: Population
    main: bool
    ensemble: float
    best_single: float
    prior: float


@dataclass(frozen=True)
class MetricsView:
    """Metrics of one set of predictions, ready to print.

    source: the name of the predictions
    votes: the score by number of votes; [] without an ensemble, or without another population than the study's
    compared: the ensemble, the best tables and the plain baseline, each with its metrics, on the same units
    """

    source: str
    population: Population
    rows: list[MetricRow]
    votes: list[VotesRow]
    votes_sentences: list[str]
    compared: list[tuple[str, Metrics]]


def read_metrics(
    folder: StudyFolder,
    study: Study,
    finalists: list[Scored],
    summary: EnsembleSummary | None,
    source: str,
    predictions: Predictions,
) -> MetricsView:
    """Describe predictions of at least one unit; source: the name of the predictions."""
    compared = [(source, predictions.metrics)] if summary else []
    others = [(f.trial, OofTable.read(folder.oof(f.trial))) for f in finalists[:MOST_COMPARED]]
    if summary and summary.plain is not None:
        others.append((f"plain baseline: {summary.result.baselines.plain_is}", summary.plain))
    for name, table in others:
        scored = diagnostics.predictions(table, study.min_votes)
        compared += [(name, scored.metrics)] if len(scored.scores) else []
    votes = _by_votes(summary) if summary else []
    return MetricsView(
        source=source,
        population=diagnostics.population(predictions, study.min_votes),
        rows=_rows(predictions, summary),
        votes=votes,
        votes_sentences=_votes_sentences(votes, summary) if votes and summary else [],
        compared=compared,
    )


def _rows(predictions: Predictions, summary: EnsembleSummary | None) -> list[MetricRow]:
    metrics, is_labels = predictions.metrics, predictions.task.asks_each_class
    score, entropy = words.score_name(predictions.task).short, words.nats(abs(metrics.log_loss - metrics.score))
    if entropy == words.nats(0):
        log_loss = f"Cross-entropy with the targets. They are certain, so it is the {score} itself."
    else:
        log_loss = f"Cross-entropy with the targets: the {score} plus the targets' own entropy, {entropy}."
    unknown = [name for name, f1 in zip(metrics.classes, metrics.f1.tolist(), strict=True) if math.isnan(f1)]
    left_out = f" Left out, since no unit has it and none is predicted to: {', '.join(unknown)}." if unknown else ""
    rows = [
        MetricRow("Log loss", words.nats(metrics.log_loss), log_loss),
        MetricRow("Accuracy", words.percent(metrics.accuracy), RIGHT_LABELS if is_labels else RIGHT_CLASS),
        MetricRow("Macro F1", words.percent(metrics.macro_f1), MACRO_F1 + left_out),
    ]
    if is_labels:  # otherwise micro F1 is the accuracy
        rows.append(MetricRow("Micro F1", words.percent(metrics.micro_f1), MICRO_F1))
    rows.append(MetricRow("Calibration error", words.percent(metrics.calibration_error), CALIBRATION))
    area = summary.result.metrics.macro_auroc_interval if summary else None
    gain = summary.result.metrics.macro_auroc_gain if summary else None
    rows.append(MetricRow("Macro AUROC", words.area(metrics.macro_auroc), MACRO_AUROC, _interval(area)))
    if gain:
        rows.append(MetricRow("Gain of macro AUROC", words.signed_area(gain.value), GAIN, _interval(gain, signed=True)))
    if predictions.thresholded:
        names = {"accuracy": "Accuracy", "macro_f1": "Macro F1", "micro_f1": "Micro F1"}
        shares = {name: words.percent(getattr(predictions.thresholded, key)) for key, name in names.items()}
        rows += [MetricRow(f"{name} at thresholds", share, THRESHOLDS) for name, share in shares.items()]
    return rows


def _interval(estimate: Estimate | None, signed: bool = False) -> str:
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    low, high = map(words.signed_area if signed else words.area, (estimate.low, estimate.high))
    return f"95\u00a0% interval, by patient: {low} to {high}"


def _by_votes(summary: EnsembleSummary) -> list[VotesRow]:
    main = summary.result.population.min_votes
    rows = [
        VotesRow(
            population=Population(row.units, row.groups, row.min_votes),
            main=row.min_votes == main,
            ensemble=row.ensemble,
            best_single=row.best_single,
            prior=row.prior,
        )
        for row in summary.result.metrics.score_by_min_votes
    ]
    return rows if len(rows) > 1 else []


def _votes_sentences(rows: list[VotesRow], summary: EnsembleSummary) -> list[str]:
    """Explain which scores of several populations can be compared."""
    [main] = [row.population for row in rows if row.main]
    sentences = [
        "Each row is a different population: compare the figures within a row, not between rows. Shares of few votes "
        "are noisy, and a score counts this noise as error. The study's score is the "
        f"marked row, {main}.",
    ]
    if any(row.population.min_votes < main.min_votes for row in rows):
        sentences.append(
            "Units with fewer votes are predicted as the others are, by the pool of the other folds. But no "
            f"pool and no class prior was fitted on them: these were fitted on units with {main.rule} only. The models "
            "may have been trained on such units of other folds."
        )
    best = summary.result.baselines.best_single_trial
    return [*sentences, f"Best single: {best}, which is the best on the marked row, but may not be on other rows."]
