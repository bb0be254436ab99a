"""Checks of ensemble.json: the report recomputes its figures from the tables and shows each check with its result."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hms_ray.ensemble import TOLERANCE as CERTIFIED
from hms_ray.ensemble.bootstrap import Estimate, standard_error
from hms_ray.ensemble.result import PredictionMetrics
from hms_ray.report import diagnostics, tables, words
from hms_ray.report.summary import EnsembleSummary
from hms_ray.report.tables import Scored, Study

TOLERANCE = 1e-9
METRICS = ("units", "log_loss", "accuracy", "macro_f1", "micro_f1", "macro_auroc", "calibration_error")


@dataclass(frozen=True)
class Check:
    """One rule and its result; detail: the figures that were compared."""

    rule: str
    passed: bool
    detail: str


def run_checks(
    study: Study, finalists: list[Scored], summary: EnsembleSummary | None, trials: pd.DataFrame
) -> list[Check]:
    """Return all checks that apply to the content of the study; trials: at least trial, state."""
    checks = _check_data(study)
    if finalists:
        checks += _check_tables(study, finalists, trials)
    if summary:
        checks += _check_scores(summary, finalists)
        checks += [*_check_metrics(study, summary), *_check_fit(study, finalists, summary)]
    return checks


def _check_data(study: Study) -> list[Check]:
    folds = study.units.groupby("group_id")["fold"].nunique()
    split = folds[folds > 1]
    detail = f"{len(folds):,} patients, {len(split):,} of them in several folds"
    checks = [Check("No patient is in more than one fold", split.empty, detail)]
    if study.quality is not None:
        units = sorted(study.units["unit_id"])
        measured = {str(kind): sorted(rows["unit_id"]) for kind, rows in study.quality.groupby("kind")}
        passed = all(measured_units == units for measured_units in measured.values())
        detail = "; ".join(f"{kind}: {len(ids):,} of {len(units):,} units" for kind, ids in measured.items())
        checks.append(Check("The recordings of every unit were measured, once for each kind", passed, detail))
    return checks


def _check_tables(study: Study, finalists: list[Scored], trials: pd.DataFrame) -> list[Check]:
    first = finalists[0].rows["unit_id"]
    other = [f.trial for f in finalists if not f.rows["unit_id"].equals(first)]
    detail = f"different units than {finalists[0].trial}: {', '.join(other[:5])}" if other else f"{len(first):,} units"
    checks = [Check("All tables are scored on the same units", not other, detail)]
    origin = (study.data["fingerprint"], study.folds["fingerprint"])
    other = [f.trial for f in finalists if f.origin != origin]
    detail = f"data {origin[0]}, folds {origin[1]}" + (f"; others in {', '.join(other[:5])}" if other else "")
    checks.append(Check("All tables were made from this study's data and folds", not other, detail))
    states = dict(zip(trials["trial"], trials["state"], strict=True))
    searched = [f.trial for f in finalists if f.trial in states]
    other = [f"{trial} ({states[trial]})" for trial in searched if states[trial] != "COMPLETE"]
    detail = f"{len(searched)} tables of trials" + (f"; not complete: {', '.join(other[:5])}" if other else "")
    if searched:
        checks.append(Check("No table is of a trial that was stopped or failed", not other, detail))
    return checks


def _check_scores(summary: EnsembleSummary, finalists: list[Scored]) -> list[Check]:
    """Check the score, its interval's value and standard error, the best single, and the difference to it."""
    rows, result = summary.rows, summary.result
    stored, score, error = summary.block.ensemble, float(rows["score"].mean()), _error(rows["score"], rows["group_id"])
    passed = _equal(stored, score) and len(rows) == summary.block.population.units
    detail = f"{_pair(stored, score)} on {len(rows):,} of {summary.block.population.units:,} rows"
    checks = [Check("The ensemble's predictions have the score in ensemble.json", passed, detail)]
    interval = result.interval  # its bounds are from random draws, and are not recomputed
    inside = interval.low is None or interval.high is None or interval.low <= score <= interval.high
    passed = inside and _equal(interval.value, score) and _equal(interval.error, error)
    detail = f"{words.nats(score)} in {words.interval(interval)}; {_errors(interval, error)}"
    rule = "The interval contains the score of the predictions, and its standard error by patient is correct"
    checks.append(Check(rule, passed, detail))
    name, stored = result.baselines.best_single_trial, result.baselines.best_single
    if finalists:
        detail = f"{name} {_pair(stored, finalists[0].score)} of {finalists[0].trial}"
        passed = _equal(stored, finalists[0].score)
        checks.append(Check("The best single is the best table of the study", passed, detail))
    best = next((f for f in finalists if f.trial == name), None)
    if best is not None:
        both = rows.merge(best.rows, on="unit_id", suffixes=("", "_best"))
        gains, difference = both["score_best"] - both["score"], result.baselines.differences.best_single
        gain, error = float(gains.mean()), _error(gains, both["group_id"])
        passed = _equal(difference.value, gain) and _equal(difference.error, error)
        detail = f"{_pair(difference.value, gain)}; {_errors(difference, error)}"
        checks.append(Check("The difference to the best single is that of both tables, unit by unit", passed, detail))
    return checks


