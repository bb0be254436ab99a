"""Metrics beside the score, in words, and the score where experts voted little and where they voted much."""

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

MOST_COMPARED = 10  # tables by metric; the finalists' own table has them all

RIGHT_CLASS = "Share of units whose most probable class is the one with most votes; of classes that tie, the first."
RIGHT_LABELS = (
    "Share of right answers, mean over classes: a class is predicted to hold where its probability is above 0.5."
)
MACRO_F1 = "Mean F1 of the classes, small ones counting as much as large ones."
MICRO_F1 = "F1 of the answers on all classes, pooled: frequent classes count for more."
MACRO_AUROC = (
    "Mean over classes of the area under the ROC curve: how often, of two units of which one is of the class, that one "
    "has the higher probability. 0.5 is chance, and no threshold matters."
)
GAIN = "Macro AUROC less that of the plain baseline, + where the ensemble is better. Its interval is of the same draws."
THRESHOLDS = "The same at thresholds that were chosen, for each fold, on the other folds (see Classes)."
CALIBRATION = (
    "Mean distance of observed from predicted shares, in bins of equally many rows, mean over classes. Chance alone "
    "keeps it above 0."
)


@dataclass(frozen=True)
class MetricRow:
    """One metric as printed, and what it means; interval: likewise, "" where it has none."""

    name: str
    value: str
    meaning: str
    interval: str = ""


@dataclass(frozen=True)
class VotesRow:
    """Mean scores on the units with so many votes; own: whether these are the study's population."""

    population: Population
    own: bool
    ensemble: float
    best_single: float
    prior: float


@dataclass(frozen=True)
class MetricsView:
    """Metrics of one set of predictions, ready to print.

    votes: the score by number of votes, [] where there is no ensemble, or no other population than the study's
    compared: the ensemble, the best tables and the plain baseline, each with its metrics, on the same units
    """

    of: str
    population: Population
    rows: list[MetricRow]
    votes: list[VotesRow]
    votes_sentences: list[str]
    compared: list[tuple[str, Metrics]]


def look(
    folder: StudyFolder,
    study: Study,
    finalists: list[Scored],
    summary: EnsembleSummary | None,
    of: str,
    found: Predictions,
) -> MetricsView:
    """Describe predictions of at least one unit; `of` says whose they are."""
    votes = _by_votes(summary) if summary else []
    return MetricsView(
        of=of,
        population=diagnostics.population(found, study.min_votes),
        rows=[*_rows(found), *_areas(found, summary), *_thresholded(found)],
        votes=votes,
        votes_sentences=_votes_sentences(votes, summary) if votes else [],
        compared=[
            *_compared(folder, study, finalists, [(of, found.metrics)] if summary else []),
            *_plain(study, summary),
        ],
    )


def _rows(found: Predictions) -> list[MetricRow]:
    metrics = found.metrics
    right = RIGHT_LABELS if found.task.asks_each_class else RIGHT_CLASS
    unknown = [name for name, f1 in zip(metrics.classes, metrics.f1, strict=True) if math.isnan(f1)]
    left_out = f" Left out, since no unit has it and none is predicted to: {', '.join(unknown)}." if unknown else ""
    return [
        MetricRow("Log loss", words.nats(metrics.log_loss), _log_loss(metrics, words.score_name(found.task))),
        MetricRow("Accuracy", words.percent(metrics.accuracy), right),
        MetricRow("Macro F1", words.percent(metrics.macro_f1), MACRO_F1 + left_out),
        *_micro(metrics, found.task.asks_each_class),
        MetricRow("Calibration error", words.percent(metrics.calibration_error), CALIBRATION),
    ]


def _micro(metrics: Metrics, questions: bool) -> list[MetricRow]:
    """Where one class is predicted of each unit, micro F1 is the accuracy and needs no line."""
    return [MetricRow("Micro F1", words.percent(metrics.micro_f1), MICRO_F1)] if questions else []


