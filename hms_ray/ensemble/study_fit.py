"""Fit the ensemble of a study: read every out-of-fold table, fit, cross-fit, and write down what came of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np

from hms_ray.core import files, seeds
from hms_ray.core.errors import ConfigError, raise_all
from hms_ray.ensemble import baselines, choice, metrics, notes, scores
from hms_ray.ensemble import members as _members
from hms_ray.ensemble import methods as _methods
from hms_ray.ensemble.members import Limits
from hms_ray.ensemble.nested import CrossFit, Fits
from hms_ray.ensemble.pools import _base
from hms_ray.ensemble.pools import linear as linear_pool
from hms_ray.ensemble.result import (
    EnsembleMetrics,
    EnsembleResult,
    Member,
    MethodScore,
    OutsideSelection,
    ScoredUnits,
    Selection,
    VotesScore,
)
from hms_ray.ensemble.rows import Rows
from hms_ray.ensemble.scores import Method
from hms_ray.ensemble.threads import on_one_thread
from hms_ray.study.folder import StudyFolder
from hms_ray.study.oof import OofTable, Stack, population, stack

log = logging.getLogger(__name__)

SEED = 0  # of the bootstrap; fits have nothing random
PLAIN = "a plain model"  # what a baseline is where study.json does not say
VOTE_THRESHOLDS = (1, 3, 5, 8, 10, 15, 20)


@on_one_thread
def fit_study(
    folder: StudyFolder,
    min_votes: int | None = None,
    pool: str = _methods.AUTO,
    limits: Limits | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> EnsembleResult:
    """Fit a pool to a study's out-of-fold tables; write ensemble/oof.parquet, then ensemble/ensemble.json.

    min_votes: units with fewer votes are predicted but neither fitted on nor scored; None takes the study's own.
    pool, limits, progress: as in `fit`; the members' families are their spaces.
    Returns what ensemble.json holds.

    Raises:
        ConfigError: no study, no tables, tables of other data or folds, one fold only, nobody has `min_votes`, no such
            pool, or limits that cannot be kept.
        DataError: a table that is broken, or does not fit the others, the plain baseline's too.
        OSError: nothing can be written into the study; this is found before anything is fitted.
    """
    _methods.check(pool)
    study = folder.read_study()
    members = _read_members(folder, study)
    files.check_writable(folder.ensemble)
    plain = _read_plain(folder, members)
    min_votes = study["score"]["min_votes"] if min_votes is None else min_votes
    rows = _rows(members, population(members.votes, min_votes))
    limits = Limits() if limits is None else limits
    limits.check(rows.n_members)
    fits = Fits(rows, limits, progress)
    ours = scores.run(fits, pool)
    rng = seeds.stream(SEED, "ensemble", "bootstrap")
    described = _described(members, fits, ours)
    losses, methods = notes.member_losses(rows), scores.table(fits, ours, rng)
    plain_outcomes = None if plain is None else rows.task.outcomes(plain)
    plain_is = study["data"].get("baseline") or PLAIN
    compared = scores.baselines(rows, ours.nested, losses, rng, plain_outcomes, plain_is)
    leaks = notes.of(rows, members.unit_ids, losses)
    selection = choice.correction(folder, members, rows, rng)
    optimistic = _optimistic(members)
    result = EnsembleResult(
        pool=ours.name,
        fitted=_base.restricted(ours.pool, np.flatnonzero(ours.pool.weights > 0)),
        members=described,
        duality_gap=ours.pool.gap,
        gap_by_fold=ours.nested.gap,
        limits=limits or None,
        score_in_sample=methods[0].score_in_sample,
        score_cross_fitted=methods[0].score_cross_fitted.value,
        score_cross_fitted_by_fold=_by_fold(rows, ours.nested),
        interval=methods[0].score_cross_fitted,
        methods=tuple(methods),
        baselines=compared,
        selection=selection,
        score_selection_corrected=_corrected(rows.score(ours.nested.probs), selection),
        outside_selection=_outside_selection(rows, members.selected_on, ours.nested),
        population=ScoredUnits(units=rows.n_units, groups=rows.n_groups, min_votes=min_votes),
        candidates=rows.n_members,
        folds_fingerprint=members.folds_fingerprint,
        **_metric_figures(members, rows, ours.nested, plain, compared.best_single_trial, min_votes),
        optimistic_epochs=optimistic,
        notes=(
            *study["data"].get("notes", ()),  # rows that an import left out, if any
            *notes.of_epochs(optimistic, rows.n_members),
            *ours.nested.notes,
            *notes.of_constant(rows, ours.pool),
            *_uncertified(methods),
            *leaks,
        ),
    )
    for note in result.notes:
        log.warning(note)
    _table(members, rows, ours.nested).write(folder.ensemble_oof)
    result.write(folder.ensemble)
    return result


def _read_members(folder: StudyFolder, study: dict[str, Any]) -> Stack:
    ids = folder.oof_ids()
    if not ids:
        raise ConfigError(
            f"{folder.root} holds no out-of-fold tables to combine; run `hms-ray search` to train some, "
            "or give files with --oof"
        )
    members = stack([OofTable.read(folder.oof(trial)) for trial in ids])
    fingerprints = {"data": members.data_fingerprint, "folds": members.folds_fingerprint}
    sentences = {"data": "their units or labels are not the study's", "folds": "their folds are not the study's"}
    faults = [sentences[key] for key, value in fingerprints.items() if value != study[key]["fingerprint"]]
    raise_all(faults, ConfigError, f"the out-of-fold tables of {folder.root} are not of this study")
    return members


def _read_plain(folder: StudyFolder, members: Stack) -> np.ndarray | None:
    """Return the plain baseline's predictions (N, K) in the members' order of units; None where there is no such."""
    if not folder.baseline.is_file():
        return None
    first, plain = OofTable.read(folder.oof(members.trials[0])), OofTable.read(folder.baseline)
    return stack([first, plain]).probs[:, 1]


def _rows(members: Stack, scored: np.ndarray) -> Rows:
    task = members.task
    return Rows(
        task=task,
        probs=task.outcomes(members.probs),
        targets=task.outcomes(members.targets),
        folds=members.folds,
        groups=members.group_ids,
        weight=scored.astype(np.float64),
        names=members.trials,
        families=members.spaces,
    )


def _corrected(score: float, selection: Selection | None) -> float | None:
    """Add the estimated optimism of choosing configurations; an estimate below 0 is chance, and adds nothing."""
    return None if selection is None else score + selection.share * max(selection.optimism, 0.0)


def _uncertified(methods: list[MethodScore]) -> list[str]:
    """Return the sentence on weights whose certificate stayed open, if any did."""
    gaps = [gap for method in methods for gap in (method.gap, method.gap_by_fold) if gap is not None]
    if max(gaps, default=0) < linear_pool.TOLERANCE:
        return []
    return [f"weights are not certified: the duality gap is {max(gaps):.3g}, not below {linear_pool.TOLERANCE:g}"]


def _described(members: Stack, fits: Fits, ours: Method) -> tuple[Member, ...]:
    """Describe the members with weight: weight, score of the linear pool without each, likeness of its errors."""
    used = np.flatnonzero(ours.pool.weights > 0)
    linear = scores.run(fits, "linear")
    without = _members.leave_one_out(fits.rows, {k: pool.weights for k, pool in linear.nested.pools.items()})
    whole = fits.rows.score(linear.nested.probs)
    alike = _members.error_correlation(fits.rows, used)
    np.fill_diagonal(alike, -np.inf)
    return tuple(
        Member(
            trial=members.trials[m],
            space=members.spaces[m],
            weight=float(ours.pool.weights[m]),
            without=None if np.isnan(without[m]) else float(without[m]),
            gain=None if np.isnan(without[m]) else float(without[m] - whole),
            most_alike=members.trials[used[alike[i].argmax()]] if len(used) > 1 else None,
            error_correlation=float(alike[i].max()) if len(used) > 1 else None,
        )
        for i, m in enumerate(used)
    )


def _by_fold(rows: Rows, nested: CrossFit) -> dict[str, float | None]:
    """Score each fold; None for a fold without scored units."""
    by_fold = {fold: rows.scored & (rows.folds == fold) for fold in rows.fold_numbers}
    return {str(fold): _score(rows, nested.probs, mask) if mask.any() else None for fold, mask in by_fold.items()}


def _outside_selection(rows: Rows, selected_on: tuple[int, ...], nested: CrossFit) -> OutsideSelection | None:
    """Score the folds that chose no member; None where no fold chose any, or none with scored units is left."""
    mask = rows.scored & ~np.isin(rows.folds, selected_on)
    if not selected_on or not mask.any():
        return None
    members = np.stack([rows.losses(rows.probs[mask, m], mask) for m in range(rows.n_members)], axis=1)
    return OutsideSelection(
        folds=tuple(np.unique(rows.folds[mask]).tolist()),
        units=int(mask.sum()),
        groups=len(np.unique(rows.groups[mask])),
        best_single=float(members.mean(0).min()),
        score_cross_fitted=_score(rows, nested.probs, mask),
        mean=_score(rows, baselines.mean(rows), mask),
        prior=_score(rows, baselines.prior(rows), mask),
    )


def _metric_figures(
    members: Stack, rows: Rows, nested: CrossFit, plain: np.ndarray | None, best_single: str, min_votes: int
) -> dict[str, Any]:
    """Return the metrics of the cross-fitted predictions and of the plain baseline, with intervals of their AUROC."""
    rng = seeds.stream(SEED, "ensemble", "auroc")
    area, area_of_plain, gain = metrics.aurocs(rows, rows.task.from_outcomes(nested.probs), plain, rng)
    of_pool = metrics.of_pool(rows, nested).model_copy(update={"macro_auroc_interval": area})
    of_plain = None
    if plain is not None:
        of_plain = metrics.of_table(rows, plain).model_copy(update={"macro_auroc_interval": area_of_plain})
    by_votes = _by_min_votes(members, rows, nested, members.trials.index(best_single), min_votes)
    return {
        "metrics": EnsembleMetrics(**dict(of_pool), macro_auroc_gain=gain, score_by_min_votes=by_votes),
        "metrics_of_plain": of_plain,
    }


def _by_min_votes(
    members: Stack, rows: Rows, nested: CrossFit, best_single: int, min_votes: int
) -> tuple[VotesScore, ...]:
    """Score the cross-fitted predictions on units with few votes and with many, be they fitted on or not."""
    prior = baselines.prior(rows)
    by_threshold = {n: members.votes >= n for n in _vote_thresholds(members.votes, min_votes)}
    return tuple(
        VotesScore(
            min_votes=threshold,
            units=int(mask.sum()),
            groups=len(np.unique(rows.groups[mask])),
            ensemble=_score(rows, nested.probs, mask),
            best_single=_score(rows, rows.probs[:, best_single], mask),
            prior=_score(rows, prior, mask),
        )
        for threshold, mask in by_threshold.items()
    )


def _score(rows: Rows, probs: np.ndarray, mask: np.ndarray) -> float:
    """Return the mean score of predictions (N, ..., K) on the units of the mask (N,)."""
    return float(rows.losses(probs[mask], mask).mean())


def _vote_thresholds(votes: np.ndarray, own: int) -> list[int]:
    """Return the study's own threshold, and of VOTE_THRESHOLDS those that keep units, each a population of its own."""
    by_size: dict[int, int] = {}  # populations are nested, so those of one size are one
    for threshold in (own, *VOTE_THRESHOLDS):
        by_size.setdefault(int((votes >= threshold).sum()), threshold)
    return sorted(threshold for size, threshold in by_size.items() if size)


def _optimistic(members: Stack) -> tuple[str, ...]:
    """Return the trials whose epochs were chosen on the rows that they are scored on."""
    rules = zip(members.trials, members.epoch_rules, strict=True)
    return tuple(trial for trial, rule in rules if rule == "best")


def _epoch_rule(members: Stack) -> str:
    """Return how the epochs behind the ensemble were chosen: as by all candidates, or as honestly as by the worst."""
    rules = set(members.epoch_rules)
    doubtful = (rule for rule in ("best", "given") if rule in rules)
    return rules.pop() if len(rules) == 1 else next(doubtful, "cross_fitted")


def _table(members: Stack, rows: Rows, nested: CrossFit) -> OofTable:
    """The cross-fitted predictions as a table like any other; its name is not a trial's."""
    shared = {field.name for field in fields(OofTable)} & {field.name for field in fields(Stack)} - {"probs"}
    own = {"probs": rows.task.from_outcomes(nested.probs), "trial": "ensemble", "space": "ensemble"}
    return OofTable(**{name: getattr(members, name) for name in shared}, **own, epoch_rule=_epoch_rule(members))
