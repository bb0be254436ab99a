"""The report of a study: one self-contained HTML page; the same study gives the same bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hms_ray import __version__
from hms_ray.core import files
from hms_ray.ensemble.methods import label
from hms_ray.ensemble.pools._base import explain
from hms_ray.report import diagnostics, figures, metrics, pools, quality, tables, words
from hms_ray.report.checks import run_checks
from hms_ray.report.summary import EnsembleSummary, read_summary, selected_folds
from hms_ray.report.tables import Population, Scored, Study
from hms_ray.study.folder import StudyFolder
from hms_ray.study.oof import OofTable

REPORTS = Path("reports")
OPEN_TRIALS = 25  # longer tables are collapsed at first
NUMBERS = ("nats", "area", "signed", "interval", "signed_interval", "percent", "margin", "whole", "bound", "seconds")
SECTIONS = {  # in the order of the page; sections without content are left out
    "verdict": "Verdict",
    "pools": "Pools",
    "weights": "Weights",
    "finalists": "Finalists",
    "search": "Search",
    "curves": "Learning curves",
    "metrics": "Metrics",
    "classes": "Classes",
    "data": "Data",
    "quality": "Recordings",
    "checks": "Checks",
}
FILTERS = (*NUMBERS, "value", "one_line", "block", "fold_list", "outcome", "mark", "epochs")


@dataclass(frozen=True)
class SpaceView:
    """One space and its trials.

    figure: None without trials; epochs: after which epoch trials are scored; gains: whether the objective of trials is
    their gain to the ensemble, so that their values and estimates are not scores
    """

    name: str
    space: Mapping[str, Any] | None
    trials: pd.DataFrame
    population: str
    epochs: str
    figure: Markup | None
    gains: bool

    @property
    def states(self) -> dict[str, int]:
        """Number of trials in each state, in a fixed order."""
        return {str(state): int(n) for state, n in self.trials["state"].value_counts().sort_index().items()}


@dataclass(frozen=True)
class DecisionView:
    """Yes-or-no decisions on each class at some thresholds.

    confusion: for each class its name and two rows, of units without and with the class: (units, share of the row) of
        those not predicted and predicted to have it
    """

    name: str
    rows: list[diagnostics.ReportRow]
    confusion: list[tuple[str, list[list[tuple[int, float]]]]]


@dataclass(frozen=True)
class ClassView:
    """The error of one set of predictions by class, ready to print.

    source: the name of the predictions
    questions: whether each class is a question of its own; then classes are not confused with each other
    decisions: of questions, at each kind of thresholds, the chosen ones first
    thresholds: of questions, those of each fold; {} if none were chosen
    """

    source: str
    population: Population
    rows: list[diagnostics.ClassRow]
    questions: bool
    confusion: list[tuple[str, list[tuple[int, float]]]]
    ties: int
    calibration: list[Markup]
    decisions: list[DecisionView]
    thresholds: Mapping[str, Sequence[float]]

    @property
    def total(self) -> float:
        """The mean score, the sum of the classes' contributions."""
        return sum(row.contribution for row in self.rows)


def write_report(folder: StudyFolder, trials: pd.DataFrame, out: Path | None = None) -> Path:
    """Write index.html of a study into `out` (default: reports/<study>) and return its path.

    trials: trial, space, number, state, value, score, estimate, fidelity, seconds, cause, params; empty for a study
        without a search

    Raises:
        ConfigError: the folder is not a study, or its ensemble was written by an earlier version.
        DataError: one of its files is missing or broken.
        OSError: `out` cannot be written to; this is found before the page is made.
    """
    study = tables.read_study(folder)
    page = (REPORTS / study.name if out is None else Path(out)) / "index.html"
    files.check_writable(page)
    files.write_text(page, render(folder, study, trials))
    return page


