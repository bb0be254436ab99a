"""Which (configuration, fold) pairs are trained next: folds go where the ensemble is expected to gain most by them.

Pure functions on arrays, with predictions and targets as in `racing`: targets (N, ..., K), probs (N, M, ..., K).

All configurations train their folds in the same order, and all train the first fold. Rounds follow, in each of which
every configuration that is kept trains one more fold. After a round, configurations that have finished r folds are
compared on the units of these folds. They leave one by one, first the one without which the linear pool is best, until
the expected gain of the next one is at least the cost of the folds that it lacks. Only a configuration with all folds
can be a member of the ensemble, so that all of these folds count. Those with most folds are decided first. Those
dropped earlier are then compared beside them again: one returns where the others no longer replace it.

The cost of a fold is its share of `price`, the gain in nats that justifies training all M x (F - 1) pairs after the
first fold. One fold of one configuration is a larger share of a search for six configurations than of one for two
hundred, and must gain more.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from hms_ray.ensemble.bootstrap import standard_error
from hms_ray.ensemble.pools import linear
from hms_ray.ensemble.terms import scored_terms
from hms_ray.tasks import CLIP

PRICE = 4e-3  # nats for all pairs after the first fold; chosen on subsets of 18 real models, see `bench/_race_sets.py`
SHRINKAGE = 40  # units for each member: how strongly weights are pulled to equal ones while members are compared
TRIED = 3  # members of smallest weight that are tried when one has to leave
WIDE = 24  # of more members than this, a quarter of the surplus leaves in one step
FEWEST = 10  # patients; with fewer, no gain is reliable and nobody leaves because of the price

NODES, CHANCES = np.polynomial.hermite_e.hermegauss(31)  # of a standard normal distribution
CHANCES = CHANCES / CHANCES.sum()


@dataclass(frozen=True)
class Plan:
    """What a search trains next.

    pairs: (configuration, position of its fold in the order) of the next round, those of largest weight first
    kept: the configurations to train on all folds, as far as is known now; sorted
    """

    pairs: list[tuple[int, int]]
    kept: list[int]


def plan(
    targets: np.ndarray,
    probs: np.ndarray,
    groups: np.ndarray,
    folds: np.ndarray,
    trained: np.ndarray,
    *,
    price: float = PRICE,
    budget: float = 1.0,
    most: int | None = None,
) -> Plan:
    """Return the pairs of the next round; none: the search has ended.

    groups (N,): the patients; folds (N,): the position of each unit's fold in the order of training, from 0
    trained (M, F): which pairs have predictions. A configuration trains its folds in order. Predictions of other pairs
    are not read and may be NaN.
    budget: the share of all M x F pairs that may be trained. Only to complete one configuration it may be exceeded.
    most: how many configurations at most get all folds; None: any number

    A round can be decided when no pair is being trained. Its pairs may be trained at the same time, in any order. Where
    some are behind, because they returned or because a round was interrupted, the round is theirs: the others wait.
    """
    done = np.cumprod(trained, axis=1).sum(1)
    left = int(budget * trained.size + 1e-9) - int(trained.sum())
    if (done == 0).any():
        behind = np.flatnonzero(done == 0).tolist()
        return Plan([(member, 0) for member in behind[: max(left, 0)]], list(range(len(done))))
    n_members, n_folds = trained.shape
    cost = price / (n_members * max(n_folds - 1, 1))
    search = _Search(targets, probs, groups, folds, done, n_folds, cost)
    weights: dict[int, float] = {}  # of those kept
    most = n_members if most is None else most
    for fold in range(n_folds, 0, -1):
        spare, free = left - search.missing(weights), np.flatnonzero(done == fold)
        weights |= search.decide(free, sorted(weights), fold, spare, most - len(weights))
    wanted = [member for member in weights if done[member] < n_folds]
    first = min((done[member] for member in wanted), default=0)
    wanted = sorted((member for member in wanted if done[member] == first), key=lambda member: -weights[member])
    return Plan([(member, int(first)) for member in wanted], sorted(weights))


@dataclass(frozen=True)
class _Search:
    """What is known; done (M,): the folds that each configuration has finished; cost: that of a fold, in nats."""

    targets: np.ndarray
    probs: np.ndarray
    groups: np.ndarray
    folds: np.ndarray
    done: np.ndarray
    n_folds: int
    cost: float

    def missing(self, members: Iterable[int]) -> int:
        """Return how many folds these configurations still lack."""
        return sum(self.n_folds - int(self.done[member]) for member in members)

    def decide(self, free: np.ndarray, kept: list[int], fold: int, spare: int, room: int) -> dict[int, float]:
        """Return which of the free configurations, all of which have finished `fold` folds, go on beside those kept.

        With each comes its weight in their pool. spare: the folds that they may still train, all together; room: how
        many of them may get all folds.
        """
        lacking = self.n_folds - fold
        if not lacking and len(free) <= room:
            return dict.fromkeys(free.tolist(), 0.0)
        if not len(free):
            return {}
        most = max(min(spare // lacking, room) if lacking else room, 0 if kept else 1)
        rows = self.folds < fold
        targets, members = self.targets[rows], np.append(free, np.array(kept, dtype=int))
        if not (targets > 0).any():  # nothing is scored: all are alike
            return dict.fromkeys(free[:most].tolist(), 0.0)
        units, groups = np.nonzero(targets > 0)[0], self.groups[rows]
        terms, shares = scored_terms(self.probs[rows][:, members], targets)
        reliable = len(np.unique(groups[units])) >= FEWEST
        cost = self.cost * lacking if reliable else 0.0
        chosen, weights = eliminate(Seen(terms, shares, units, groups), len(free), most, cost)
        return dict(zip(free[chosen].tolist(), weights.tolist(), strict=True))


@dataclass(frozen=True)
class Seen:
    """The P scored (unit, class) pairs of N units: terms (P, M), shares (P,), units (P,), groups (N,)."""

    terms: np.ndarray
    shares: np.ndarray
    units: np.ndarray
    groups: np.ndarray


def eliminate(seen: Seen, n_free: int, most: int, cost: float) -> tuple[np.ndarray, np.ndarray]:
    """Return which of the first n_free of the M members stay, at most `most`, and their weights in the shrunk pool.

    The members after the first n_free stay in any case. Who leaves is chosen by pools whose weights are shrunk towards
    equal ones, since weights that few units fit best choose badly. It leaves if the gain that is expected of it beside
    those that are left is less than `cost`. Of several without which the pool is equally good the first leaves.
    """
    terms, shares, n_units = seen.terms, seen.shares, len(seen.groups)
    chosen, best = np.arange(terms.shape[1]), linear.fit_terms(terms, shares).weights
    weights = _shrunk(terms, shares, n_units)
    at_once = n_free
    while n_free > 0 and len(chosen) > 1:
        at_once = min(at_once, n_free, max(1, (len(chosen) - WIDE) // 4))
        now = terms[:, chosen]
        leaving, fitted = _cheapest(now, shares, n_units, weights, n_free, at_once)
        without = _best_without(now, shares, best, leaving)
        others = np.delete(now, leaving, axis=1)
        if n_free > most or (_expected_gains(seen, others, without, now[:, leaving]) < cost).all():
            chosen, weights, best, n_free = np.delete(chosen, leaving), fitted, without, n_free - at_once
        elif at_once > 1:
            at_once = 1
        else:
            break
    return chosen[:n_free], weights[:n_free]


def _expected_gains(seen: Seen, others: np.ndarray, best: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Return the gain (C,) that is expected of each candidate (P, C) beside the best pool of the others (P, M).

    With q the pool, the slope of the gain as weight moves to a candidate is s = sum y p / q - 1, and the gain is about
    w s - w^2 h / 2 at the best weight w from 0 to 1, h the curvature in the direction that the others cannot follow.
    The expectation is over a normal distribution of s around its value here with its standard error, which counts
    patients: a member that brings nothing on these units may still bring something on others.
    """
    pooled, n_units = others @ best, len(seen.groups)
    root = np.sqrt(seen.shares)[:, None]
    active, relative = others[:, best > 0] / pooled[:, None], candidates / pooled[:, None]
    apart = relative - active @ np.linalg.lstsq(active * root, relative * root, rcond=None)[0]
    curvature = np.maximum(seen.shares @ apart**2, CLIP)
    slopes = seen.shares @ relative - 1
    by_unit = [np.bincount(seen.units, seen.shares * own, minlength=n_units) * n_units for own in apart.T]
    errors = np.array([standard_error(own, seen.groups) for own in by_unit])
    drawn = slopes[:, None] + errors[:, None] * NODES
    step = np.clip(drawn / curvature[:, None], 0, 1)
    return (step * drawn - step**2 * curvature[:, None] / 2) @ CHANCES


