"""A large problem, as many members as a long search makes on every row of the competition: seconds and memory."""

import argparse
import resource
import time
from collections.abc import Iterator

import numpy as np

from bench._members import simulated, softmax
from hms_ray import ensemble
from hms_ray.core.progress import Progress
from hms_ray.core.seeds import stream

BLOCK = 20


def run(arguments: list[str]) -> Iterator[str]:
    """Yield a line for each pool; fits are cross-fitted by patient over five folds."""
    parser = argparse.ArgumentParser(prog="python -m bench large", description=__doc__)
    parser.add_argument("--members", type=int, default=300)
    parser.add_argument("--units", type=int, default=106_800)
    parser.add_argument("--patients", type=int, default=1950)
    parser.add_argument("--pools", nargs="+", default=["linear", "log_linear", "auto"])
    options = parser.parse_args(arguments)
    probs, targets, groups = problem(options.units, options.members, options.patients)
    yield f"{options.members} members x {options.units} units, {probs.nbytes / 2**30:.2f} GiB of {probs.dtype}"
    for pool in options.pools:
        start = time.perf_counter()
        fitted = ensemble.fit(probs, targets, groups, pool=pool, progress=Progress(pool))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        yield (
            f"  {pool:12} {time.perf_counter() - start:7.1f} s, peak {peak:.1f} GiB, in sample "
            f"{fitted.score_in_sample_:.5f}, cross-fitted {fitted.score_cross_fitted_:.5f}, gap {fitted.gap_}, "
            f"{(fitted.weights_ > 0).sum()} members with weight"
        )


def problem(n_units: int, n_members: int, n_patients: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return members (N, M, 6) that blend 20 of unequal noise, each with noise of its own; targets; patients (N,)."""
    rng = stream(0, "bench", "large")
    first, targets = simulated(n_units, BLOCK, seed=0)
    probs = np.empty((n_units, n_members, 6))
    for m in range(n_members):
        mixed = np.einsum("nmk,m->nk", first, rng.dirichlet(np.full(BLOCK, 0.3)))
        probs[:, m] = softmax(np.log(mixed) + rng.normal(0, 0.3, mixed.shape))
    return probs, targets, rng.integers(0, n_patients, n_units)
