"""What the report recomputes before it believes ensemble.json: a reader sees each check and its outcome."""

import math
from dataclasses import dataclass

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
    """One thing that must hold. detail: the figures that were compared."""

    rule: str
    passed: bool
    detail: str


def run_checks(
    study: Study, finalists: list[Scored], summary: EnsembleSummary | None, trials: pd.DataFrame
) -> list[Check]:
    """Return every check that applies to what the study holds; trials: at least trial, state."""
    found = [_no_leak(study), *_all_measured(study)]
    if finalists:
        found += [_same_rows(finalists), _same_origin(study, finalists), *_none_stopped(finalists, trials)]
    if summary:
        found += [_recomputed(summary), _interval(summary), *_best_single(summary, finalists)]
        found += [*_difference(summary, finalists), *_metrics(study, summary), *_plain(study, summary)]
        found += [_certified(summary), _up_to_date(study, finalists, summary)]
    return found


def _no_leak(study: Study) -> Check:
    folds = study.units.groupby("group_id")["fold"].nunique()
    split = folds[folds > 1]
    detail = f"{len(folds):,} patients, {len(split):,} of them in several folds"
    return Check("No patient is in more than one fold", split.empty, detail)


def _all_measured(study: Study) -> list[Check]:
    if study.quality is None:
        return []
    wanted = sorted(study.units["unit_id"])
    measured = {kind: sorted(rows["unit_id"]) for kind, rows in study.quality.groupby("kind")}
    passed = all(found == wanted for found in measured.values())
    detail = "; ".join(f"{kind}: {len(found):,} of {len(wanted):,} units" for kind, found in measured.items())
    return [Check("The recordings of every unit were measured, once a kind", passed, detail)]


def _same_rows(finalists: list[Scored]) -> Check:
    first = finalists[0].rows["unit_id"]
    other = [f.trial for f in finalists if not f.rows["unit_id"].equals(first)]
    detail = f"{len(first):,} units" if not other else f"others than {finalists[0].trial} has: {', '.join(other[:5])}"
    return Check("All tables are scored on the same units", not other, detail)


def _same_origin(study: Study, finalists: list[Scored]) -> Check:
    ours = (study.data["fingerprint"], study.folds["fingerprint"])
    other = [f.trial for f in finalists if f.origin != ours]
    detail = f"data {ours[0]}, folds {ours[1]}" + (f"; not those of {', '.join(other[:5])}" if other else "")
    return Check("All tables were made from this study's data and folds", not other, detail)


def _none_stopped(finalists: list[Scored], trials: pd.DataFrame) -> list[Check]:
    states = dict(zip(trials["trial"], trials["state"], strict=True))
    searched = [f.trial for f in finalists if f.trial in states]
    other = [f"{trial} ({states[trial]})" for trial in searched if states[trial] != "COMPLETE"]
    detail = f"{len(searched)} tables of trials" + (f"; not complete: {', '.join(other[:5])}" if other else "")
    return [Check("No table is of a trial that was stopped or failed", not other, detail)] if searched else []


def _recomputed(summary: EnsembleSummary) -> Check:
    said, found = summary.block.ensemble, float(summary.rows["score"].mean())
    rows = f"{len(summary.rows):,} of {summary.block.population.units:,} rows"
    same = _equal(said, found) and len(summary.rows) == summary.block.population.units
    return Check("The ensemble's predictions have the score it claims", same, f"{_pair(said, found)} on {rows}")


def _interval(summary: EnsembleSummary) -> Check:
    """Compare the standard error with that of the predictions; the interval itself comes of random draws."""
    said, found = summary.result.interval, float(summary.rows["score"].mean())
    error = standard_error(summary.rows["score"], summary.rows["group_id"])
    inside = not said.known or said.low <= found <= said.high
    passed = inside and _equal(said.value, found) and _same(said.error, error)
    detail = f"{words.nats(found)} in {words.interval(said)}; {_errors(said, error)}"
    return Check(
        "The interval holds the predictions' score, and its standard error is theirs by patient", passed, detail
    )


def _best_single(summary: EnsembleSummary, finalists: list[Scored]) -> list[Check]:
    if not finalists:
        return []
    said, best = summary.result.baselines.best_single, finalists[0]
    name = summary.result.baselines.best_single_trial
    detail = f"{name} {_pair(said, best.score)} of {best.trial}"
    return [Check("The best single is the best table here", _equal(said, best.score), detail)]