def _cheapest(
    terms: np.ndarray, shares: np.ndarray, n_units: int, weights: np.ndarray, n_free: int, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the free members that cost the shrunk pool least, by position, and the weights of the others.

    Of one, those of smallest weight are tried; several are those of smallest weight.
    """
    lightest = np.argsort(weights[:n_free], kind="stable")
    tried = []
    for leaving in [lightest[:count]] if count > 1 else lightest[:TRIED, None]:
        others = np.delete(terms, leaving, axis=1)
        fitted = _shrunk(others, shares, n_units, np.delete(weights, leaving))
        tried.append((-shares @ np.log(others @ fitted), leaving.tolist(), fitted))
    return np.array(min(tried, key=lambda found: found[:2])[1]), min(tried, key=lambda found: found[:2])[2]


def _best_without(terms: np.ndarray, shares: np.ndarray, best: np.ndarray, leaving: np.ndarray) -> np.ndarray:
    """Return the best weights of the members that are left; best (M,): those of all."""
    rest = np.delete(best, leaving)
    if not best[leaving].any():
        return rest
    start = rest + best[leaving].sum() / len(rest)
    return linear.fit_terms(np.delete(terms, leaving, axis=1), shares, start).weights


def _shrunk(terms: np.ndarray, shares: np.ndarray, n_units: int, start: np.ndarray | None = None) -> np.ndarray:
    """Fit weights (M,) to the pairs and, for each member, to SHRINKAGE made-up units that it alone predicts.

    It is the mode under a Dirichlet prior: no member is without weight.
    """
    members = terms.shape[1]
    alone = np.clip(np.eye(members), CLIP, 1 - CLIP)
    counts = np.append(shares * n_units, np.full(members, float(SHRINKAGE)))
    return linear.fit_terms(np.concatenate([terms, alone]), counts / counts.sum(), start).weights
