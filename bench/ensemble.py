"""Linear pool against SciPy's SLSQP with gradient, Nelder-Mead (bounded) and greedy selection, on the same members."""

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

from bench._timing import side_by_side
from hms_ray.ensemble import linear_pool
from hms_ray.ensemble._terms import scored_terms
from hms_ray.oof import OofTable, population, stack
from hms_ray.oof_foreign import import_foreign
from hms_ray.seeds import stream
from hms_ray.study_folder import StudyFolder
from hms_ray.tasks import CLIP

GREEDY_STEPS = 25
NELDER_MEAD_ITERATIONS = 400


def run(arguments: list[str]) -> Iterator[str]:
    """Yield a table for the members as they are and one for more members jittered from them."""
    options = _options(arguments)
    probs, targets = _real(options.oof, options.min_votes) if options.oof else simulated(6000, 18, seed=0)
    yield f"{'real' if options.oof else 'simulated'} members, {options.repetitions} rounds, median seconds"
    yield from _table(probs, targets, options.repetitions)
    if options.jittered:
        yield from _table(jittered(probs, options.jittered, seed=0), targets, options.repetitions)


def _options(arguments: list[str]) -> argparse.Namespace:
    root = os.environ.get("HMS_RAY_REAL")
    real = sorted((Path(root) / "oof").glob("*.parquet")) if root else []
    parser = argparse.ArgumentParser(prog="python -m bench ensemble", description=__doc__)
    parser.add_argument("--oof", nargs="*", type=Path, default=real, help="labels and prediction files")
    parser.add_argument("--min-votes", type=int, default=10, help="the scored population of real files")
    parser.add_argument("--jittered", type=int, default=200, help="members of the second table; 0 leaves it out")
    parser.add_argument("--repetitions", type=int, default=3)
    return parser.parse_args(arguments)


def _real(paths: list[Path], min_votes: int) -> tuple[np.ndarray, np.ndarray]:
    with tempfile.TemporaryDirectory() as root:
        folder = StudyFolder(Path(root) / "bench")
        import_foreign(paths, folder)
        members = stack([OofTable.read(folder.oof(trial)) for trial in folder.oof_ids()])
    scored = population(members.votes, min_votes)
    return members.probs[scored], members.targets[scored]


def simulated(n_units: int, n_members: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return members (N, M, 6) of unequal noise around a truth, and the shares (N, 6) of 10 votes drawn from it."""
    rng = stream(seed, "bench", "ensemble")
    logits = rng.normal(0, 2, (n_units, 1, 6))
    noise = rng.uniform(0.8, 1.6, (n_members, 1)) * rng.normal(size=(n_units, n_members, 6))
    truth, probs = _softmax(logits[:, 0]), _softmax(logits + noise)
    return probs, rng.multinomial(10, truth) / 10


def jittered(probs: np.ndarray, n_members: int, seed: int) -> np.ndarray:
    """Return n_members blends of a few members each, their log-probabilities disturbed: (N, M, K) -> (N, M', K)."""
    rng = stream(seed, "bench", "jittered")
    mixed = rng.dirichlet(np.full(probs.shape[1], 0.3), n_members) @ probs
    return _softmax(np.log(mixed) + rng.normal(0, 0.3, mixed.shape))


def _softmax(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits)
    return odds / odds.sum(-1, keepdims=True)


def _table(probs: np.ndarray, targets: np.ndarray, repetitions: int) -> Iterator[str]:
    methods = {"linear pool": _linear_pool, "SLSQP": slsqp, "SLSQP, terms": slsqp_terms}
    methods |= {"Nelder-Mead": nelder_mead, "greedy 25": greedy}
    runs = {name: (lambda method=method: method(probs, targets)) for name, method in methods.items()}
    timed = side_by_side(runs, repetitions)
    ours = timed["linear pool"][0]
    terms, shares = scored_terms(probs, targets)  # (P, M), (P,)
    entropy = shares @ np.log(targets[targets > 0])
    yield f"{probs.shape[1]} members x {len(probs)} units"
    yield f"  {'method':12} {'seconds':>9} {'ratio':>8} {'KL':>9} {'gap':>8}  active"
    for name, (seconds, weights) in timed.items():
        pooled = terms @ weights
        kl, gap = entropy - shares @ np.log(pooled), ((shares / pooled) @ terms).max() - 1
        yield f"  {name:12} {seconds:9.4f} {seconds / ours:8.1f} {kl:9.5f} {gap:8.1e}  {(weights > 1e-9).sum()}"


def _linear_pool(probs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return linear_pool.fit(probs, targets).weights


def slsqp(probs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return SLSQP's weights as solutions write it: the metric over all classes, with its gradient."""

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        pooled = np.clip(weights @ probs, CLIP, 1 - CLIP)
        gradient = np.einsum("nmk,nk->m", probs, targets / pooled)
        return -(targets * np.log(pooled)).sum() / len(targets), -gradient / len(targets)

    return _slsqp(loss, probs.shape[1])


def slsqp_terms(probs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return SLSQP's weights on the terms that count only, laid out as the linear pool does: the hardest peer."""
    terms, shares = scored_terms(probs, targets)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        pooled = np.maximum(terms @ weights, CLIP)
        return -shares @ np.log(pooled), -(shares / pooled) @ terms

    return _slsqp(loss, probs.shape[1])


def _slsqp(loss: Callable[[np.ndarray], tuple[float, np.ndarray]], n_members: int) -> np.ndarray:
    one = {"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like}
    options = {"maxiter": 1000, "ftol": 1e-12}
    start, bounds = np.full(n_members, 1 / n_members), [(0, 1)] * n_members
    found = minimize(loss, start, jac=True, bounds=bounds, constraints=[one], options=options).x
    return np.clip(found, 0, None) / np.clip(found, 0, None).sum()


def nelder_mead(probs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the weights of Nelder-Mead on clipped and normalised coordinates, after a bounded number of iterations."""
    terms, shares = scored_terms(probs, targets)

    def simplex(x: np.ndarray) -> np.ndarray:
        return np.maximum(x, 1e-12) / np.maximum(x, 1e-12).sum()

    def loss(x: np.ndarray) -> float:
        return -shares @ np.log(terms @ simplex(x))

    start, options = np.full(probs.shape[1], 1 / probs.shape[1]), {"maxiter": NELDER_MEAD_ITERATIONS}
    return simplex(minimize(loss, start, method="Nelder-Mead", options=options).x)


def greedy(probs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the shares of members in a greedy selection with replacement."""
    terms, shares = scored_terms(probs, targets)
    members = np.ascontiguousarray(terms.T)
    counts, total = np.zeros(len(members)), np.zeros_like(shares)
    for _ in range(GREEDY_STEPS):
        best = int(np.argmax([shares @ np.log(total + member) for member in members]))
        counts[best] += 1
        total += members[best]
    return counts / counts.sum()
