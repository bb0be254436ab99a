"""The report of a study: one self-contained HTML page, the same bytes for the same study."""

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
from hms_ray.ensemble.result import Member
from hms_ray.report import diagnostics, figures, metrics, pools, quality, tables, words
from hms_ray.report.checks import run_checks
from hms_ray.report.summary import EnsembleSummary, read_verdict, selected_folds
from hms_ray.report.tables import Population, Scored, Study
from hms_ray.study.folder import StudyFolder
from hms_ray.study.oof import OofTable

REPORTS = Path("reports")
OPEN_TRIALS = 25  # longer tables start folded
NUMBERS = ("nats", "area", "signed", "interval", "signed_interval", "percent", "margin", "whole", "bound", "seconds")
SECTIONS = {  # in the page's order; those without content are left out
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

    figure: None without trials; epochs: after which epoch trials are scored; gains: whether trials were told what they
    add to the ensemble, so that their values and estimates are no scores
    """

    name: str
    space: dict[str, Any] | None
    trials: pd.DataFrame
    population: str
    epochs: str
    figure: Markup | None
    gains: bool

    @property
    def states(self) -> dict[str, int]:
        """Number of trials in each state, in a fixed order."""
        return {state: int(n) for state, n in self.trials["state"].value_counts().sort_index().items()}


@dataclass(frozen=True)
class DecisionView:
    """Yes-or-no decisions on each class by some thresholds: of what is true in rows and of what is said in columns.

    confusion: for each class its name and two rows, not of the class and of it, of (units, share of the row)
    """

    name: str
    rows: list[diagnostics.ReportRow]
    confusion: list[tuple[str, list[list[tuple[int, float]]]]]


@dataclass(frozen=True)
class ClassView:
    """Where the error of one set of predictions lies, ready to print.

    questions: whether each class is a question of its own; then there is no confusion of one with another
    decisions: of questions, what the predictions say at each kind of threshold, the chosen ones first
    thresholds: of questions, those of each fold; {} where none were chosen
    """

    of: str
    population: Population
    rows: list[diagnostics.ClassRow]
    questions: bool
    confusion: list[tuple[str, list[tuple[int, float]]]]
    ties: int
    calibration: list[Markup]
    decisions: list[DecisionView]
    thresholds: dict[str, list[float]]

    @property
    def total(self) -> float:
        """The mean score, which the classes' contributions add up to."""
        return sum(row.contribution for row in self.rows)


def write_report(folder: StudyFolder, trials: pd.DataFrame, out: Path | None = None) -> Path:
    """Write index.html of a study into `out` (default: reports/<study>) and return its path.

    trials: trial, space, number, state, value, score, estimate, fidelity, seconds, cause, params; empty for a study
        without a search

    Raises:
        ConfigError: the folder is no study, or its ensemble was written by an earlier version.
        DataError: one of its files is missing or broken.
        OSError: nothing can be written to `out`; this is found before the page is made.
    """
    study = tables.read_study(folder)
    page = (REPORTS / study.name if out is None else Path(out)) / "index.html"
    files.check_writable(page)
    files.write_text(page, render(folder, study, trials))
    return page


def render(folder: StudyFolder, study: Study, trials: pd.DataFrame) -> str:
    """Return the page of a study as HTML."""
    finalists = tables.read_finalists(folder, study)
    summary = read_verdict(folder, study)
    curves = [_curve(curve, study, finalists) for curve in tables.read_curves(folder)]
    of, found = _looked_at(folder, study, finalists, summary)
    spaces, of_recordings = _spaces(study, trials, finalists), quality.look(study, finalists)
    there = {
        "verdict": True,
        "pools": summary,
        "weights": summary,
        "finalists": finalists,
        "search": spaces,
        "curves": curves,
        "metrics": found,
        "classes": found,
        "data": True,
        "quality": of_recordings,
        "checks": True,
    }
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            study=study,
            sections={name: title for name, title in SECTIONS.items() if there[name]},
            version=__version__,
            finalists=finalists,
            population=_population(study, finalists),
            fold_figure=_fold_figure(study, finalists),
            summary=summary,
            members=_members(finalists, summary) if summary else [],
            inputs_shown=any(path in f.params for f in finalists for path in tables.INPUTS),
            score=words.score_name(study.task),
            optimism=_optimism(finalists, summary),
            scores=words.scores_side_by_side(finalists, summary) if summary else [],
            correction=words.correction_sentence(study, summary) if summary else "",
            certificate=pools.certificate(summary.result, summary.block.population) if summary else [],
            explained=explain(summary.result.fitted) if summary else None,
            headline=words.headline(summary) if summary else "",
            caveats=words.caveats(study, finalists, summary) if summary else [],
            outside_sentence=words.outside_sentence(finalists, summary) if summary else "",
            checks=run_checks(study, finalists, summary, trials),
            spaces=spaces,
            curves=[figure for final, figure in curves if final],
            other_curves=[figure for final, figure in curves if not final],
            metrics=metrics.look(folder, study, finalists, summary, of, found) if found else None,
            classes=_classes(of, found, study, summary) if found else None,
            folds=tables.fold_sizes(study, finalists).to_dict("records"),
            quality=of_recordings,
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


def _population(study: Study, finalists: list[Scored]) -> Population | None:
    return tables.population(finalists[0].rows, study.min_votes) if finalists else None


def _members(finalists: list[Scored], summary: EnsembleSummary) -> list[tuple[Member, Scored | None]]:
    """Return each member with its own table, the heaviest first; None if its table is gone."""
    tables_by_trial = {f.trial: f for f in finalists}
    members = sorted(summary.result.members, key=lambda member: -member.weight)
    return [(member, tables_by_trial.get(member.trial)) for member in members]


def _fold_figure(study: Study, finalists: list[Scored]) -> Markup | None:
    if not any(f.by_fold for f in finalists):
        return None
    score = words.score_name(study.task)
    title = f"{score.head} of each table on each fold; {_population(study, finalists)}"
    return figures.fold_scores(finalists, title, score.head)


def _curve(curve: tables.Curve, study: Study, finalists: list[Scored]) -> tuple[bool, tuple[str, Markup]]:
    score = words.score_name(study.task).short
    title = f"Learning curves of {curve.trial}: training loss, and held-out {score} on {study.search_those}"
    figure = figures.learning_curve(curve, title, score)
    return curve.trial in {f.trial for f in finalists}, (curve.trial + words.skipped_steps(curve.epochs), figure)


def _spaces(study: Study, trials: pd.DataFrame, finalists: list[Scored]) -> list[SpaceView]:
    names = [*study.spaces, *sorted(set(trials["space"]) - set(study.spaces))]
    return [_space(name, study, trials[trials["space"] == name], finalists) for name in names]


def _space(name: str, study: Study, trials: pd.DataFrame, finalists: list[Scored]) -> SpaceView:
    space = study.spaces.get(name)
    trials = trials.sort_values("number", ignore_index=True)
    where = _trial_rows(space, study, [f for f in finalists if f.space == name])
    gains = tables.objective(space) == "gain"
    drawn = trials.assign(estimate=float("nan")) if gains else trials
    figure = _history(drawn, name, study, where) if len(trials) else None
    epochs = words.trial_epochs(study, space)
    return SpaceView(name, space, trials, where, epochs, figure, gains)


def _history(trials: pd.DataFrame, name: str, study: Study, where: str) -> Markup:
    score = words.score_name(study.task)
    return figures.history(trials, f"Trials of {name}: {score.short} by trial number; {where}", score.head)


def _trial_rows(space: dict[str, Any] | None, study: Study, finalists: list[Scored]) -> str:
    """Say which rows the trials of a space were scored on, as exactly as the study knows it."""
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
    tried_on = sorted(sorted(chosen_on, key=lambda fold: (fold not in scored, fold))[:count])  # rounds choose on others
    return f"{tables.population(rows[rows['fold'].isin(tried_on)], study.min_votes)} · {words.fold_list(tried_on)}"


def _looked_at(
    folder: StudyFolder, study: Study, finalists: list[Scored], summary: EnsembleSummary | None
) -> tuple[str, diagnostics.Predictions | None]:
    """Return the ensemble's cross-fitted predictions, without an ensemble the best table's, and whose they are.

    None where no unit is scored.
    """
    if not summary and not finalists:
        return "", None
    table = summary.table if summary else OofTable.read(folder.oof(finalists[0].trial))
    found = diagnostics.predictions(table, study.min_votes, summary.result.metrics.thresholds if summary else None)
    of = "the ensemble, cross-fitted" if summary else f"the best table, {finalists[0].trial}"
    return f"{of}{words.mark(_optimism(finalists, summary))}", found if len(found.scores) else None


def _optimism(finalists: list[Scored], summary: EnsembleSummary | None) -> str:
    """Return what flatters the scores of the ensemble, without an ensemble those of the best table."""
    if summary:
        return summary.optimism
    return finalists[0].optimism if finalists else ""


def _classes(of: str, found: diagnostics.Predictions, study: Study, summary: EnsembleSummary | None) -> ClassView:
    rows, questions = diagnostics.by_class(found), study.task.asks_each_class
    return ClassView(
        of=of,
        population=diagnostics.population(found, study.min_votes),
        rows=rows,
        questions=questions,
        confusion=[] if questions else list(zip(found.classes, _shares(found.metrics.confusion), strict=True)),
        ties=found.metrics.ties,
        calibration=[_calibration(found, k, study) for k in range(len(rows))],
        decisions=_decisions(found) if questions else [],
        thresholds=(summary.result.metrics.thresholds if summary else None) or {},
    )


def _decisions(found: diagnostics.Predictions) -> list[DecisionView]:
    at = {"the chosen thresholds": found.thresholded, "0.5": found.metrics}
    return [
        DecisionView(name, diagnostics.report(its), list(zip(its.classes, map(_shares, its.confusion), strict=True)))
        for name, its in at.items()
        if its
    ]


def _shares(counts: np.ndarray) -> list[list[tuple[int, float]]]:
    """Pair each count of a confusion matrix with its share of the row."""
    shares = counts / counts.sum(1, keepdims=True).clip(min=1)
    return [list(zip(map(int, row), map(float, its), strict=True)) for row, its in zip(counts, shares, strict=True)]


def _calibration(found: diagnostics.Predictions, k: int, study: Study) -> Markup:
    name = found.classes[k]
    title = f"Calibration of {name}: mean target share by mean predicted share; {len(found.scores):,} units"
    return figures.calibration(diagnostics.calibration(found, k), name, title)
