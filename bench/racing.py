"""Replays searches on finished out-of-fold files: what each rule would have trained, and what the ensemble had lost."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from bench._members import add_files, read
from hms_ray.ensemble import linear_pool
from hms_ray.oof import population
from hms_ray.search import racing
from hms_ray.seeds import stream
from hms_ray.tasks import CLIP

STOP_RATES = (*(10.0**-k for k in range(15, 0, -2)), 1e-2, 0.3, 0.5)  # of `race: best`, to meet any share of folds


@dataclass(frozen=True)
class Members:
    """Scored units of M finished configurations: targets (N, K), groups and folds (N,), probs (N, M, K)."""

    targets: np.ndarray
    groups: np.ndarray
    folds: np.ndarray
    probs: np.ndarray

    @property
    def every_fold(self) -> np.ndarray:
        """The folds that there are."""
        return np.unique(self.folds)

    def rows(self, folds: Sequence[int]) -> "Members":
        """Return the units of those folds."""
        inside = np.isin(self.folds, folds)
        return Members(self.targets[inside], self.groups[inside], self.folds[inside], self.probs[inside])

    def ensemble(self, members: Sequence[int]) -> float:
        """Return the score of the best pool of those members."""
        probs = self.probs[:, members]
        return float(racing.row_kl(self.targets, linear_pool.fit(probs, self.targets).predict(probs)).mean())

    def best(self, members: Sequence[int]) -> tuple[float, int]:
        """Return the score of the best of those members, and which it is."""
        return min((self.scores[m], m) for m in members)

    @cached_property
    def scores(self) -> list[float]:
        """Each member's own score."""
        return [float(racing.row_kl(self.targets, member).mean()) for member in self.probs.swapaxes(0, 1)]


Stops = Callable[[Members, int, list[int], int, int], bool]  # (units seen, candidate, kept, look, looks)
Chooses = Callable[[Members, list[int]], list[int]]  # (units seen, kept) -> finalists


@dataclass(frozen=True)
class Policy:
    """How a search spends its folds; `trial_folds` None: all of them, so that there are no finalists to choose."""

    name: str
    stops: Stops
    trial_folds: int | None = None
    chooses: Chooses | None = None


def run(arguments: list[str]) -> Iterator[str]:
    """Yield a line for each rule: folds used, and the regret of the ensemble and of the best single model.

    Beside each stands the ensemble regret of `race: best` whose stop rate is such that it uses the same folds: between
    two rates of the frontier it is interpolated; nan where no rate uses so few.
    """
    options = _options(arguments)
    members = _real(options.oof, options.min_votes) if options.oof else simulated(seed=0)
    n_folds, n_units = len(members.every_fold), len(members.targets)
    frontier = best_frontier(members, options.orders, options.seed)
    yield f"{members.probs.shape[1]} models x {n_folds} folds, {n_units} units, {options.orders} random orders"
    yield (
        f"{'rule':40} {'folds used':>13} {'ensemble regret':>18} {'largest':>8} {'best-single regret':>18}"
        "  `race: best` at equal folds"
    )
    for policy in _policies(options, n_folds):
        outcome = replays(policy, members, options.orders, options.seed)
        equal = np.interp(outcome[:, 0].mean(), *frontier.T, left=np.nan)
        yield _line(policy.name, outcome) + f" {equal:9.5f}"


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench racing", description=__doc__)
    add_files(parser)
    parser.add_argument("--min-votes", type=int, default=10, help="the scored population of real files")
    parser.add_argument("--orders", type=int, default=20, help="random orders of models and of folds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stop-rate", type=float, default=0.1)
    parser.add_argument("--min-gain", type=float, default=1e-4)
    parser.add_argument("--trial-folds", type=int, default=1)
    parser.add_argument("--finalists", type=int, default=8)
    return parser.parse_args(arguments)


def _real(paths: list[Path], min_votes: int) -> Members:
    found = read(paths)
    scored = population(found.votes, min_votes)
    return Members(found.targets[scored], found.group_ids[scored], found.folds[scored], found.probs[scored])


def simulated(seed: int, n_patients: int = 400, n_members: int = 12, n_folds: int = 5) -> Members:
    """Return members that err on patients and units, partly alike and partly each its own way; every third is poor."""
    rng = stream(seed, "bench", "racing")
    groups = np.repeat(np.arange(n_patients), rng.integers(1, 6, n_patients))
    shape = (n_patients, n_members + 1, 6)
    logits = rng.normal(0, 1.5, (n_patients, 1, 6))[groups] + rng.normal(0, 1.2, (len(groups), 1, 6))
    alike = rng.normal(0, 0.6, (len(groups), 1, 6))
    errors = alike + rng.normal(0, 0.4, shape)[groups] + rng.normal(0, 0.4, (len(groups), *shape[1:]))
    size = np.where(np.arange(n_members + 1) % 3, rng.uniform(0.8, 1.2, n_members + 1), 2.5)
    size[-1] = 0  # the last one is the truth
    odds = np.exp(logits + size[:, None] * errors)
    probs = odds / odds.sum(-1, keepdims=True)
    return Members(rng.multinomial(10, probs[:, -1]) / 10, groups, groups % n_folds, probs[:, :-1])


