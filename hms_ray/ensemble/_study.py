"""Fit the ensemble of a study: read every out-of-fold table, fit, cross-fit, and write down what came of it."""

import logging
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from hms_ray import files
from hms_ray.ensemble import _baselines, linear_pool
from hms_ray.ensemble._nested import CrossFit, cross_fit
from hms_ray.errors import ConfigError, raise_all
from hms_ray.oof import OofTable, Stack, population, stack
from hms_ray.study_folder import StudyFolder

log = logging.getLogger(__name__)


def fit_study(folder: StudyFolder, min_votes: int | None = None) -> dict[str, Any]:
    """Fit the linear pool of a study's out-of-fold tables; write ensemble/oof.parquet, then ensemble/ensemble.json.

    min_votes: units with fewer votes are predicted but neither fitted on nor scored; None takes the study's own.
    Returns what ensemble.json holds: weights, certificate, cross-fitted and baseline scores, and `notes`, sentences on
    anything that did not go as it should.

    Raises:
        ConfigError: no study, no tables, tables of other data or folds, one fold only, or nobody has `min_votes`.
        DataError: a table that is broken, or does not fit the others.
    """
    study = folder.read_study()
    members = _read_members(folder, study)
    min_votes = study["score"]["min_votes"] if min_votes is None else min_votes
    scored = population(members.votes, min_votes)
    fitted = linear_pool.fit(members.probs[scored], members.targets[scored])
    nested = cross_fit(linear_pool.fit, members.probs, members.targets, members.folds, scored)
    notes = [*nested.notes, *_uncertified(fitted.gap, nested.gap)]
    for note in notes:
        log.warning(note)
    result = _fit_figures(members, scored, fitted) | _nested_figures(members, scored, nested) | {"notes": notes}
    result["population"] |= {"min_votes": min_votes}
    _table(members, nested).write(folder.ensemble_oof)
    files.write_json(folder.ensemble, result)
    return result


@dataclass(frozen=True)
class _Figures:
    """Scores on one set of units; lower is better."""

    units: int
    groups: int
    kl_cross_fitted: float
    best_single: float
    best_single_trial: str
    mean: float
    prior: float

    def pick(self, *names: str) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names}


def _read_members(folder: StudyFolder, study: dict[str, Any]) -> Stack:
    ids = folder.oof_ids()
    if not ids:
        raise ConfigError(
            f"{folder.root} holds no out-of-fold tables to combine; run `hms-ray search` to train some, "
            "or give files with --oof"
        )
    members = stack([OofTable.read(folder.oof(trial)) for trial in ids])
    known = {"data": members.data_fingerprint, "folds": members.folds_fingerprint}
    faults = [
        f"their {key} fingerprint is {found!r}, the study's is {study[key]['fingerprint']!r}"
        for key, found in known.items()
        if found != study[key]["fingerprint"]
    ]
    raise_all(faults, ConfigError, f"the out-of-fold tables of {folder.root} are not of this study")
    return members


def _uncertified(*gaps: float) -> list[str]:
    """Return the sentence that owns up to weights whose certificate stayed open, if any did."""
    if max(gaps) < linear_pool.TOLERANCE:
        return []
    return [f"weights are not certified: the duality gap is {max(gaps):.3g}, not below {linear_pool.TOLERANCE:g}"]


def _fit_figures(members: Stack, scored: np.ndarray, fitted: linear_pool.Pool) -> dict[str, Any]:
    """Weights fitted on all folds: what a bundle uses, and the optimistic score that goes with it."""
    used = zip(members.trials, members.spaces, map(float, fitted.weights), strict=True)
    return {
        "members": [{"trial": trial, "space": space, "weight": w} for trial, space, w in used if w > 0],
        "pool": "linear",
        "duality_gap": fitted.gap,
        "kl_in_sample": members.task.score(members.targets[scored], fitted.predict(members.probs[scored])),
    }


def _nested_figures(members: Stack, scored: np.ndarray, nested: CrossFit) -> dict[str, Any]:
    """Scores that no weight was fitted on, beside the baselines on the same units."""
    every = _figures(members, nested, scored, scored)
    return {
        "kl_cross_fitted": every.kl_cross_fitted,
        "kl_cross_fitted_by_fold": _by_fold(members, scored, nested),
        "gap_by_fold": nested.gap,
        "baselines": every.pick("best_single", "best_single_trial", "mean", "prior"),
        "population": every.pick("units", "groups"),
        "candidates": len(members.trials),
        "folds_fingerprint": members.folds_fingerprint,
        "outside_selection": _outside_selection(members, scored, nested),
    }


def _figures(members: Stack, nested: CrossFit, scored: np.ndarray, rows: np.ndarray) -> _Figures:
    """Score on `rows`; `scored`, the whole population, is what the prior of the other folds is taken from."""
    task, targets = members.task, members.targets[rows]
    best, best_score = _baselines.best_single(task, targets, members.probs[rows])
    prior = _baselines.prior(task, members.targets, members.folds, scored)
    return _Figures(
        units=int(rows.sum()),
        groups=len(np.unique(members.group_ids[rows])),
        kl_cross_fitted=task.score(targets, nested.probs[rows]),
        best_single=best_score,
        best_single_trial=members.trials[best],
        mean=task.score(targets, _baselines.mean(members.probs[rows])),
        prior=task.score(targets, prior[rows]),
    )


def _by_fold(members: Stack, scored: np.ndarray, nested: CrossFit) -> dict[str, float | None]:
    """Score each fold; None for a fold without scored units."""
    by_fold = {int(fold): scored & (members.folds == fold) for fold in np.unique(members.folds)}
    return {
        str(fold): members.task.score(members.targets[rows], nested.probs[rows]) if rows.any() else None
        for fold, rows in by_fold.items()
    }


def _outside_selection(members: Stack, scored: np.ndarray, nested: CrossFit) -> dict[str, Any] | None:
    """Score the folds that chose no member; None where no fold chose any, or none with scored units is left."""
    rows = scored & ~np.isin(members.folds, members.selected_on)
    if not members.selected_on or not rows.any():
        return None
    left = _figures(members, nested, scored, rows)
    names = ("units", "groups", "kl_cross_fitted", "best_single", "mean", "prior")
    return {"folds": [int(fold) for fold in np.unique(members.folds[rows])], **left.pick(*names)}


def _table(members: Stack, nested: CrossFit) -> OofTable:
    """The cross-fitted predictions as a table like any other; its name is not a trial's."""
    shared = {field.name for field in fields(OofTable)} & {field.name for field in fields(Stack)} - {"probs"}
    own = {"probs": nested.probs, "trial": "ensemble", "space": "ensemble"}
    return OofTable(**{name: getattr(members, name) for name in shared}, **own)