def render(folder: StudyFolder, study: Study, trials: pd.DataFrame) -> str:
    """Return the page of a study as HTML."""
    finalists, score = tables.read_finalists(folder, study), words.score_name(study.task)
    summary = read_summary(folder, study)
    optimism = summary.optimism if summary else finalists[0].optimism if finalists else ""
    source, predictions = _main_predictions(folder, study, finalists, summary)
    source += words.mark(optimism)
    curves, other_curves = _curves(folder, study, finalists)
    recordings = quality.read_quality(study, finalists)
    names = [*study.spaces, *sorted(set(trials["space"]) - set(study.spaces))]
    spaces = [_space(name, study, trials[trials["space"] == name], finalists) for name in names]
    population = tables.population(finalists[0].rows, study.min_votes) if finalists else None
    fold_figure, members = None, []
    if any(f.by_fold for f in finalists):
        fold_figure = figures.fold_scores(
            finalists, f"{score.head} of each table on each fold; {population}", score.head
        )
    if summary:  # each member, the heaviest first, with its table if there is one
        by_trial = {f.trial: f for f in finalists}
        heaviest_first = sorted(summary.result.members, key=lambda member: -member.weight)
        members = [(member, by_trial.get(member.trial)) for member in heaviest_first]
    view, classes = None, None
    if predictions:
        view = metrics.read_metrics(folder, study, finalists, summary, source, predictions)
        classes = _classes(source, predictions, study, summary)
    content = {
        "pools": summary,
        "weights": summary,
        "finalists": finalists,
        "search": spaces,
        "curves": curves or other_curves,
        "metrics": predictions,
        "classes": predictions,
        "quality": recordings,
    }
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            study=study,
            sections={name: title for name, title in SECTIONS.items() if content.get(name, True)},
            version=__version__,
            finalists=finalists,
            population=population,
            fold_figure=fold_figure,
            summary=summary,
            members=members,
            inputs_shown=any(path in f.params for f in finalists for path in tables.INPUTS),
            score=score,
            optimism=optimism,
            scores=words.scores_side_by_side(finalists, summary) if summary else [],
            correction=words.correction_sentence(study, summary) if summary else "",
            certificate=pools.certificate(summary.result, summary.block.population) if summary else [],
            explained=explain(summary.result.fitted) if summary else None,
            headline=words.headline(summary) if summary else "",
            caveats=words.caveats(study, finalists, summary) if summary else [],
            outside_sentence=words.outside_sentence(finalists, summary) if summary else "",
            checks=run_checks(study, finalists, summary, trials),
            spaces=spaces,
            curves=curves,
            other_curves=other_curves,
            metrics=view,
            classes=classes,
            folds=tables.fold_sizes(study, finalists).to_dict("records"),
            quality=recordings,
            open_trials=OPEN_TRIALS,
            most_compared=metrics.MOST_COMPARED,
        )
    )


@cache  # templates are compiled once a process
def _environment() -> Environment:
    loader = PackageLoader("hms_ray.report", ".")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {name: getattr(words, name) for name in FILTERS} | {
        "share": quality.share,
        "label": label,
        "limits": pools.describe_limits,
    }
    environment.globals |= {"bar": figures.bar}
    return environment


def _main_predictions(
    folder: StudyFolder, study: Study, finalists: list[Scored], summary: EnsembleSummary | None
) -> tuple[str, diagnostics.Predictions | None]:
    """Return the cross-fitted predictions of the ensemble, or else those of the best table, and their name.

    None if no unit is scored.
    """
    if summary:
        source, table, thresholds = "the ensemble, cross-fitted", summary.table, summary.result.metrics.thresholds
    elif finalists:
        best = finalists[0].trial
        source, table, thresholds = f"the best table, {best}", OofTable.read(folder.oof(best)), None
    else:
        return "", None
    predictions = diagnostics.predictions(table, study.min_votes, thresholds)
    return source, predictions if len(predictions.scores) else None