def _policies(options: argparse.Namespace, n_folds: int) -> list[Policy]:
    """Return the rules to compare; the last one is the policy that the options name."""
    ours = partial(ensemble_rule, stop_rate=options.stop_rate, min_gain=options.min_gain)
    chosen = partial(_chosen, count=options.finalists, min_gain=options.min_gain)
    top = partial(_top, count=options.finalists)
    others = [k for k in (1, 2, 3) if k < n_folds and k != options.trial_folds]
    return [
        Policy("train everything", _never),
        Policy(f"best, stop_rate {options.stop_rate:g}", partial(best_rule, stop_rate=options.stop_rate)),
        Policy("plain ensemble rule, z 0", partial(plain_rule, quantile=0)),
        Policy("plain ensemble rule, z -1", partial(plain_rule, quantile=-1)),
        Policy(f"best {options.finalists} models after {options.trial_folds}", _never, options.trial_folds, top),
        Policy("ours, every fold a trial fold", ours),
        *(
            Policy(f"ours, trial_folds {k}, finalists {options.finalists}", ours, k, chosen)
            for k in (*others, options.trial_folds)
        ),
    ]


def replays(policy: Policy, members: Members, orders: int, seed: int) -> np.ndarray:
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
        used, survivors = replay(policy, members, models.tolist(), folds)
        regrets = members.ensemble(survivors) - ensemble, members.best(survivors)[0] - single
        found.append((used / (n_members * len(every_fold)), *regrets))
    return np.array(found)


def replay(policy: Policy, members: Members, order: Sequence[int], folds: Sequence[int]) -> tuple[int, list[int]]:
    """Search depth first, a trial after the other in that order; return the folds trained and who has all of them."""
    looks = policy.trial_folds or len(folds)
    seen = [members.rows(folds[:look]) for look in range(1, looks + 1)]
    used, kept = 0, []
    for candidate in order:
        stopped = next((k for k in range(1, looks) if policy.stops(seen[k - 1], candidate, kept, k, looks)), None)
        used += stopped or looks
        kept += [] if stopped else [candidate]
    finalists = policy.chooses(seen[-1], kept) if policy.chooses else kept
    return used + len(finalists) * (len(folds) - looks), finalists


def ensemble_rule(
    seen: Members, candidate: int, kept: list[int], look: int, looks: int, stop_rate: float, min_gain: float
) -> bool:
    """Stop what cannot bring min_gain to the ensemble of the kept."""
    given = seen.targets, seen.groups, seen.probs[:, candidate], seen.probs[:, kept]
    return racing.judge_ensemble(*given, look=look, looks=looks, stop_rate=stop_rate, min_gain=min_gain).stop


def best_rule(seen: Members, candidate: int, kept: list[int], look: int, looks: int, stop_rate: float) -> bool:
    """Stop what is worse than the best of the kept."""
    if not kept:
        return False
    given = seen.targets, seen.groups, seen.probs[:, candidate], seen.probs[:, seen.best(kept)[1]]
    return racing.judge_best(*given, look=look, looks=looks, stop_rate=stop_rate).stop


def plain_rule(seen: Members, candidate: int, kept: list[int], look: int, looks: int, quantile: float) -> bool:
    """Stop where the mean gain of moving weight to the candidate, plus so many standard errors, is below 0."""
    if not kept:
        return False
    pooled = linear_pool.fit(seen.probs[:, kept], seen.targets).predict(seen.probs[:, kept])
    gains = (seen.targets * seen.probs[:, candidate] / np.maximum(pooled, CLIP)).sum(-1) - 1
    return gains.mean() + quantile * racing.clustered_error(gains, seen.groups) < 0


def best_frontier(members: Members, orders: int, seed: int) -> np.ndarray:
    """Return (share of folds used, mean ensemble regret) of `race: best` from mild to strict, by share, (rates + 1, 2).

    The last row is the search that stops nobody.
    """
    rules = [Policy("best", partial(best_rule, stop_rate=rate)) for rate in STOP_RATES]
    found = [replays(rule, members, orders, seed)[:, :2].mean(0) for rule in rules]
    return np.array(sorted([*map(tuple, found), (1.0, 0.0)]))


def _never(*_: object) -> bool:
    return False


def _chosen(seen: Members, kept: list[int], count: int, min_gain: float) -> list[int]:
    return [kept[i] for i in racing.choose(seen.targets, seen.probs[:, kept], count, min_gain)]


def _top(seen: Members, kept: list[int], count: int) -> list[int]:
    return sorted(kept, key=lambda m: seen.scores[m])[:count]


def _line(name: str, outcome: np.ndarray) -> str:
    (used, ensemble, single), (d_used, d_ensemble, d_single) = outcome.mean(0), outcome.std(0)
    largest = outcome[:, 1].max()
    return (
        f"{name:40} {used:6.1%} +-{d_used:4.1%} {ensemble:9.5f} +-{d_ensemble:.5f} {largest:8.5f}"
        f" {single:9.5f} +-{d_single:.5f}"
    )