def _check_metrics(study: Study, summary: EnsembleSummary) -> list[Check]:
    """Check the metrics, the size and the score of each population by votes, and the plain baseline's figures."""
    stored, plain, checks = summary.result.metrics, summary.result.metrics_of_plain, []
    if not summary.rows.empty:  # without rows there are no metrics, and the check of the score has failed
        pairs = _metric_pairs(stored, diagnostics.predictions(summary.table, study.min_votes, stored.thresholds))
        for row in stored.score_by_min_votes:
            units = tables.those("units", row.min_votes)
            scores = tables.score_rows(summary.table, row.min_votes)["score"]
            pairs |= {f"number of {units}": (row.units, len(scores))}
            pairs |= {f"score of {units}": (row.ensemble, scores.mean())}
        name = "Metrics, and scores by number of votes," if len(stored.score_by_min_votes) > 1 else "Metrics"
        checks.append(_agree(f"{name} are those of the predictions", pairs))
    rule = "The plain baseline has the score and the metrics in ensemble.json"
    if plain is not None and summary.plain is not None:
        predictions = diagnostics.predictions(summary.plain, study.min_votes, plain.thresholds)
        score = {"score": (summary.result.baselines.plain, float(predictions.scores.mean()))}
        checks.append(_agree(rule, score | _metric_pairs(plain, predictions)))
    elif plain is not None or summary.plain is not None:
        checks.append(Check(rule, False, f"only its {'predictions' if plain is None else 'figures'} are present"))
    return checks


def _check_fit(study: Study, finalists: list[Scored], summary: EnsembleSummary) -> list[Check]:
    """Check that duality gaps are closed, or open ones are noted, and that the tables and folds are unchanged."""
    result, gaps = summary.result, summary.result.gaps
    closed = max(gaps, default=0.0) < CERTIFIED
    noted = any("not certified" in note for note in result.notes)
    detail = f"largest gap {words.bound(max(gaps))}, limit {CERTIFIED:g}" if gaps else "no method has a certificate"
    if not closed:
        detail += "; a note mentions it" if noted else "; a note on it is missing"
    rule = "Every duality gap is closed, or a note says that it is not"
    checks = [Check(rule, closed or noted, detail)]
    trials = {finalist.trial for finalist in finalists}
    missing = [member.trial for member in result.members if member.trial not in trials]
    passed = result.candidates == len(finalists) and result.folds_fingerprint == study.folds["fingerprint"]
    detail = f"{result.candidates} tables when it was fitted, {len(finalists)} now"
    detail += f"; no table of member {', '.join(missing[:5])}" if missing else ""
    return [*checks, Check("The ensemble was fitted to the current tables and folds", passed and not missing, detail)]


def _metric_pairs(
    stored: PredictionMetrics, computed: diagnostics.Predictions
) -> dict[str, tuple[float | None, float]]:
    """Pair stored metrics with those of the predictions, and also those at thresholds if there are any."""
    pairs = {name: (getattr(stored, name), getattr(computed.metrics, name)) for name in METRICS}
    if computed.thresholded:
        at, computed_at = stored.thresholded, computed.thresholded
        pairs |= {f"{n} at thresholds": (getattr(at, n, None), getattr(computed_at, n)) for n in METRICS}
    return pairs


def _agree(rule: str, pairs: dict[str, tuple[float | None, float]]) -> Check:
    """Check that stored and computed figures are equal, and name those that are not."""
    other = [name for name, (stored, computed) in pairs.items() if not _equal(stored, computed)]
    detail = f"{len(pairs)} figures" + (f"; different: {', '.join(other[:5])}" if other else "")
    return Check(rule, not other, detail)


def _error(scores: "pd.Series[float]", groups: "pd.Series[str]") -> float:
    return standard_error(np.asarray(scores), np.asarray(groups))


def _pair(stored: float, computed: float) -> str:
    return f"stored {stored:.7f}, recomputed {computed:.7f}"


def _errors(stored: Estimate, computed: float) -> str:
    return f"standard error stored {words.nats(stored.error)}, recomputed {words.nats(computed)}"


def _equal(stored: float | None, computed: float) -> bool:
    """Return whether two figures are equal; an unknown figure is None in a file and NaN here."""
    return math.isnan(computed) if stored is None else math.isclose(stored, computed, abs_tol=TOLERANCE)