def _curves(
    folder: StudyFolder, study: Study, finalists: list[Scored]
) -> tuple[list[tuple[str, Markup]], list[tuple[str, Markup]]]:
    """Return the learning curves of finalists, and those of other trials, each with its caption."""
    score, trials = words.score_name(study.task).short, {f.trial for f in finalists}
    curves: tuple[list[tuple[str, Markup]], list[tuple[str, Markup]]] = ([], [])
    for curve in tables.read_curves(folder):
        title = f"Learning curves of {curve.trial}: training loss, and held-out {score} on {study.search_those}"
        figure = figures.learning_curve(curve, title, score)
        curves[curve.trial not in trials].append((curve.trial + words.skipped_steps(curve.epochs), figure))
    return curves


def _space(name: str, study: Study, trials: pd.DataFrame, finalists: list[Scored]) -> SpaceView:
    space, score, figure = study.spaces.get(name), words.score_name(study.task), None
    trials = trials.sort_values("number", ignore_index=True)
    population = _trial_rows(space, study, [f for f in finalists if f.space == name])
    gains = tables.objective(space) == "gain"
    if len(trials):
        drawn = trials.assign(estimate=float("nan")) if gains else trials
        title = f"Trials of {name}: {score.short} by trial number; {population}"
        figure = figures.history(drawn, title, score.head)
    return SpaceView(name, space, trials, population, words.trial_epochs(study, space), figure, gains)


def _trial_rows(space: Mapping[str, Any] | None, study: Study, finalists: list[Scored]) -> str:
    """Return on which rows the trials of a space were scored, as exactly as the study records it."""
    same, chosen_on = study.min_votes == study.search_min_votes, selected_folds(finalists)
    count = space["budget"]["trial_folds"] if space else len(chosen_on)
    if space and (not chosen_on or (len(chosen_on) > count and not same)):
        return f"{study.search_rule} · {count} of {study.folds['k']} folds"
    if not chosen_on:
        return study.search_rule
    if not same:
        return f"{study.search_rule} · {words.fold_list(chosen_on)}"
    rows = finalists[0].rows
    scored = rows["fold"].unique()
    tried_on = sorted(sorted(chosen_on, key=lambda fold: (fold not in scored, fold))[:count])  # later rounds use others
    return f"{tables.population(rows[rows['fold'].isin(tried_on)], study.min_votes)} · {words.fold_list(tried_on)}"


def _classes(
    source: str, predictions: diagnostics.Predictions, study: Study, summary: EnsembleSummary | None
) -> ClassView:
    questions, matrix = study.task.asks_each_class, predictions.metrics.confusion
    decisions, calibration = [], []
    for name, at in (("the chosen thresholds", predictions.thresholded), ("0.5", predictions.metrics)):
        if questions and at:
            confusion = list(zip(at.classes, map(_with_shares, at.confusion), strict=True))
            decisions.append(DecisionView(name, diagnostics.report(at), confusion))
    for k, name in enumerate(predictions.classes):
        title = f"Calibration of {name}: mean target share by mean predicted share; {len(predictions.scores):,} units"
        calibration.append(figures.calibration(diagnostics.calibration(predictions, k), name, title))
    return ClassView(
        source=source,
        population=diagnostics.population(predictions, study.min_votes),
        rows=diagnostics.by_class(predictions),
        questions=questions,
        confusion=[] if questions else list(zip(predictions.classes, _with_shares(matrix), strict=True)),
        ties=predictions.metrics.ties,
        calibration=calibration,
        decisions=decisions,
        thresholds=(summary.result.metrics.thresholds if summary else None) or {},
    )


def _with_shares(counts: np.ndarray) -> list[list[tuple[int, float]]]:
    """Pair each count of a confusion matrix with its share of the row."""
    shares = counts / counts.sum(1, keepdims=True).clip(min=1)
    return [list(zip(*pair, strict=True)) for pair in zip(counts.tolist(), shares.tolist(), strict=True)]
