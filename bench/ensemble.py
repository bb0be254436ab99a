"""The convex pools against peers on the same members, side by side: seconds, KL, and how far from the optimum.

AutoGluon's greedy selection takes part where it is installed: pip install --no-deps autogluon.core autogluon.common
autogluon.features.
"""

import argparse
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np

from bench import _peers
from bench._members import add_files, jittered, read, simulated
from bench._timing import side_by_side
from hms_ray.ensemble.pools import greedy, linear, log_linear
from hms_ray.ensemble.terms import scored_terms

RIDGE = {"ridge": log_linear.RIDGE, "bias_ridge": log_linear.BIAS_RIDGE}
AUTOGLUON_STEPS = 25

Problem = tuple[np.ndarray, np.ndarray]


def run(arguments: list[str]) -> Iterator[str]:
    """Yield a table of linear and one of log-linear weights, for the members and for more that are jittered of them."""
    options = _options(arguments)
    scored, every = _problems(options)
    yield f"{'real' if options.oof else 'simulated'} members, {options.repetitions} rounds, median seconds"
    yield from _linear(*scored, options.repetitions)
    yield from _log_linear(*scored, options.repetitions)
    if options.jittered:
        many = jittered(every[0], options.jittered, seed=0), every[1]
        yield from _linear(*many, options.repetitions)
        yield from _log_linear(*many, 1)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench ensemble", description=__doc__)
    add_files(parser)
    parser.add_argument("--min-votes", type=int, default=10, help="the population of the first tables")
    parser.add_argument("--jittered", type=int, default=200, help="members of the other tables; 0 leaves them out")
    parser.add_argument("--repetitions", type=int, default=3)
    return parser.parse_args(arguments)


def _problems(options: argparse.Namespace) -> tuple[Problem, Problem]:
    """Return the members as they are on the scored units, and on all units."""
    if not options.oof:
        made_up = simulated(6000, 18, seed=0)
        return made_up, made_up
    members = read(options.oof)
    scored = members.votes >= options.min_votes
    return (members.probs[scored], members.targets[scored]), (members.probs, members.targets)


def _linear(probs: np.ndarray, targets: np.ndarray, repetitions: int) -> Iterator[str]:
    timed = side_by_side(_bound(_linear_methods(), probs, targets), repetitions)
    terms, shares = scored_terms(probs, targets)  # (P, M), (P,)
    entropy = float((targets[targets > 0] * np.log(targets[targets > 0])).sum() / len(targets))
    ours = timed["linear pool"][0]
    yield f"linear: {probs.shape[1]} members x {len(probs)} units"
    yield f"  {'method':13} {'seconds':>9} {'ratio':>8} {'KL':>12} {'gap':>8}  active"
    for name, (seconds, weights) in timed.items():
        pooled = terms @ weights
        kl, gap = entropy - shares @ np.log(pooled), ((shares / pooled) @ terms).max() - 1
        yield f"  {name:13} {seconds:9.4f} {seconds / ours:8.1f} {kl:12.8f} {gap:8.1e}  {(weights > 1e-9).sum()}"


def _linear_methods() -> dict[str, Callable[..., np.ndarray]]:
    methods = {
        "linear pool": lambda *problem: linear.fit(*problem).weights,
        "SLSQP": _peers.slsqp,
        "SLSQP, terms": _peers.slsqp_terms,
        "Nelder-Mead": _peers.nelder_mead,
        "greedy 25": lambda *problem: greedy.fit(*problem).weights,
        "greedy 100": lambda *problem: greedy.fit(*problem, steps=100).weights,
    }
    if importlib.util.find_spec("autogluon"):
        methods[f"AutoGluon {AUTOGLUON_STEPS}"] = partial(_peers.autogluon, steps=AUTOGLUON_STEPS)
    return methods


def _log_linear(probs: np.ndarray, targets: np.ndarray, repetitions: int) -> Iterator[str]:
    methods = {"log-linear": _log_linear_pool, "L-BFGS-B": partial(_peers.lbfgsb, **RIDGE)}
    timed = side_by_side(_bound(methods, probs, targets), repetitions)
    loss, ours = _peers.log_linear_objective(probs, targets, **RIDGE), timed["log-linear"][0]
    gap = log_linear.fit(probs, targets, **RIDGE).gap
    yield f"log-linear: {probs.shape[1]} members x {len(probs)} units, gap {gap:.1e}"
    yield f"  {'method':13} {'seconds':>9} {'ratio':>8} {'objective':>14}"
    for name, (seconds, x) in timed.items():
        yield f"  {name:13} {seconds:9.4f} {seconds / ours:8.1f} {loss(x)[0]:14.10f}"


def _log_linear_pool(probs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    pool = log_linear.fit(probs, targets, **RIDGE)
    return np.concatenate([pool.weights, pool.bias])


def _bound(
    methods: Mapping[str, Callable[..., np.ndarray]], probs: np.ndarray, targets: np.ndarray
) -> dict[str, Callable[[], np.ndarray]]:
    return {name: partial(method, probs, targets) for name, method in methods.items()}
