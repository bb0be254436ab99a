"""Which members an ensemble needs: fewer where a limit says so, what each is worth, and how alike their errors are."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from hms_ray.core.errors import ConfigError, raise_all
from hms_ray.ensemble.pools import linear
from hms_ray.ensemble.rows import Rows
from hms_ray.ensemble.terms import scored_terms

TINY = 1e-12  # seconds, as members may cost nothing; and nats


@dataclass(frozen=True)
class Limits:
    """How large an ensemble may be; None: no such limit.

    members: how many carry weight; per_family: how many of one family; seconds: the sum of `costs` (M,), what each
    member takes at inference; tolerance: drop members while the pool stays within so many nats of its optimum
    """

    members: int | None = None
    per_family: int | None = None
    seconds: float | None = None
    costs: tuple[float, ...] | None = None
    tolerance: float | None = None

    def __bool__(self) -> bool:
        return any(limit is not None for limit in (self.members, self.per_family, self.seconds, self.tolerance))

    def check(self, n_members: int) -> None:
        """Raise ConfigError with every fault."""
        faults = [
            f"{name} must be 1 or more, but got {value!r}"
            for name, value in (("max_members", self.members), ("max_per_family", self.per_family))
            if value is not None and value < 1
        ]
        if self.tolerance is not None and not 0 <= self.tolerance < np.inf:
            faults.append(f"tolerance must be 0 or more nats, but got {self.tolerance!r}")
        raise_all([*faults, *self._cost_faults(n_members)], ConfigError, "limits")

    def _cost_faults(self, n_members: int) -> list[str]:
        if (self.seconds is None) != (self.costs is None):
            return ["max_seconds needs costs, the seconds of each member, and costs need max_seconds"]
        if self.costs is None:
            return []
        if len(self.costs) != n_members or not all(0 <= cost < np.inf for cost in self.costs):
            return [f"costs must be {n_members} numbers of 0 or more, one a member, but got {self.costs!r}"]
        if not min(self.costs) <= self.seconds:
            return [f"max_seconds is {self.seconds:g}, but the cheapest member takes {min(self.costs):g}"]
        return []

    def too_many(self, kept: np.ndarray, families: np.ndarray) -> np.ndarray:
        """Return those of the kept members (positions) of whom one has to go; none if the limits hold."""
        if self.members is not None and len(kept) > self.members:
            return kept
        if self.seconds is not None and sum(self.costs[m] for m in kept) > self.seconds:
            return kept
        counts = Counter(families[kept].tolist())
        return kept[[self.per_family is not None and counts[families[m]] > self.per_family for m in kept]]


@dataclass(frozen=True)
class _Fit:
    """A linear pool of some members: weights (M,), those with weight, and its loss on the rows of the fit."""

    weights: np.ndarray
    kept: np.ndarray
    loss: float


def select(rows: Rows, units: np.ndarray, limits: Limits) -> np.ndarray:
    """Return the positions of the members that may be used, chosen on these units: all, if there is no limit.

    Begin with the members of the optimal linear pool; while there are too many, drop the one that the pool of the
    others, fitted anew, misses least. That can go wrong, so that it is also begun at the best single member, and where
    seconds are limited with the one missed least for each second saved; members that still fit are added, and the
    smallest loss decides. With a tolerance, which needs no limit to be filled, there is the first way alone.
    """
    if not limits:
        return np.arange(rows.n_members)
    terms = scored_terms(rows.probs[units], rows.targets[units], rows.weight[units])
    costs, families = np.array(limits.costs or np.ones(rows.n_members)), np.asarray(rows.families)
    affordable = np.flatnonzero(costs <= (np.inf if limits.seconds is None else limits.seconds))
    best = _fit(*terms, affordable, None)
    shrunk = _shrunk(terms, best, limits, families, np.ones_like(costs))
    if limits.tolerance is not None:
        return shrunk.kept
    alone = _fit(*terms, affordable[[(terms[1] @ np.log(terms[0][:, affordable])).argmax()]], None)
    cheap = [] if limits.costs is None else [_shrunk(terms, best, limits, families, np.maximum(costs, TINY))]
    others = affordable if limits.costs else np.union1d(best.kept, alone.kept)
    found = [_refilled(terms, pool, others, limits, families) for pool in (shrunk, alone, *cheap)]
    return min(found, key=lambda pool: pool.loss).kept


def _shrunk(
    terms: tuple[np.ndarray, np.ndarray], pool: _Fit, limits: Limits, families: np.ndarray, costs: np.ndarray
) -> _Fit:
    """Drop members until the limits hold and the tolerance is used up: first who is missed least for its cost."""
    most = pool.loss + (limits.tolerance or 0)
    while len(pool.kept) > 1:
        excess = limits.too_many(pool.kept, families)
        tried = [_fit(*terms, pool.kept[pool.kept != m], pool.weights) for m in (excess if len(excess) else pool.kept)]
        saved = [costs[np.setdiff1d(pool.kept, other.kept)].sum() for other in tried]
        smaller = tried[int(np.argmin([(o.loss - pool.loss) / s for o, s in zip(tried, saved, strict=True)]))]
        if not len(excess) and (limits.tolerance is None or smaller.loss > most):
            break
        pool = smaller
    return pool


def _refilled(
    terms: tuple[np.ndarray, np.ndarray], pool: _Fit, affordable: np.ndarray, limits: Limits, families: np.ndarray
) -> _Fit:
    """Add the member that helps most for as long as one fits into the limits and helps."""
    while True:
        larger = [np.append(pool.kept, m) for m in affordable if m not in pool.kept]
        fitting = [_fit(*terms, kept, None) for kept in larger if not len(limits.too_many(kept, families))]
        best = min(fitting, key=lambda other: other.loss, default=pool)
        if best.loss >= pool.loss - TINY:
            return pool
        pool = best


def leave_one_out(rows: Rows, weights: dict[int, np.ndarray]) -> np.ndarray:
    """Return the score (M,) of the cross-fitted linear pool without each member, the others' weights fitted anew.

    weights: those of the linear pool that predicts each fold, fitted without it. Members that carry weight nowhere
    leave the score as it is; to stand in for a missing one, only those that carry weight somewhere are asked. NaN for
    the only one that does.
    """
    used = np.flatnonzero(np.any([w > 0 for w in weights.values()], axis=0))
    losses = np.zeros((rows.n_members, len(rows.targets)))
    for fold, its in weights.items():
        held_out = rows.scored & (rows.folds == fold)
        probs = rows.probs[np.flatnonzero(held_out)[:, None], used]
        losses[:, held_out] = rows.losses(linear.pool(probs, its[used]), held_out)
        units = np.flatnonzero(rows.outside(frozenset({fold})))
        few = rows.probs[units[:, None], used]
        terms = scored_terms(few, rows.targets[units], rows.weight[units]) if len(units) else None
        for position in np.flatnonzero(its[used] > 0) if len(used) > 1 else ():
            others = np.delete(np.arange(len(used)), position)
            left = _fit(*terms, others, its[used]).weights if terms else _equal(others, len(used))
            losses[used[position], held_out] = rows.losses(linear.pool(probs, left), held_out)
    scores = np.average(losses[:, rows.scored], axis=1, weights=rows.weight[rows.scored])
    scores[used if len(used) == 1 else []] = np.nan
    return scores


def error_correlation(rows: Rows, members: np.ndarray) -> np.ndarray:
    """Return the correlations (m, m) of these members' errors, prediction minus target, over units and classes.

    A member that makes no errors is like no other: 0.
    """
    if not len(members):
        return np.zeros((0, 0))
    units = np.flatnonzero(rows.scored)
    errors = rows.probs[units[:, None], members] - rows.targets[units][:, None]
    flat = np.moveaxis(errors, 1, 0).reshape(len(members), -1)
    flat -= flat.mean(1, keepdims=True)
    size = np.linalg.norm(flat, axis=1, keepdims=True)
    flat /= np.where(size > 0, size, 1)
    return np.where(np.eye(len(members)), 1, flat @ flat.T)


def _equal(members: np.ndarray, n_members: int) -> np.ndarray:
    """Return weights that are alike for these members: those of a fold that nothing could be fitted for."""
    return np.bincount(members, minlength=n_members) / len(members)


def _fit(terms: np.ndarray, shares: np.ndarray, members: np.ndarray, near: np.ndarray | None) -> _Fit:
    """Fit the linear pool of some members, beginning near the weights (M,) of another pool."""
    start = None if near is None or not near[members].any() else near[members]
    few = terms[:, members]
    weights = np.zeros(terms.shape[1])
    weights[members] = linear.fit_terms(few, shares, start).weights
    return _Fit(weights, np.flatnonzero(weights > 0), float(-shares @ np.log(few @ weights[members])))
