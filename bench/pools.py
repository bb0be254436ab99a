"""Every pool on the same members: in sample, cross-fitted by patient with everything nested, interval, gap, seconds."""

import argparse
import time
from collections.abc import Iterator

import numpy as np

from bench._members import add_files, read
from hms_ray import ensemble
from hms_ray.core.errors import ConfigError
from hms_ray.ensemble.methods import methods_for
from hms_ray.study.oof import population

HEADER = f"{'pool':12} {'in sample':>9} {'cross-fitted':>12} {'95 % interval':>18} {'gap':>8} {'seconds':>8}  members"


def run(arguments: list[str]) -> Iterator[str]:
    """Yield a table for each population."""
    options = _options(arguments)
    members = read(options.oof)
    families = _families(options.families, len(members.trials))
    for min_votes in options.min_votes:
        scored = population(members.votes, min_votes)
        groups = len(np.unique(members.group_ids[scored]))
        yield f">= {min_votes} votes: {int(scored.sum())} units, {groups} patients, {len(members.trials)} members"
        yield "  " + HEADER
        for name in methods_for(families):
            start = time.perf_counter()
            fitted = ensemble.fit(
                members.probs[scored],
                members.targets[scored],
                members.group_ids[scored],
                members.folds[scored],
                pool=name,
                task=members.task,
                families=families,
            )
            yield _line(name, fitted, time.perf_counter() - start)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench pools", description=__doc__)
    add_files(parser)
    parser.add_argument("--min-votes", type=int, nargs="+", default=[10, 1], help="populations")
    parser.add_argument("--families", metavar="N,N,...", help="sizes of the families, in the order of the members")
    options = parser.parse_args(arguments)
    if not options.oof:
        raise ConfigError("no out-of-fold files: give --oof FILE ... or set HMS_RAY_REAL")
    return options


def _families(sizes: str | None, n_members: int) -> list[str]:
    counts = [n_members] if sizes is None else [int(size) for size in sizes.split(",")]
    if sum(counts) != n_members:
        raise ConfigError(f"--families {sizes}: the sizes sum to {sum(counts)}, but there are {n_members} members")
    return [f"family {n}" for n, count in enumerate(counts) for _ in range(count)]


def _line(name: str, fitted: ensemble.Ensemble, seconds: float) -> str:
    low, high = fitted.interval_
    gap = "-" if fitted.gap_ is None else f"{max(fitted.gap_, 0):.0e}"
    return (
        f"  {name:12} {fitted.score_in_sample_:9.5f} {fitted.score_cross_fitted_:12.5f} {low:9.5f}{high:9.5f} "
        f"{gap:>8} {seconds:8.2f}  {(fitted.weights_ > 0).sum()}"
    )
