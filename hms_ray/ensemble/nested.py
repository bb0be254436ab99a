"""Cross-fitting: everything that is fitted or chosen for a fold uses rows of other folds only.

The hyper-parameters of a method, and the methods that `auto` combines, are chosen by a nested cross-fitting among the
remaining folds. The fit without folds {j, k} predicts k in the choice for j, and j in the choice for k: it is made
once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from hms_ray.core.errors import ConfigError
from hms_ray.ensemble import members as _members
from hms_ray.ensemble import weighing
from hms_ray.ensemble.methods import AUTO, Candidate, candidates
from hms_ray.ensemble.pools import average, uniform
from hms_ray.ensemble.pools._base import Pool, restricted, spread
from hms_ray.ensemble.rows import Rows

MOST_MEMBERS = 40  # methods not in SEES_ALL use at most this number of members, those with the largest linear weights
MOST_UNITS = 10_000  # fits that are only used for a choice use at most this number of units

SEES_ALL = ("linear", "uniform", "prior", "best_single")

NOTHING: frozenset[int] = frozenset()
LINEAR, MEAN = Candidate("linear"), Candidate("uniform")


@dataclass(frozen=True)
class CrossFit:
    """Held-out predictions (N, ..., K) of every unit, the pool that predicted each fold, and notes for the reader."""

    probs: np.ndarray
    pools: dict[int, Pool]
    notes: tuple[str, ...]

    @property
    def gap(self) -> float | None:
        """The largest gap of the fits; None if no fit has one."""
        return max((pool.gap for pool in self.pools.values() if pool.gap is not None), default=None)


class Fits:
    """Every candidate, fitted without some folds; each fit and each prediction is made once."""

    def __init__(
        self,
        rows: Rows,
        limits: _members.Limits | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.rows = rows
        self.limits = limits or _members.Limits()
        self._progress = progress
        self._allowed: dict[frozenset[int], np.ndarray] = {}
        self._pools: dict[tuple[Candidate, frozenset[int]], Pool] = {}
        self._latest_key: tuple[np.ndarray, np.ndarray] | None = None
        self._latest = (np.empty(0), np.empty(0), np.empty(0))
        self._predictions: dict[tuple[Candidate, frozenset[int], int], np.ndarray] = {}

    def pool(self, candidate: Candidate, without: frozenset[int] = NOTHING) -> Pool:
        """Return the candidate fitted on the scored units of the other folds."""
        if (candidate, without) in self._pools:
            return self._pools[candidate, without]
        rows, units = self.rows, np.flatnonzero(self.rows.outside(without))
        if len(without) > 1:
            units = units[:: -(-len(units) // MOST_UNITS)]
        members, groups = self._members(candidate, without, units), rows.effective_groups(units)
        if len(members) == rows.n_members and candidate.method in SEES_ALL:  # these select their rows without a copy
            weight = np.zeros_like(rows.weight)
            weight[units] = rows.weight[units]
            fitted = candidate.fit(rows.probs, rows.targets, weight, groups)
        else:
            start, key = self._nearby(candidate, without, members), (units, members)
            if self._latest_key is None or not all(map(np.array_equal, self._latest_key, key)):
                probs = rows.probs[units] if len(members) == rows.n_members else rows.probs[units[:, None], members]
                self._latest_key, self._latest = key, (probs, rows.targets[units], rows.weight[units])
            fitted = candidate.only(members).fit(*self._latest, groups, start)
        k = len(rows.fold_numbers)
        expected = (1 + k + k * (k - 1) // 2) * len(candidates(AUTO, rows.families))  # by `auto`; others: a few more
        if self._progress and len(self._pools) < expected:
            self._progress(len(self._pools) + 1, expected)
        self._pools[candidate, without] = spread(fitted, members, rows.n_members)
        return self._pools[candidate, without]

    def predict(self, candidate: Candidate, without: frozenset[int], fold: int) -> np.ndarray:
        """Return the predictions of all units of one of the folds that the candidate was fitted without."""
        key = candidate, without, fold
        if key not in self._predictions:
            held_out = self.rows.probs[self.rows.folds == fold]
            self._predictions[key] = self.pool(candidate, without).predict(held_out)
        return self._predictions[key]

    def chosen(self, method: str, without: frozenset[int] = NOTHING) -> Pool:
        """Return a method's pool for the rows outside these folds; hyper-parameters are chosen on these rows."""
        options = candidates(method, self.rows.families)
        shares = self.shares(method, options, without)
        used = np.flatnonzero(shares)
        pools = tuple(self.pool(options[i], without) for i in used)
        return pools[0] if len(pools) == 1 else average.Pool(pools, shares[used])

    def shares(self, method: str, options: tuple[Candidate, ...], without: frozenset[int]) -> np.ndarray:
        """Return the share of each of a method's candidates (C,), by their predictions of each inner fold.

        With a single fold to fit on there is no choice: `auto` is the plain mean, others use their first candidate.
        """
        inner = [int(k) for k in np.unique(self.rows.folds[self.rows.outside(without)])]
        plain = options.index(MEAN) if method == AUTO else 0
        if len(options) == 1 or len(inner) < 2:
            return np.eye(len(options))[plain]
        units = np.concatenate([np.flatnonzero(self.rows.scored & (self.rows.folds == fold)) for fold in inner])
        predicted = np.empty((len(options), len(units), *self.rows.targets.shape[1:]))
        start = 0
        for fold in inner:  # all candidates of a fold in turn: they share the rows of the fit
            scored = self.rows.scored[self.rows.folds == fold]
            part = slice(start, start := start + int(scored.sum()))
            for candidate, probs in zip(options, predicted, strict=True):
                probs[part] = self.predict(candidate, without | {fold}, fold)[scored]
        if method == AUTO:
            return weighing.average(self.rows, units, predicted, plain)
        return weighing.best(self.rows, units, predicted)

    def _nearby(self, candidate: Candidate, without: frozenset[int], members: np.ndarray) -> Pool | None:
        """Return a pool of these members to start from: one fitted to a part of the rows, or with other options."""
        fewer = [(candidate, without | {fold}) for fold in self.rows.fold_numbers if fold not in without]
        before = replace(candidate, number=candidate.number - 1), without
        pool = next((self._pools[key] for key in (*fewer, before) if key in self._pools), None)
        if pool is None or not set(np.flatnonzero(pool.weights)) <= set(members) or not pool.weights.any():
            return None
        return restricted(pool, members)

    def _members(self, candidate: Candidate, without: frozenset[int], units: np.ndarray) -> np.ndarray:
        """Return the positions of the members that a candidate may use."""
        if without not in self._allowed:
            self._allowed[without] = _members.select(self.rows, units, self.limits)
        allowed = self._allowed[without]
        if candidate.method in SEES_ALL or len(allowed) <= MOST_MEMBERS:
            return allowed
        weights = self.pool(LINEAR, without).weights
        heaviest = np.argsort(-weights, kind="stable")[:MOST_MEMBERS]
        return np.sort(heaviest[weights[heaviest] > 0])


