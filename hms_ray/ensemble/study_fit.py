"""Fit the ensemble of a study: read the out-of-fold tables, fit, cross-fit, and write the result."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hms_ray.core import files, seeds
from hms_ray.core.errors import ConfigError, raise_all
from hms_ray.ensemble import choice, metrics, notes, scores
from hms_ray.ensemble import members as _members
from hms_ray.ensemble import methods as _methods
from hms_ray.ensemble.members import Limits
from hms_ray.ensemble.nested import Fits
from hms_ray.ensemble.pools import _base
from hms_ray.ensemble.result import EnsembleResult, Member, ScoredUnits
from hms_ray.ensemble.rows import Rows
from hms_ray.ensemble.scores import Method
from hms_ray.ensemble.threads import on_one_thread
from hms_ray.study.folder import StudyFolder
from hms_ray.study.oof import OofTable, Stack, population, stack

log = logging.getLogger(__name__)

SEED = 0  # of the bootstrap; the fits are deterministic
PLAIN = "a plain model"  # description of the baseline if study.json has none


@on_one_thread
def fit_study(
    folder: StudyFolder,
    min_votes: int | None = None,
    pool: str = _methods.AUTO,
    limits: Limits | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> EnsembleResult:
    """Fit a pool to a study's out-of-fold tables; write ensemble/oof.parquet, then ensemble/ensemble.json.

    min_votes: units with fewer votes are predicted, but neither fitted on nor scored; None: the study's number.
    pool, limits, progress: as in `fit`; the families of the members are their spaces.
    Returns the content of ensemble.json.

    Raises:
        ConfigError: no study, no tables, tables of other data or folds, a single fold, no unit with `min_votes` votes,
            an unknown pool, or limits that cannot be met.
        DataError: a table, or the plain baseline's, is broken or does not match the others.
        OSError: the study cannot be written to; this is found before anything is fitted.
    """
    _methods.check(pool)
    study = folder.read_study()
    members = _read_members(folder, study)
    files.check_writable(folder.ensemble)
    plain = None  # predictions (N, K) of the plain baseline, in the members' order of units
    if folder.baseline.is_file():
        plain = stack([OofTable.read(folder.oof(members.trials[0])), OofTable.read(folder.baseline)]).probs[:, 1]
    min_votes = int(study["score"]["min_votes"]) if min_votes is None else min_votes
    rows = Rows(
        task=members.task,
        probs=members.task.outcomes(members.probs),
        targets=members.task.outcomes(members.targets),
        folds=members.folds,
        groups=members.group_ids,
        weight=population(members.votes, min_votes).astype(np.float64),
        names=members.trials,
        families=members.spaces,
    )
    limits = Limits() if limits is None else limits
    limits.check(rows.n_members)
    fits = Fits(rows, limits, progress)
    ensemble = scores.run(fits, pool)
    result = _describe(folder, study, members, fits, ensemble, plain, min_votes)
    for note in result.notes:
        log.warning(note)
    rules = set(members.epoch_rules)
    doubtful = (rule for rule in ("best", "given") if rule in rules)
    OofTable(  # the cross-fitted predictions, as a table like any other
        unit_ids=members.unit_ids,
        group_ids=members.group_ids,
        folds=members.folds,
        votes=members.votes,
        targets=members.targets,
        probs=rows.task.from_outcomes(ensemble.nested.probs),
        task=members.task,
        trial="ensemble",
        space="ensemble",
        data_fingerprint=members.data_fingerprint,
        folds_fingerprint=members.folds_fingerprint,
        selected_on=members.selected_on,
        epoch_rule=rules.pop() if len(rules) == 1 else next(doubtful, "cross_fitted"),  # the most optimistic one
    ).write(folder.ensemble_oof)
    result.write(folder.ensemble)
    return result


def _describe(
    folder: StudyFolder,
    study: Mapping[str, Any],
    members: Stack,
    fits: Fits,
    ensemble: Method,
    plain: np.ndarray | None,
    min_votes: int,
) -> EnsembleResult:
    """Score the ensemble, the other methods and the baselines, and collect everything for ensemble.json."""
    rows, cross_fit = fits.rows, ensemble.nested
    rng = seeds.stream(SEED, "ensemble", "bootstrap")  # shared: the order of the next three decides the draws
    losses, methods = notes.member_losses(rows), scores.table(fits, ensemble, rng)
    plain_outcomes = None if plain is None else rows.task.outcomes(plain)
    plain_is = study["data"].get("baseline") or PLAIN
    baselines = scores.baselines(rows, cross_fit, losses, rng, plain_outcomes, plain_is)
    selection = choice.correction(folder, members, rows, rng)
    corrected = None  # an estimated optimism below 0 is chance, and adds nothing
    if selection:
        corrected = rows.score(cross_fit.probs) + selection.share * max(selection.optimism, 0.0)
    by_votes = scores.by_min_votes(rows, cross_fit.probs, baselines.best_single_trial, members.votes, min_votes)
    auroc_rng = seeds.stream(SEED, "ensemble", "auroc")
    of_ensemble, of_plain = metrics.of_study(rows, cross_fit, plain, by_votes, auroc_rng)
    rules = zip(members.trials, members.epoch_rules, strict=True)
    optimistic = tuple(trial for trial, rule in rules if rule == "best")
    return EnsembleResult(
        pool=ensemble.name,
        fitted=_base.restricted(ensemble.pool, np.flatnonzero(ensemble.pool.weights > 0)),
        members=_described(members, fits, ensemble),
        duality_gap=ensemble.pool.gap,
        gap_by_fold=cross_fit.gap,
        limits=fits.limits or None,
        score_in_sample=methods[0].score_in_sample,
        score_cross_fitted=methods[0].score_cross_fitted.value,
        score_cross_fitted_by_fold=scores.by_fold(rows, cross_fit.probs),
        interval=methods[0].score_cross_fitted,
        methods=tuple(methods),
        baselines=baselines,
        selection=selection,
        score_selection_corrected=corrected,
        outside_selection=scores.outside_selection(rows, members.selected_on, cross_fit.probs),
        population=ScoredUnits(units=rows.n_units, groups=rows.n_groups, min_votes=min_votes),
        candidates=rows.n_members,
        folds_fingerprint=members.folds_fingerprint,
        metrics=of_ensemble,
        metrics_of_plain=of_plain,
        optimistic_epochs=optimistic,
        notes=(
            *study["data"].get("notes", ()),  # for example, on rows that an import left out
            *notes.of_epochs(optimistic, rows.n_members),
            *cross_fit.notes,
            *notes.of_constant(rows, ensemble.pool),
            *notes.of_gaps(methods),
            *notes.of(rows, members.unit_ids, losses),
        ),
    )


def _read_members(folder: StudyFolder, study: Mapping[str, Any]) -> Stack:
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


def _described(members: Stack, fits: Fits, ensemble: Method) -> tuple[Member, ...]:
    """Describe the members with weight: score of the linear pool without each, and the most correlated other member."""
    used = np.flatnonzero(ensemble.pool.weights > 0)
    linear = scores.run(fits, "linear")
    without = _members.leave_one_out(fits.rows, {k: pool.weights for k, pool in linear.nested.pools.items()})
    whole = fits.rows.score(linear.nested.probs)
    correlations = _members.error_correlation(fits.rows, used)
    np.fill_diagonal(correlations, -np.inf)
    return tuple(
        Member(
            trial=members.trials[m],
            space=members.spaces[m],
            weight=float(ensemble.pool.weights[m]),
            without=None if np.isnan(without[m]) else float(without[m]),
            gain=None if np.isnan(without[m]) else float(without[m] - whole),
            most_alike=members.trials[used[correlations[i].argmax()]] if len(used) > 1 else None,
            error_correlation=float(correlations[i].max()) if len(used) > 1 else None,
        )
        for i, m in enumerate(used)
    )
