"""Cross-fitting: whatever is fitted or chosen for a fold comes from rows of other folds alone.

A method's hyper-parameters, and the methods that `auto` combines, are chosen by a cross-fitting among the folds that
remain. The fit without folds {j, k} predicts k within the choice for j, and j within the choice for k: it is made once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from hms_ray.core.errors import ConfigError
from hms_ray.ensemble import members as _members
from hms_ray.ensemble import weighing
from hms_ray.ensemble.methods import AUTO, Candidate, candidates
from hms_ray.ensemble.pools import average, uniform
from hms_ray.ensemble.pools._base import Pool, restricted, spread
from hms_ray.ensemble.rows import Rows

MOST_MEMBERS = 40  # methods other than the linear pool see its heaviest members, no more than this,
MOST_UNITS = 10_000  # and fits that only a choice depends on see no more units than this

SEES_ALL = ("linear", "uniform", "prior", "best_single")

NOTHING: frozenset[int] = frozenset()
LINEAR, MEAN = Candidate("linear"), Candidate("uniform")


@dataclass(frozen=True)
class CrossFit:
    """Held-out predictions (N, ..., K) of every unit, the pool that predicted each fold, and what has to be said."""

    probs: np.ndarray
    pools: dict[int, Pool]
    notes: tuple[str, ...]

    @property
    def gap(self) -> float | None:
        """The largest gap of the fits, None where none has one."""
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
        self._limits = limits or _members.Limits()
        self._progress = progress
        self._allowed: dict[frozenset[int], np.ndarray] = {}
        self._pools: dict[tuple[Candidate, frozenset[int]], Pool] = {}
        self._latest: tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]] | None = None
        self._predictions: dict[tuple[Candidate, frozenset[int], int], np.ndarray] = {}

    def pool(self, candidate: Candidate, without: frozenset[int] = NOTHING) -> Pool:
        """Return the candidate fitted on the scored units of the other folds."""
        key = candidate, without
        if key not in self._pools:
            self._pools[key] = self._fit(candidate, without)
        return self._pools[key]

    def predict(self, candidate: Candidate, without: frozenset[int], fold: int) -> np.ndarray:
        """Return its predictions of all units of one of the folds it was fitted without."""
        key = candidate, without, fold
        if key not in self._predictions:
            held_out = self.rows.probs[self.rows.folds == fold]
            self._predictions[key] = self.pool(candidate, without).predict(held_out)
        return self._predictions[key]

    def chosen(self, method: str, without: frozenset[int] = NOTHING) -> Pool:
        """Return a method's pool for the rows outside these folds, its hyper-parameters chosen on those rows alone."""
        options = candidates(method, self.rows.families)
        shares = self.shares(method, options, without)
        used = np.flatnonzero(shares)
        pools = tuple(self.pool(options[i], without) for i in used)
        return pools[0] if len(pools) == 1 else average.Pool(pools, shares[used])

    def shares(self, method: str, options: tuple[Candidate, ...], without: frozenset[int]) -> np.ndarray:
        """Return what each of a method's candidates counts (C,), by their predictions of each inner fold.

        With one fold to fit on nothing can be chosen: `auto` is the plain mean, any other method its first candidate.
        """
        inner = [int(k) for k in np.unique(self.rows.folds[self.rows.outside(without)])]
        plain = options.index(MEAN) if method == AUTO else 0
        if len(options) == 1 or len(inner) < 2:
            return np.eye(len(options))[plain]
        units = np.concatenate([np.flatnonzero(self.rows.scored & (self.rows.folds == fold)) for fold in inner])
        predicted = np.empty((len(options), len(units), *self.rows.targets.shape[1:]))
        start = 0
        for fold in inner:  # the candidates of a fold one after the other: they are fitted to the same rows
            scored = self.rows.scored[self.rows.folds == fold]
            part = slice(start, start := start + int(scored.sum()))
            for candidate, its in zip(options, predicted, strict=True):
                its[part] = self.predict(candidate, without | {fold}, fold)[scored]
        if method == AUTO:
            return weighing.average(self.rows, units, predicted, plain)
        return weighing.best(self.rows, units, predicted)

    def _fit(self, candidate: Candidate, without: frozenset[int]) -> Pool:
        rows, units = self.rows, np.flatnonzero(self.rows.outside(without))
        if len(without) > 1:
            units = units[:: -(-len(units) // MOST_UNITS)]
        members = self._members(candidate, without, units)
        fitted = self._fitted(candidate, without, units, members)
        if self._progress and len(self._pools) < self._expected:
            self._progress(len(self._pools) + 1, self._expected)
        return spread(fitted, members, rows.n_members)

    def _fitted(self, candidate: Candidate, without: frozenset[int], units: np.ndarray, members: np.ndarray) -> Pool:
        rows, groups = self.rows, self.rows.effective_groups(units)
        if len(members) == rows.n_members and candidate.method in SEES_ALL:  # take what they need: no copy
            weight = np.zeros_like(rows.weight)
            weight[units] = rows.weight[units]
            return candidate.fit(rows.probs, rows.targets, weight, groups)
        start = self._nearby(candidate, without, members)
        return candidate.only(members).fit(*self._slice(units, members), groups, start)

    def _nearby(self, candidate: Candidate, without: frozenset[int], members: np.ndarray) -> Pool | None:
        """Return a pool of some of these members to begin at: fitted to a part of the rows, or by other options."""
        fewer = [(candidate, without | {fold}) for fold in self.rows.fold_numbers if fold not in without]
        before = replace(candidate, number=candidate.number - 1), without
        pool = next((self._pools[key] for key in (*fewer, before) if key in self._pools), None)
        if pool is None or not set(np.flatnonzero(pool.weights)) <= set(members) or not pool.weights.any():
            return None
        return restricted(pool, members)

    def _slice(self, units: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return probs, targets and weight of these units and members; the latest are kept for the next candidate."""
        wanted = units, members
        if self._latest is None or not all(map(np.array_equal, self._latest[0], wanted)):
            rows = self.rows
            probs = rows.probs[units] if len(members) == rows.n_members else rows.probs[units[:, None], members]
            self._latest = wanted, (probs, rows.targets[units], rows.weight[units])
        return self._latest[1]

    def _members(self, candidate: Candidate, without: frozenset[int], units: np.ndarray) -> np.ndarray:
        """Return the positions of the members that a candidate may use."""
        if without not in self._allowed:
            self._allowed[without] = _members.select(self.rows, units, self._limits)
        allowed = self._allowed[without]
        if candidate.method in SEES_ALL or len(allowed) <= MOST_MEMBERS:
            return allowed
        weights = self.pool(LINEAR, without).weights
        heaviest = np.argsort(-weights, kind="stable")[:MOST_MEMBERS]
        return np.sort(heaviest[weights[heaviest] > 0])

    @cached_property
    def _expected(self) -> int:
        """How many fits `auto` takes, which is all but a few of what other methods need."""
        k = len(self.rows.fold_numbers)
        return (1 + k + k * (k - 1) // 2) * len(candidates(AUTO, self.rows.families))


def cross_fit(fits: Fits, method: str) -> CrossFit:
    """Predict each fold's units by the method's pool of the other folds, everything chosen there.

    A fold whose complement holds no scored unit gets the uniform average of the members, and a note.

    Raises:
        ConfigError: there is only one fold, so nothing could be fitted on the others.
    """
    rows = fits.rows
    if len(rows.fold_numbers) < 2:
        raise ConfigError(f"cross-fitting needs units of 2 folds or more; these are all of fold {rows.fold_numbers[0]}")
    pooled, pools, notes = np.empty(rows.targets.shape), {}, []
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
            "of two folds one is left to fit on, in which nothing can be chosen: each fold is predicted by the plain "
            "mean of the members, and the cross-fitted score is the plain mean's. Three folds or more let auto choose"
        )
    return CrossFit(pooled, pools, tuple(notes))
