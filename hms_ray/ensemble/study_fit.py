"""Fit the ensemble of a study: read every out-of-fold table, fit, cross-fit, and write down what came of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, fields
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
) -> dict[str, Any]:
    """Fit a pool to a study's out-of-fold tables; write ensemble/oof.parquet, then ensemble/ensemble.json.

    min_votes: units with fewer votes are predicted but neither fitted on nor scored; None takes the study's own.
    pool, limits, progress: as in `fit`; the members' families are their spaces.
    Returns what ensemble.json holds: members, certificate, in-sample, cross-fitted and selection-corrected scores,
    baselines, a table of all methods, metrics beside the score (`metrics_of_plain` those of the plain baseline, if the
    study has one, which is no candidate), `optimistic_epochs`, the candidates whose epochs were chosen on the rows that
    they are scored on, and `notes`, sentences on anything that did not go as it should.

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
    result = {
        **_pool_figures(members, fits, ours),
        "limits": asdict(limits) if limits else None,
        **_score_figures(fits, ours, members.unit_ids, plain, rng),
        **_selection_figures(folder, members, rows, ours.nested, rng),
        "population": {"units": rows.n_units, "groups": rows.n_groups, "min_votes": min_votes},
        "candidates": rows.n_members,
        "folds_fingerprint": members.folds_fingerprint,
    }
    best_single = members.trials.index(result["baselines"]["best_single_trial"])
    result["baselines"]["plain_is"] = None if plain is None else study["data"].get("baseline") or PLAIN
    result |= _metric_figures(rows, ours.nested, plain)
    result["metrics"]["score_by_min_votes"] = _by_min_votes(members, rows, ours.nested, best_single, min_votes)
    result["optimistic_epochs"] = _optimistic(members)
    epochs = notes.of_epochs(result["optimistic_epochs"], rows.n_members)
    imported = study["data"].get("notes", ())  # rows that an import left out, if any
    result["notes"] = [*imported, *epochs, *result["notes"]]
    for note in result["notes"]:
        log.warning(note)
    _table(members, rows, ours.nested).write(folder.ensemble_oof)
    files.write_json(folder.ensemble, result)
    return result


def _read_members(folder: StudyFolder, study: dict[str, Any]) -> Stack:
    ids = folder.oof_ids()
    if not ids:
        raise ConfigError(
            f"{folder.root} holds no out-of-fold tables to combine; run `hms-ray search` to train some, "
            "or give files with --oof"
        )
    members = stack([OofTable.read(folder.oof(trial)) for trial in ids])
    known = {"data": members.data_fingerprint, "folds": members.folds_fingerprint}
    what = {"data": "their units or labels are not the study's", "folds": "their folds are not the study's"}
    faults = [what[key] for key, found in known.items() if found != study[key]["fingerprint"]]
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


def _pool_figures(members: Stack, fits: Fits, ours: Method) -> dict[str, Any]:
    """Describe the pool of all rows, which is what predicts, and its members."""
    return {
        "pool": ours.name,
        "fitted": _base.to_dict(_base.restricted(ours.pool, np.flatnonzero(ours.pool.weights > 0))),
        "members": _member_figures(members, fits, ours),
        "duality_gap": ours.pool.gap,
        "gap_by_fold": ours.nested.gap,
    }


def _score_figures(
    fits: Fits, ours: Method, unit_ids: np.ndarray, plain: np.ndarray | None, rng: np.random.Generator
) -> dict[str, Any]:
    """Score the pool in sample and cross-fitted, beside every other method and the baselines."""
    losses, methods = notes.member_losses(fits.rows), scores.table(fits, ours, rng)
    plain = None if plain is None else fits.rows.task.outcomes(plain)
    return {
        "kl_in_sample": methods[0]["kl_in_sample"],
        "kl_cross_fitted": methods[0]["kl_cross_fitted"]["value"],
        "kl_cross_fitted_by_fold": _by_fold(fits.rows, ours.nested),
        "interval": methods[0]["kl_cross_fitted"],
        "methods": methods,
        "baselines": scores.baselines(fits.rows, ours.nested, losses, rng, plain),
        "notes": [
            *ours.nested.notes,
            *notes.of_constant(fits.rows, ours.pool),
            *_uncertified(methods),
            *notes.of(fits.rows, unit_ids, losses),
        ],
    }


def _selection_figures(
    folder: StudyFolder, members: Stack, rows: Rows, nested: CrossFit, rng: np.random.Generator
) -> dict[str, Any]:
    """Say what the choice of configurations flatters the score by, and score the folds that took no part in it.

    An estimate below 0 is chance, as choosing makes no score worse than it is: it is kept, and corrects nothing.
    """
    selection = choice.correction(folder, members, rows, rng)
    flattered = selection["share"] * max(selection["optimism"], 0.0) if selection else None
    return {
        "selection": selection,
        "kl_selection_corrected": rows.score(nested.probs) + flattered if selection else None,
        "outside_selection": _outside_selection(rows, members.selected_on, nested),
    }


