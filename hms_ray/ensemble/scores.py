"""Scores in one place: every method, the baselines, and parts of the rows, on the same units and draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hms_ray.ensemble import baselines as _baselines
from hms_ray.ensemble import bootstrap, selection
from hms_ray.ensemble.methods import methods_for
from hms_ray.ensemble.nested import CrossFit, Fits, cross_fit
from hms_ray.ensemble.pools._base import Pool
from hms_ray.ensemble.result import Baselines, Differences, MethodScore, OutsideSelection, VotesScore
from hms_ray.ensemble.rows import Rows
from hms_ray.tasks import CLIP

WORST = -float(np.log(CLIP))  # the score of a unit whose true outcome has a prediction of 0
SCORES, DIFFERENCES = (0.0, WORST), (-WORST, WORST)  # ranges of a mean of scores, and of a difference of means
VOTE_THRESHOLDS = (1, 3, 5, 8, 10, 15, 20)


@dataclass(frozen=True)
class Method:
    """One method: its pool of all rows, and its cross-fitted predictions."""

    name: str
    pool: Pool
    nested: CrossFit


def run(fits: Fits, name: str) -> Method:
    """Fit and cross-fit one method."""
    return Method(name, fits.chosen(name), cross_fit(fits, name))


def table(fits: Fits, ensemble: Method, rng: np.random.Generator) -> list[MethodScore]:
    """Return the scores of every method and its difference to the ensemble's method, which is the first."""
    rows = fits.rows
    methods = [ensemble, *(run(fits, name) for name in methods_for(rows.families) if name != ensemble.name)]
    losses = np.stack([_losses(rows, method.nested.probs) for method in methods], axis=1)
    scores = _estimates(rows, losses, rng, SCORES)
    differences = _estimates(rows, losses - losses[:, :1], rng, DIFFERENCES)
    return [
        MethodScore(
            method=method.name,
            score_in_sample=rows.score(method.pool.predict(rows.probs)),
            score_cross_fitted=score,
            difference=difference,
            members=int((method.pool.weights > 0).sum()),
            gap=method.pool.gap,
            gap_by_fold=method.nested.gap,
        )
        for method, score, difference in zip(methods, scores, differences, strict=True)
    ]


def baselines(
    rows: Rows,
    ensemble: CrossFit,
    members: np.ndarray,
    rng: np.random.Generator,
    plain: np.ndarray | None = None,
    plain_is: str | None = None,
) -> Baselines:
    """Return the scores of the baselines, and the difference of each to the ensemble's cross-fitted score.

    members (n, M): losses
    plain: predictions (N, ..., K) of a plain model, or None; plain_is: its description
    """
    best = _baselines.best_single(members, rows.weight[rows.scored])
    columns = {"best_single": members[:, best], "mean": _losses(rows, _baselines.mean(rows))}
    columns["prior"] = _losses(rows, _baselines.prior(rows))
    columns |= {} if plain is None else {"plain": _losses(rows, plain)}
    losses = np.stack(list(columns.values()), axis=1)
    differences = _estimates(rows, losses - _losses(rows, ensemble.probs)[:, None], rng, DIFFERENCES)
    scores = _estimates(rows, losses, rng, SCORES)
    values = {name: score.value for name, score in zip(columns, scores, strict=True)}
    return Baselines(
        best_single_trial=rows.names[best],
        best_single=values["best_single"],
        mean=values["mean"],
        prior=values["prior"],
        plain=values.get("plain"),
        plain_is=None if plain is None else plain_is,
        best_single_corrected=selection.best_single(members, rows.groups[rows.scored], rows.weight[rows.scored], rng),
        differences=Differences(**dict(zip(columns, differences, strict=True))),
    )


def by_fold(rows: Rows, probs: np.ndarray) -> dict[str, float | None]:
    """Return the score of predictions (N, ..., K) on each fold; None for a fold without scored units."""
    masks = {fold: rows.scored & (rows.folds == fold) for fold in rows.fold_numbers}
    return {str(fold): _mean(rows, probs, mask) if mask.any() else None for fold, mask in masks.items()}


def outside_selection(rows: Rows, selected_on: tuple[int, ...], probs: np.ndarray) -> OutsideSelection | None:
    """Score the ensemble's predictions (N, ..., K) on the folds on which no configuration was chosen.

    None if no fold was used to choose, or no scored unit is left.
    """
    mask = rows.scored & ~np.isin(rows.folds, selected_on)
    if not selected_on or not mask.any():
        return None
    members = np.stack([rows.losses(rows.probs[mask, m], mask) for m in range(rows.n_members)], axis=1)
    return OutsideSelection(
        folds=tuple(np.unique(rows.folds[mask]).tolist()),
        units=int(mask.sum()),
        groups=len(np.unique(rows.groups[mask])),
        best_single=float(members.mean(0).min()),
        score_cross_fitted=_mean(rows, probs, mask),
        mean=_mean(rows, _baselines.mean(rows), mask),
        prior=_mean(rows, _baselines.prior(rows), mask),
    )


def by_min_votes(
    rows: Rows, probs: np.ndarray, best_single: str, votes: np.ndarray, min_votes: int
) -> tuple[VotesScore, ...]:
    """Score the ensemble's predictions (N, ..., K) on units with at least each number of votes, also unscored units.

    best_single: the name of this member
    """
    prior, best = _baselines.prior(rows), rows.probs[:, rows.names.index(best_single)]
    masks = {threshold: votes >= threshold for threshold in vote_thresholds(votes, min_votes)}
    return tuple(
        VotesScore(
            min_votes=threshold,
            units=int(mask.sum()),
            groups=len(np.unique(rows.groups[mask])),
            ensemble=_mean(rows, probs, mask),
            best_single=_mean(rows, best, mask),
            prior=_mean(rows, prior, mask),
        )
        for threshold, mask in masks.items()
    )


def vote_thresholds(votes: np.ndarray, min_votes: int) -> list[int]:
    """Return min_votes and those of VOTE_THRESHOLDS that keep units, each number of units once."""
    by_size: dict[int, int] = {}  # populations are nested, so two of one size are the same
    for threshold in (min_votes, *VOTE_THRESHOLDS):
        by_size.setdefault(int((votes >= threshold).sum()), threshold)
    return sorted(threshold for size, threshold in by_size.items() if size)


def _mean(rows: Rows, probs: np.ndarray, mask: np.ndarray) -> float:
    """Return the mean score of predictions (N, ..., K) on the units of the mask (N,)."""
    return float(rows.losses(probs[mask], mask).mean())


def _losses(rows: Rows, pooled: np.ndarray) -> np.ndarray:
    """Return the losses (n,) of predictions (N, ..., K) on the scored units."""
    return rows.losses(pooled[rows.scored], rows.scored)


def _estimates(
    rows: Rows, losses: np.ndarray, rng: np.random.Generator, bounds: tuple[float, float]
) -> list[bootstrap.Estimate]:
    return bootstrap.estimates(losses, rows.groups[rows.scored], rows.weight[rows.scored], rng, bounds=bounds)
