"""Ensembles of few patients: every pool is fitted to some of the patients of real members and scored on all the others.

A draw takes some patients and some members at random. Each pool is fitted as a study would fit it, everything chosen
among the patients drawn; its distance to the plain mean of the members is measured on the patients not drawn, with a
standard error over these.
"""

import argparse
from collections.abc import Iterator

import numpy as np

from bench._members import Members, add_files, clustered, read_scored
from hms_ray import tasks
from hms_ray.core.seeds import stream
from hms_ray.ensemble import bootstrap
from hms_ray.ensemble.inputs import make_rows
from hms_ray.ensemble.methods import methods_for
from hms_ray.ensemble.nested import Fits
from hms_ray.ensemble.threads import on_one_thread

BASELINES = ("uniform", "best_single", "prior")  # the best of them is known in hindsight only
AUTO, PLAIN = "auto", "uniform"
MADE_UP = 1000, 18  # patients and members where no files are given
ROUNDING = 1e-12  # what the plain mean differs from itself by


def run(arguments: list[str]) -> Iterator[str]:
    """Yield a line for each number of patients and members."""
    options = _options(arguments)
    members = _members(options)
    n_patients = len(np.unique(members.groups))
    source = f">= {options.min_votes} votes" if options.oof else "simulated"
    yield f"{source}: {len(members.groups)} units, {n_patients} patients; {options.draws} draws each"
    yield "nats on the patients not drawn, mean over draws; a draw is worse where that is above two standard errors"
    pools = [name for name in methods_for([""] * 2) if name not in (AUTO, PLAIN)]
    yield (
        f"{'patients':>8} {'members':>7} {'units':>6}  {'auto - mean':>11} {'worst':>8} {'worse':>6} "
        f"{'- best baseline':>15}  minus the mean: {' '.join(f'{name:>11}' for name in pools)}"
    )
    for n_drawn in options.patients:
        if n_drawn > 0.75 * n_patients:
            yield f"{n_drawn:8}: too many of {n_patients} patients, as the others would be too few to score on"
            continue
        for n_members in sorted({min(m, members.probs.shape[1]) for m in options.members}):
            yield _line(members, n_drawn, n_members, pools, options)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench small", description=__doc__)
    add_files(parser)
    parser.add_argument("--patients", type=int, nargs="+", default=[15, 25, 44, 60, 100, 200, 400])
    parser.add_argument("--members", type=int, nargs="+", default=[3, 6, 18])
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--min-votes", type=int, default=10, help="the population of real files")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def _members(options: argparse.Namespace) -> Members:
    if not options.oof:
        return Members(*clustered(*MADE_UP, stream(0, "small")))
    return read_scored(options.oof, options.min_votes)


def _line(members: Members, n_drawn: int, n_members: int, pools: list[str], options: argparse.Namespace) -> str:
    drawn = [
        draw(members, n_drawn, n_members, [AUTO, *pools], stream(options.seed, "small", n_drawn, n_members, number))
        for number in range(options.draws)
    ]
    units = np.mean([units for units, _, _ in drawn])
    apart = np.array([differences for _, differences, _ in drawn])  # (draws, 1 + pools), auto first
    errors = np.array([error for _, _, error in drawn])
    baselines = [1 + pools.index(name) for name in BASELINES if name in pools]
    hindsight = np.minimum(apart[:, baselines].min(1), 0)  # the plain mean itself is at 0
    worse = (apart[:, 0] > 2 * errors + ROUNDING).mean()
    auto, means = apart[:, 0], " ".join(f"{value:11.5f}" for value in apart[:, 1:].mean(0))
    return (
        f"{n_drawn:8} {n_members:7} {units:6.0f}  {auto.mean():11.5f} {auto.max():8.5f} {worse:6.1%} "
        f"{(auto - hindsight).mean():15.5f}  {'':15} {means}"
    )


@on_one_thread
def draw(
    members: Members, n_drawn: int, n_members: int, pools: list[str], rng: np.random.Generator
) -> tuple[int, np.ndarray, float]:
    """Return how many units were drawn, each pool's distance to the plain mean (pools,), and the first one's error."""
    patients = rng.permutation(np.unique(members.groups))[:n_drawn]
    some = np.sort(rng.permutation(members.probs.shape[1])[:n_members])
    inside = np.isin(members.groups, patients)
    study = members.probs[inside][:, some], members.targets[inside], members.groups[inside]
    rows = make_rows(*study, folds=None, weights=None, task=tasks.DEFAULT, names=None, families=None)
    fits, others, targets = Fits(rows), members.probs[~inside][:, some], members.targets[~inside]
    score = rows.task.row_scores
    plain = score(targets, others.mean(1))
    apart = np.stack([score(targets, fits.chosen(pool).predict(others)) - plain for pool in pools], axis=1)
    sums, sizes = bootstrap.by_group(apart, members.groups[~inside], np.ones(len(apart)))
    return int(inside.sum()), apart.mean(0), float(bootstrap.standard_errors(sums, sizes)[0])