def _uncertified(methods: list[dict[str, Any]]) -> list[str]:
    """Return the sentence that owns up to weights whose certificate stayed open, if any did."""
    gaps = [gap for method in methods for gap in (method["gap"], method["gap_by_fold"]) if gap is not None]
    if max(gaps, default=0) < linear_pool.TOLERANCE:
        return []
    return [f"weights are not certified: the duality gap is {max(gaps):.3g}, not below {linear_pool.TOLERANCE:g}"]


def _member_figures(members: Stack, fits: Fits, ours: Method) -> list[dict[str, Any]]:
    """Describe the members with weight: weight, score of the linear pool without each, likeness of its errors.

    gain: how much worse, in nats, the cross-fitted linear pool is without it; negative: it is better. Without the only
    member of a linear pool there is none: both are None.
    """
    used = np.flatnonzero(ours.pool.weights > 0)
    linear = scores.run(fits, "linear")
    without = _members.leave_one_out(fits.rows, {k: pool.weights for k, pool in linear.nested.pools.items()})
    whole = fits.rows.score(linear.nested.probs)
    alike = _members.error_correlation(fits.rows, used)
    np.fill_diagonal(alike, -np.inf)
    return [
        {
            "trial": members.trials[m],
            "space": members.spaces[m],
            "weight": float(ours.pool.weights[m]),
            "without": None if np.isnan(without[m]) else float(without[m]),
            "gain": None if np.isnan(without[m]) else float(without[m] - whole),
            "most_alike": members.trials[used[alike[i].argmax()]] if len(used) > 1 else None,
            "error_correlation": float(alike[i].max()) if len(used) > 1 else None,
        }
        for i, m in enumerate(used)
    ]


def _by_fold(rows: Rows, nested: CrossFit) -> dict[str, float | None]:
    """Score each fold; None for a fold without scored units."""
    by_fold = {fold: rows.scored & (rows.folds == fold) for fold in rows.fold_numbers}
    return {
        str(fold): float(rows.losses(nested.probs[mask], mask).mean()) if mask.any() else None
        for fold, mask in by_fold.items()
    }


def _outside_selection(rows: Rows, selected_on: tuple[int, ...], nested: CrossFit) -> dict[str, Any] | None:
    """Score the folds that chose no member; None where no fold chose any, or none with scored units is left."""
    mask = rows.scored & ~np.isin(rows.folds, selected_on)
    if not selected_on or not mask.any():
        return None
    members = np.stack([rows.losses(rows.probs[mask, m], mask) for m in range(rows.n_members)], axis=1)
    predictions = {"kl_cross_fitted": nested.probs, "mean": baselines.mean(rows), "prior": baselines.prior(rows)}
    return {
        "folds": [int(fold) for fold in np.unique(rows.folds[mask])],
        "best_single": float(members.mean(0).min()),
        **_part(rows, mask, predictions),
    }


def _metric_figures(rows: Rows, nested: CrossFit, plain: np.ndarray | None) -> dict[str, Any]:
    """Return the metrics of the cross-fitted predictions and of the plain baseline, with intervals of their AUROC."""
    rng = seeds.stream(SEED, "ensemble", "auroc")
    mine, theirs, gain = metrics.aurocs(rows, rows.task.from_outcomes(nested.probs), plain, rng)
    of_pool = metrics.of_pool(rows, nested) | {"macro_auroc_interval": mine, "macro_auroc_gain": gain}
    of_plain = None if plain is None else metrics.of_table(rows, plain) | {"macro_auroc_interval": theirs}
    return {"metrics": of_pool, "metrics_of_plain": of_plain}


def _by_min_votes(
    members: Stack, rows: Rows, nested: CrossFit, best_single: int, min_votes: int
) -> list[dict[str, Any]]:
    """Score the cross-fitted predictions on units with few votes and with many."""
    predictions = {"kl": nested.probs, "best_single": rows.probs[:, best_single], "prior": baselines.prior(rows)}
    return [
        {"min_votes": threshold, **_part(rows, members.votes >= threshold, predictions)}
        for threshold in _vote_thresholds(members.votes, min_votes)
    ]


def _part(rows: Rows, mask: np.ndarray, predictions: dict[str, np.ndarray]) -> dict[str, Any]:
    """Score predictions (N, ..., K) on the units of the mask (N,), be they fitted on or not."""
    size = {"units": int(mask.sum()), "groups": len(np.unique(rows.groups[mask]))}
    return size | {name: float(rows.losses(probs[mask], mask).mean()) for name, probs in predictions.items()}


def _vote_thresholds(votes: np.ndarray, own: int) -> list[int]:
    """Return the study's own threshold, and of VOTE_THRESHOLDS those that keep units, each a population of its own."""
    by_size: dict[int, int] = {}  # populations are nested, so those of one size are one
    for threshold in (own, *VOTE_THRESHOLDS):
        by_size.setdefault(int((votes >= threshold).sum()), threshold)
    return sorted(threshold for size, threshold in by_size.items() if size)


def _optimistic(members: Stack) -> list[str]:
    """Return the trials whose epochs were chosen on the rows that they are scored on."""
    return [trial for trial, rule in zip(members.trials, members.epoch_rules, strict=True) if rule == "best"]


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