def _areas(found: Predictions, summary: EnsembleSummary | None) -> list[MetricRow]:
    """The macro AUROC, with its interval where the ensemble has one, and its distance to the plain baseline's."""
    area = summary.result.metrics.macro_auroc_interval if summary else None
    gain = summary.result.metrics.macro_auroc_gain if summary else None
    rows = [MetricRow("Macro AUROC", words.area(found.metrics.macro_auroc), MACRO_AUROC, _interval(area))]
    if gain:
        rows.append(MetricRow("Gain of macro AUROC", words.signed_area(gain.value), GAIN, _interval(gain, signed=True)))
    return rows


def _interval(estimate: Estimate | None, signed: bool = False) -> str:
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    low, high = map(words.signed_area if signed else words.area, (estimate.low, estimate.high))
    return f"95\u00a0% interval, by patient: {low} to {high}"


def _thresholded(found: Predictions) -> list[MetricRow]:
    if found.thresholded is None:
        return []
    names = {
        "accuracy": "Accuracy at thresholds",
        "macro_f1": "Macro F1 at thresholds",
        "micro_f1": "Micro F1 at thresholds",
    }
    return [MetricRow(its, words.percent(getattr(found.thresholded, key)), THRESHOLDS) for key, its in names.items()]


def _log_loss(metrics: Metrics, score: words.ScoreName) -> str:
    """Say how the log loss differs from the score: by what no prediction changes."""
    entropy = words.nats(abs(metrics.log_loss - metrics.score))
    if entropy == words.nats(0):
        return f"Cross-entropy with the targets. They are certain, so it is the {score.short} itself."
    return f"Cross-entropy with the targets: the {score.short} plus the targets' own entropy, {entropy}."


def _by_votes(summary: EnsembleSummary) -> list[VotesRow]:
    rows = summary.result.metrics.score_by_min_votes
    own = summary.result.population.min_votes
    found = [
        VotesRow(
            population=Population(row.units, row.groups, row.min_votes),
            own=row.min_votes == own,
            ensemble=row.ensemble,
            best_single=row.best_single,
            prior=row.prior,
        )
        for row in rows
    ]
    return found if len(found) > 1 else []


def _votes_sentences(rows: list[VotesRow], summary: EnsembleSummary) -> list[str]:
    """Say what may be read from scores of several populations, and what may not."""
    [own] = [row.population for row in rows if row.own]
    found = [
        "Each row is another population: compare the figures within a row, not those of two rows. Shares of few votes "
        "scatter about what more experts would say, and a score counts that scatter as error. The study's score is the "
        f"marked row, {own}.",
    ]
    if any(row.population.min_votes < own.min_votes for row in rows):
        found.append(
            "Units with fewer votes than that are predicted as the others are, by the pool of the other folds, but no "
            f"pool and no class prior was fitted on them: those were fitted on units with {own.rule} alone. The models "
            "themselves may have been trained on such units of other folds."
        )
    best = summary.result.baselines.best_single_trial
    return [*found, f"Best single: {best}, which is the best on the marked row and need not be on the others."]


def _plain(study: Study, summary: EnsembleSummary | None) -> list[tuple[str, Metrics]]:
    if summary is None or summary.plain is None:
        return []
    found = diagnostics.predictions(summary.plain, study.min_votes)
    return [(f"plain baseline: {summary.result.baselines.plain_is}", found.metrics)] if len(found.scores) else []


def _compared(
    folder: StudyFolder, study: Study, finalists: list[Scored], first: list[tuple[str, Metrics]]
) -> list[tuple[str, Metrics]]:
    for finalist in finalists[:MOST_COMPARED]:
        found = diagnostics.predictions(OofTable.read(folder.oof(finalist.trial)), study.min_votes)
        first = [*first, (finalist.trial, found.metrics)] if len(found.scores) else first
    return first