def cross_fit(fits: Fits, method: str) -> CrossFit:
    """Predict the units of each fold by the method's pool that is fitted, and chosen, on the other folds.

    If the other folds have no scored unit, the fold gets the uniform average of the members, and a note.

    Raises:
        ConfigError: there is a single fold, so there are no others to fit on.
    """
    rows = fits.rows
    if len(rows.fold_numbers) < 2:
        raise ConfigError(f"cross-fitting needs units of 2 folds or more; these are all of fold {rows.fold_numbers[0]}")
    pooled, notes = np.empty(rows.targets.shape), []
    pools: dict[int, Pool] = {}
    for fold in rows.fold_numbers:
        held_out = rows.probs[rows.folds == fold]
        if rows.outside(frozenset({fold})).any():
            pools[fold] = fits.chosen(method, frozenset({fold}))
        else:
            pools[fold] = uniform.fit(held_out, rows.targets)
            notes.append(f"fold {fold}: no scored unit lies in the other folds, so its members are weighted uniformly")
        pooled[rows.folds == fold] = pools[fold].predict(held_out)
    if method == AUTO and len(np.unique(rows.folds[rows.scored])) == 2:
        notes.append(
            "with two folds, one fold is left to fit on, so auto has no choice: each fold is predicted by the plain "
            "mean of the members, and the cross-fitted score is the plain mean's. Use three folds or more"
        )
    return CrossFit(pooled, pools, tuple(notes))
