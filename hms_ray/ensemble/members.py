"""The members of an ensemble: selection under limits, contribution of each, and correlation of their errors."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from hms_ray.core.errors import ConfigError, raise_all
from hms_ray.ensemble.pools import linear
from hms_ray.ensemble.rows import Rows
from hms_ray.ensemble.terms import scored_terms

TINY = 1e-12  # seconds, as a member may cost 0; also nats


@dataclass(frozen=True)
class Limits:
    """Limits on the size of an ensemble; None: no such limit.

    members: number with weight; per_family: number with weight of one family; seconds: the sum of `costs` (M,), the
    seconds of each member at inference; tolerance: drop members while the pool stays within this many nats of its
    optimum
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
        if self.seconds is None or self.costs is None:
            if self.seconds is not None or self.costs is not None:
                faults.append("max_seconds needs costs, the seconds of each member, and costs need max_seconds")
        elif len(self.costs) != n_members or not all(0 <= cost < np.inf for cost in self.costs):
            faults.append(f"costs must be {n_members} numbers of 0 or more, one a member, but got {self.costs!r}")
        elif not min(self.costs) <= self.seconds:
            faults.append(f"max_seconds is {self.seconds:g}, but the cheapest member takes {min(self.costs):g}")
        raise_all(faults, ConfigError, "limits")

    def too_many(self, kept: np.ndarray, families: np.ndarray) -> np.ndarray:
        """Return the kept members (positions) of which one must be dropped; none if the limits are met."""
        if self.members is not None and len(kept) > self.members:
            return kept
        if self.seconds is not None and self.costs and sum(self.costs[m] for m in kept) > self.seconds:
            return kept
        counts = Counter(families[kept].tolist())
        return kept[[self.per_family is not None and counts[families[m]] > self.per_family for m in kept]]


@dataclass(frozen=True)
class _Fit:
    """A linear pool of some members: weights (M,), positions with weight, and loss on the rows of the fit."""

    weights: np.ndarray
    kept: np.ndarray
    loss: float


def select(rows: Rows, units: np.ndarray, limits: Limits) -> np.ndarray:
    """Return the positions of the members to use, chosen on these units: all, if there is no limit.

    Start with the members of the optimal linear pool. While there are too many, drop the one whose removal costs least
    after a refit. This search is greedy, so there are two more: one starts with the best single member; if seconds are
    limited, one drops the member that costs least for each second saved. Then members are added while the limits are
    met, and the smallest loss decides. With a tolerance there is only the first search.
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
    pools = [_refilled(terms, pool, others, limits, families) for pool in (shrunk, alone, *cheap)]
    return min(pools, key=lambda pool: pool.loss).kept


def _shrunk(
    terms: tuple[np.ndarray, np.ndarray], pool: _Fit, limits: Limits, families: np.ndarray, costs: np.ndarray
) -> _Fit:
    """Drop members, first the one that costs least for its seconds, until limits are met and the tolerance is used."""
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
    """Add the member that helps most, while one helps and the limits are met."""
    while True:
        larger = [np.append(pool.kept, m) for m in affordable if m not in pool.kept]
        fitting = [_fit(*terms, kept, None) for kept in larger if not len(limits.too_many(kept, families))]
        best = min(fitting, key=lambda other: other.loss, default=pool)
        if best.loss >= pool.loss - TINY:
            return pool
        pool = best


def leave_one_out(rows: Rows, weights: dict[int, np.ndarray]) -> np.ndarray:
    """Return the score (M,) of the cross-fitted linear pool without each member, after a refit of the others' weights.

    weights: by fold, of the linear pool that predicts the fold and was fitted without it. The refit uses the members
    with weight in any fold; without another member the score is unchanged. NaN for the only member with weight.
    """
    used = np.flatnonzero(np.any([w > 0 for w in weights.values()], axis=0))
    losses = np.zeros((rows.n_members, len(rows.targets)))
    for fold, of_fold in weights.items():
        held_out = rows.scored & (rows.folds == fold)
        probs = rows.probs[np.flatnonzero(held_out)[:, None], used]
        losses[:, held_out] = rows.losses(linear.pool(probs, of_fold[used]), held_out)
        units = np.flatnonzero(rows.outside(frozenset({fold})))
        few = rows.probs[units[:, None], used]
        terms = scored_terms(few, rows.targets[units], rows.weight[units]) if len(units) else None
        for position in np.flatnonzero(of_fold[used] > 0) if len(used) > 1 else ():
            others = np.delete(np.arange(len(used)), position)
            equal = np.bincount(others, minlength=len(used)) / len(others)  # without a unit to fit on
            left = equal if terms is None else _fit(*terms, others, of_fold[used]).weights
            losses[used[position], held_out] = rows.losses(linear.pool(probs, left), held_out)
    scores = np.average(losses[:, rows.scored], axis=1, weights=rows.weight[rows.scored])
    scores[used if len(used) == 1 else []] = np.nan
    return scores


def error_correlation(rows: Rows, members: np.ndarray) -> np.ndarray:
    """Return the correlations (m, m) of these members' errors, prediction minus target, over units and classes.

    Correlations with a member without errors are 0.
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


def _fit(terms: np.ndarray, shares: np.ndarray, members: np.ndarray, near: np.ndarray | None) -> _Fit:
    """Fit the linear pool of some members, starting from the weights (M,) of another pool."""
    start = None if near is None or not near[members].any() else near[members]
    few = terms[:, members]
    weights = np.zeros(terms.shape[1])
    weights[members] = linear.fit_terms(few, shares, start).weights
    return _Fit(weights, np.flatnonzero(weights > 0), float(-shares @ np.log(few @ weights[members])))
