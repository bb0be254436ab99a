"""Replays searches on finished out-of-fold files: what each rule would have trained, and what the ensemble had lost."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from bench import _backward
from bench._members import add_files
from bench._race_sets import Members, RaceSet, made_up_sets, real_sets
from hms_ray.core.seeds import stream
from hms_ray.ensemble import bootstrap
from hms_ray.ensemble.pools import linear
from hms_ray.ensemble.terms import scored_terms
from hms_ray.search.finalists import allocation
from hms_ray.search.pruning import ensemble_gain

QUANTILES = (0.0, -0.5, -1.0, -2.0, -4.0)  # of the plain rule, from mild to strict
FINALISTS = 8  # of the default before there was an allocation
MIN_GAIN = 1e-4


def run(arguments: list[str]) -> Iterator[str]:
    """Yield a line for each set, that of the largest mean regret first, their means, and some rules on the first set.

    Regret: what the ensemble of completed configurations has lost to that of all, on all rows, in nats. `plain rule`:
    its mean regret at the same mean share of folds, interpolated between quantiles; where all of these use more folds
    it is the regret of the strictest, marked with >. `oracle`: the least regret at this share, if all folds were known
    after the first and as many of the best configurations as fit were completed. `old`: one fold of each, then 8.
    """
    options = _options(arguments)
    sets = (real_sets(options.oof, options.min_votes) if options.oof else []) + made_up_sets()
    sets = [one for one in sets if options.sets in one.name]
    rows = []
    for one in sets:
        rows.append(_compared(one, options))
    rows.sort(key=lambda row: -row.regret)
    yield f"{options.draws} draws of each set that can be drawn, {options.orders} random orders of each"
    yield Row.header()
    yield from (row.line() for row in rows)
    yield Row.mean(rows).line()
    yield from _rules_on(sets[0], options)


@dataclass(frozen=True)
class Row:
    """What searches of one set have used and lost: means over draws and orders."""

    name: str
    models: float
    folds: float
    regret: float
    largest: float
    plain: float
    plain_is_least: bool
    oracle: float
    old_folds: float
    old: float

    @staticmethod
    def header() -> str:
        """Return the names of the columns."""
        return (
            f"{'set':34} {'models':>6} {'folds used':>10} {'regret':>8} {'largest':>8}"
            f" {'plain rule':>11} {'oracle':>8} {'old folds':>9} {'regret':>8}"
        )

    def line(self) -> str:
        """Return the row of the table."""
        return (
            f"{self.name:34} {self.models:6.0f} {self.folds:10.1%} {self.regret:8.5f} {self.largest:8.5f}"
            f" {'>' if self.plain_is_least else ' ':>2}{self.plain:9.5f} {self.oracle:8.5f}"
            f" {self.old_folds:9.1%} {self.old:8.5f}"
        )

    @classmethod
    def mean(cls, rows: "list[Row]") -> "Row":
        """Return the means over sets, and the largest regret of all."""

        def over(field: str) -> float:
            return float(np.mean([getattr(row, field) for row in rows]))

        largest = max(row.largest for row in rows)
        numbers = (over(field) for field in ("plain", "oracle", "old_folds", "old"))
        plain, *others = numbers
        return cls("mean of the sets", over("models"), over("folds"), over("regret"), largest, plain, False, *others)


def _compared(one: RaceSet, options: argparse.Namespace) -> Row:
    """Replay the allocation, the plain rule and the former default on the same draws and orders of a set."""
    ours, old, oracles = [], [], []
    plain: list[list[np.ndarray]] = [[] for _ in QUANTILES]
    for number in range(1 if one.fixed else options.draws):
        members = one.draw(stream(options.seed, "bench", "racing", one.name, number))
        count, n_folds = members.probs.shape[1], len(members.every_fold)
        orders = options.orders * (options.draws if one.fixed else 1)
        allocate = partial(allocation_rule, price=options.price, budget=options.budget)
        ours.append(replays(allocate, members, orders, options.seed))
        old.append(replays(former_default, members, orders, options.seed))
        for found, quantile in zip(plain, QUANTILES, strict=True):
            found.append(replays(partial(plain_rule, quantile=quantile), members, orders, options.seed))
        finalists = (ours[-1][:, 0].mean() * n_folds - 1) * count / (n_folds - 1)
        oracles.append(np.interp(finalists, np.arange(1, count + 1), _oracle(members)))
    outcome, before = np.concatenate(ours), np.concatenate(old).mean(0)
    curve = np.array(sorted([*(tuple(np.concatenate(found).mean(0)[:2]) for found in plain), (1.0, 0.0)]))
    used, regret = outcome[:, 0].mean(), outcome[:, 1]
    at_equal = np.interp(used, *curve.T)
    least = used < curve[0, 0]
    return Row(
        one.name, count, used, regret.mean(), regret.max(), at_equal, least, np.mean(oracles), before[0], before[1]
    )  # fmt: skip


def _oracle(members: Members) -> np.ndarray:
    """Return the regret (M,) of 1 ... M members if those are chosen by all folds, by backward elimination."""
    chosen = np.flatnonzero(linear.fit_terms(*members.terms).weights)
    every, regrets = members.ensemble(chosen), np.zeros(members.probs.shape[1])
    while len(chosen) > 1:
        most = len(chosen) - 1
        chosen = chosen[allocation.eliminate(_pairs(members, chosen), most + 1, most, 0)[0]]
        regrets[most - 1] = members.ensemble(chosen) - every
    return regrets


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench racing", description=__doc__)
    add_files(parser)
    parser.add_argument("--min-votes", type=int, default=10, help="the scored population of real files")
    parser.add_argument("--sets", default="", help="only sets whose name contains this")
    parser.add_argument("--draws", type=int, default=3, help="resamplings of each set")
    parser.add_argument("--orders", type=int, default=5, help="random orders of models and of folds for each draw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--price", type=float, default=allocation.PRICE, help="nats for all folds after the first")
    parser.add_argument("--budget", type=float, default=1.0, help="share of all pairs")
    return parser.parse_args(arguments)


def _rules_on(one: RaceSet, options: argparse.Namespace) -> Iterator[str]:
    """Yield a line for each rule: folds used, and the regret of the ensemble and of the best single model."""
    members = one.draw(stream(options.seed, "bench", "racing", one.name, 0))
    shape = f"{members.probs.shape[1]} models x {len(members.every_fold)} folds, {len(members.targets)} units"
    yield f"{one.name}: {shape}, {options.orders} random orders"
    yield f"{'rule':40} {'folds used':>13} {'ensemble regret':>18} {'largest':>8} {'best-single regret':>18}"
    for name, search in _rules(options).items():
        yield _line(name, replays(search, members, options.orders, options.seed))


# (members, order of configurations, order of folds) -> (pairs trained, configurations with all folds)
Search = Callable[[Members, Sequence[int], Sequence[int]], tuple[int, list[int]]]


def _rules(options: argparse.Namespace) -> dict[str, Search]:
    """Return the rules to compare; the last one is the allocation."""

    def judged(rule: Callable[..., bool], looks: int | None = None, **given: float) -> Search:
        return partial(depth_first, stops=partial(rule, **given), looks=looks)

    return {
        "train everything": partial(depth_first, stops=_never),
        "race: best, stop_rate 0.1": judged(best_rule, stop_rate=0.1),
        "race: ensemble, every fold a trial fold": judged(ensemble_rule, stop_rate=0.1, min_gain=MIN_GAIN),
        "plain rule, quantile 0": partial(plain_rule, quantile=0),
        "plain rule, quantile -1": partial(plain_rule, quantile=-1),
        f"best {FINALISTS} models after 1": partial(depth_first, stops=_never, looks=1, chooses=_top),
        f"trial_folds 1, finalists {FINALISTS}": former_default,
        "allocation": partial(allocation_rule, price=options.price, budget=options.budget),
    }


def replays(search: Search, members: Members, orders: int, seed: int) -> np.ndarray:
    """Return (share of folds used, ensemble regret, best-single regret) of each random order, (orders, 3).

    Each fold comes first as often as any other: chance in how often would be most of the difference between two seeds.
    """
    n_members, every_fold = members.probs.shape[1], members.every_fold
    ensemble, (single, _) = members.ensemble(range(n_members)), members.best(range(n_members))
    found = []
    for number in range(orders):
        rng = stream(seed, "bench", "racing", "order", number)
        models, folds, first = rng.permutation(n_members), rng.permutation(every_fold), number % len(every_fold)
        folds = [every_fold[first], *folds[folds != every_fold[first]]]
        used, survivors = search(members, models.tolist(), folds)
        regrets = members.ensemble(survivors) - ensemble, members.best(survivors)[0] - single
        found.append((used / (n_members * len(every_fold)), *regrets))
    return np.array(found)


def allocation_rule(
    members: Members, order: Sequence[int], folds: Sequence[int], price: float, budget: float
) -> tuple[int, list[int]]:
    """Train round by round what the allocation names."""
    positions = np.argsort(np.argsort(members.every_fold))  # of each fold among all
    positions[np.searchsorted(members.every_fold, folds)] = np.arange(len(folds))
    fold = positions[np.searchsorted(members.every_fold, members.folds)]
    trained, probs = np.zeros((len(order), len(folds)), dtype=bool), members.probs[:, list(order)]
    while pairs := allocation.plan(
        members.targets, probs, members.groups, fold, trained, price=price, budget=budget
    ).pairs:
        trained[tuple(zip(*pairs, strict=True))] = True
    return int(trained.sum()), [order[m] for m in np.flatnonzero(trained.all(1))]


Stops = Callable[[Members, int, list[int], int, int], bool]  # (units seen, candidate, kept, look, looks)
Chooses = Callable[[Members, list[int]], list[int]]  # (units seen, kept) -> finalists


def depth_first(
    members: Members,
    order: Sequence[int],
    folds: Sequence[int],
    stops: Stops,
    looks: int | None = None,
    chooses: Chooses | None = None,
) -> tuple[int, list[int]]:
    """Search a trial after the other in that order; `looks` folds each, None: all, and then those chosen the rest."""
    looks = looks or len(folds)
    seen = [members.rows(folds[:look]) for look in range(1, looks + 1)]
    used, kept = 0, []
    for candidate in order:
        stopped = next((k for k in range(1, looks) if stops(seen[k - 1], candidate, kept, k, looks)), None)
        used += stopped or looks
        kept += [] if stopped else [candidate]
    finalists = chooses(seen[-1], kept) if chooses else kept
    return used + len(finalists) * (len(folds) - looks), finalists


def former_default(members: Members, order: Sequence[int], folds: Sequence[int]) -> tuple[int, list[int]]:
    """Train one fold of each, and all folds of those that a shrunk pool chooses of them."""
    return depth_first(members, order, folds, stops=_never, looks=1, chooses=_chosen)


def plain_rule(members: Members, order: Sequence[int], folds: Sequence[int], quantile: float) -> tuple[int, list[int]]:
    """Stop where the mean gain of moving weight to the candidate, plus so many standard errors, is below 0."""
    looks = [_Look.of(members.rows(folds[:look])) for look in range(1, len(folds))]
    used, kept = 0, []
    for candidate in order:
        stopped = next((k for k, look in enumerate(looks, 1) if kept and look.stops(candidate, kept, quantile)), None)
        used += stopped or len(folds)
        kept += [] if stopped else [candidate]
    return used, kept


@dataclass
class _Look:
    """The units of some folds, and the best pool of the configurations that were kept last.

    terms (P, M), shares (P,): the (unit, class) pairs that count; units (P,)
    """

    groups: np.ndarray
    terms: np.ndarray
    shares: np.ndarray
    units: np.ndarray
    kept: list[int]
    weights: np.ndarray

    @classmethod
    def of(cls, seen: Members) -> "_Look":
        terms, shares = scored_terms(seen.probs, seen.targets)
        return cls(seen.groups, terms, shares, np.nonzero(seen.targets > 0)[0], [], np.empty(0))

    def stops(self, candidate: int, kept: list[int], quantile: float) -> bool:
        """Say whether the plain rule stops a candidate beside those kept."""
        if kept != self.kept:
            start = np.append(self.weights, 1 / len(kept)) if len(kept) == len(self.kept) + 1 else None
            pool = linear.fit_terms(self.terms[:, kept], self.shares, start)
            self.kept, self.weights = list(kept), pool.weights
        gains = self.shares * self.terms[:, candidate] / (self.terms[:, self.kept] @ self.weights)
        by_unit = np.bincount(self.units, gains, minlength=len(self.groups)) * len(self.groups) - 1
        return by_unit.mean() + quantile * bootstrap.standard_error(by_unit, self.groups) < 0


def ensemble_rule(
    seen: Members, candidate: int, kept: list[int], look: int, looks: int, stop_rate: float, min_gain: float
) -> bool:
    """Stop what cannot bring min_gain to the ensemble of the kept."""
    given = seen.targets, seen.groups, seen.probs[:, candidate], seen.probs[:, kept]
    return ensemble_gain.judge_ensemble(*given, look=look, looks=looks, stop_rate=stop_rate, min_gain=min_gain).stop


def best_rule(seen: Members, candidate: int, kept: list[int], look: int, looks: int, stop_rate: float) -> bool:
    """Stop what is worse than the best of the kept."""
    if not kept:
        return False
    given = seen.targets, seen.groups, seen.probs[:, candidate], seen.probs[:, seen.best(kept)[1]]
    return ensemble_gain.judge_best(*given, look=look, looks=looks, stop_rate=stop_rate).stop


def _never(*_: object) -> bool:
    return False


def _chosen(seen: Members, kept: list[int]) -> list[int]:
    chosen = np.array(kept)
    if len(kept) > allocation.WIDE:  # the old choice takes minutes on hundreds
        chosen = chosen[allocation.eliminate(_pairs(seen, chosen), len(kept), allocation.WIDE, 0)[0]]
    return chosen[_backward.choose(seen.targets, seen.probs[:, chosen], FINALISTS, MIN_GAIN)].tolist()


def _pairs(members: Members, chosen: np.ndarray) -> allocation.Seen:
    terms, shares = members.terms
    return allocation.Seen(terms[:, chosen], shares, np.nonzero(members.targets > 0)[0], members.groups)


def _top(seen: Members, kept: list[int]) -> list[int]:
    return sorted(kept, key=lambda m: seen.scores[m])[:FINALISTS]


def _line(name: str, outcome: np.ndarray) -> str:
    (used, ensemble, single), (d_used, d_ensemble, d_single) = outcome.mean(0), outcome.std(0)
    largest = outcome[:, 1].max()
    return (
        f"{name:40} {used:6.1%} +-{d_used:4.1%} {ensemble:9.5f} +-{d_ensemble:.5f} {largest:8.5f}"
        f" {single:9.5f} +-{d_single:.5f}"
    )
