"""Scores side by side: every method in sample and cross-fitted, with intervals, and the baselines' distance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hms_ray.ensemble import baselines as _baselines
from hms_ray.ensemble import bootstrap, selection
from hms_ray.ensemble.methods import methods_for
from hms_ray.ensemble.nested import CrossFit, Fits, cross_fit
from hms_ray.ensemble.pools._base import Pool
from hms_ray.ensemble.result import Baselines, Differences, MethodScore
from hms_ray.ensemble.rows import Rows
from hms_ray.tasks import CLIP

WORST = -float(np.log(CLIP))  # a unit's score where the prediction is 0 for what is true
SCORES, DIFFERENCES = (0.0, WORST), (-WORST, WORST)  # what a mean of scores can be, and of differences of scores


@dataclass(frozen=True)
class Method:
    """One method's pool of all rows, and its cross-fitted predictions."""

    name: str
    pool: Pool
    nested: CrossFit

    def in_sample(self, rows: Rows) -> float:
        """Return the score on the rows of the fit, which is optimistic."""
        return rows.score(self.pool.predict(rows.probs))


def run(fits: Fits, name: str) -> Method:
    """Fit and cross-fit one method."""
    return Method(name, fits.chosen(name), cross_fit(fits, name))


def table(fits: Fits, ours: Method, rng: np.random.Generator) -> list[MethodScore]:
    """Return one row for each method, ours first: its scores, and how much worse it is than ours, cross-fitted."""
    rows = fits.rows
    methods = [ours, *(run(fits, name) for name in methods_for(rows.families) if name != ours.name)]
    losses = np.stack([_losses(rows, method.nested.probs) for method in methods], axis=1)
    scores = _estimates(rows, losses, rng, SCORES)
    differences = _estimates(rows, losses - losses[:, :1], rng, DIFFERENCES)
    return [
        MethodScore(
            method=method.name,
            score_in_sample=method.in_sample(rows),
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
    ours: CrossFit,
    members: np.ndarray,
    rng: np.random.Generator,
    plain: np.ndarray | None = None,
    plain_is: str | None = None,
) -> Baselines:
    """Return the baselines' scores and how much worse than our cross-fitted score each is.

    members (n, M): losses
    plain: a plain model's predictions (N, ..., K), None where there are none; plain_is: its description
    """
    best = _baselines.best_single(members, rows.weight[rows.scored])
    columns = {"best_single": members[:, best], "mean": _losses(rows, _baselines.mean(rows))}
    columns["prior"] = _losses(rows, _baselines.prior(rows))
    columns |= {} if plain is None else {"plain": _losses(rows, plain)}
    losses, mine = np.stack(list(columns.values()), axis=1), _losses(rows, ours.probs)
    apart = _estimates(rows, losses - mine[:, None], rng, DIFFERENCES)
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
        differences=Differences(**dict(zip(columns, apart, strict=True))),
    )


def _losses(rows: Rows, pooled: np.ndarray) -> np.ndarray:
    """Return the scored units' losses (n,) of predictions (N, ..., K)."""
    return rows.losses(pooled[rows.scored], rows.scored)


def _estimates(
    rows: Rows, losses: np.ndarray, rng: np.random.Generator, bounds: tuple[float, float]
) -> list[bootstrap.Estimate]:
    return bootstrap.estimates(losses, rows.groups[rows.scored], rows.weight[rows.scored], rng, bounds=bounds)