def _difference(summary: EnsembleSummary, finalists: list[Scored]) -> list[Check]:
    """Compare the difference to the best single with that of the rows of both tables."""
    best = next((f for f in finalists if f.trial == summary.result.baselines.best_single_trial), None)
    if best is None:
        return []
    both = summary.rows.merge(best.rows, on="unit_id", suffixes=("", "_theirs"))
    gain, said = both["score_theirs"] - both["score"], summary.best.difference
    error = standard_error(gain, both["group_id"])
    passed = _equal(said.value, float(gain.mean())) and _same(said.error, error)
    detail = f"{_pair(said.value, float(gain.mean()))}; {_errors(said, error)}"
    return [Check("The difference to the best single is that of both tables, unit by unit", passed, detail)]


def _metrics(study: Study, summary: EnsembleSummary) -> list[Check]:
    """Compare the metrics, and the size and score of each population by votes, with those of the predictions."""
    if summary.rows.empty:  # nothing has metrics, and the check of the score has failed
        return []
    said, found = (
        summary.result.metrics,
        diagnostics.predictions(summary.table, study.min_votes, summary.result.metrics.thresholds),
    )
    pairs = _figures(said, found)
    for row in said.score_by_min_votes:
        where = tables.those("units", row.min_votes)
        scores = tables.score_rows(summary.table, row.min_votes)["score"]
        pairs |= {f"number of {where}": (row.units, len(scores)), f"score of {where}": (row.ensemble, scores.mean())}
    what = "Metrics, and scores by number of votes," if len(said.score_by_min_votes) > 1 else "Metrics"
    return [_agree(f"{what} are those of the predictions", pairs)]


def _plain(study: Study, summary: EnsembleSummary) -> list[Check]:
    """Compare what is said of the plain baseline with its predictions."""
    said, rule = (
        summary.result.metrics_of_plain,
        "The plain baseline has the score and the metrics that are said of it",
    )
    if said is None or summary.plain is None:
        there = [name for name, its in (("its figures", said), ("its predictions", summary.plain)) if its is not None]
        return [Check(rule, False, f"only {there[0]} are here")] if there else []
    found = diagnostics.predictions(summary.plain, study.min_votes, said.thresholds)
    score = {"score": (summary.result.baselines.plain, float(found.scores.mean()))}
    return [_agree(rule, score | _figures(said, found))]


def _figures(said: PredictionMetrics, found: diagnostics.Predictions) -> dict[str, tuple[float | None, float]]:
    """Pair the metrics that are said of predictions with those found, at thresholds too where there are such."""
    pairs = {name: (getattr(said, name), getattr(found.metrics, name)) for name in METRICS}
    if found.thresholded:
        its = said.thresholded
        pairs |= {f"{name} at thresholds": (getattr(its, name), getattr(found.thresholded, name)) for name in METRICS}
    return pairs


def _agree(rule: str, pairs: dict[str, tuple[float | None, float]]) -> Check:
    """Check that figures said and found are the same, and name those that are not."""
    other = [name for name, (theirs, ours) in pairs.items() if not _same(theirs, ours)]
    detail = f"{len(pairs)} figures" + (f"; others than found: {', '.join(other[:5])}" if other else "")
    return Check(rule, not other, detail)


def _certified(summary: EnsembleSummary) -> Check:
    gaps, limit = summary.result.gaps, CERTIFIED
    closed = max(gaps, default=0.0) < limit
    named = any("not certified" in note for note in summary.result.notes)
    detail = f"largest gap {words.bound(max(gaps))}, limit {limit:g}" if gaps else "no method here has a certificate"
    if not closed:
        detail += f"; a note {'says so' if named else 'that says so is missing'}"
    return Check("Every duality gap is closed, or a note says that it is not", closed or named, detail)


def _up_to_date(study: Study, finalists: list[Scored], summary: EnsembleSummary) -> Check:
    count, folds = summary.result.candidates, summary.result.folds_fingerprint
    members = {f.trial for f in finalists}
    lost = [trial for trial in summary.result.weights if trial not in members]
    passed = count == len(finalists) and folds == study.folds["fingerprint"] and not lost
    detail = f"{count} tables when it was fitted, {len(finalists)} now"
    if lost:
        detail += f"; no table of member {', '.join(lost[:5])}"
    return Check("The ensemble was fitted on the tables and folds that are here", passed, detail)


def _pair(said: float, found: float) -> str:
    return f"said {said:.7f}, found {found:.7f}"


def _errors(said: Estimate, found: float) -> str:
    return f"standard error said {words.nats(said.error)}, found {words.nats(found)}"


def _same(said: float | None, found: float) -> bool:
    """Say whether two figures are one; what is not known is None in a file, and NaN here."""
    return math.isnan(found) if said is None else _equal(said, found)


def _equal(said: float, found: float) -> bool:
    return math.isclose(said, found, abs_tol=TOLERANCE)
