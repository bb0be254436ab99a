"""How often the bootstrap interval holds the truth: made-up studies, whose cross-fitted ensemble has a known score.

A study has patients with unequal numbers of units, a hardness that a patient's units share, and members of unequal
noise. Its truth is what its cross-fitted pools score on a population of fresh patients that is too large to matter.
"""

import argparse
from collections.abc import Iterator

import numpy as np

from bench._members import softmax
from hms_ray import ensemble, tasks
from hms_ray.seeds import stream

CLASSES, MEMBERS, FRESH = 6, 5, 4000
TASK = tasks.default([str(k) for k in range(CLASSES)])


def run(arguments: list[str]) -> Iterator[str]:
    """Yield the coverage of the nominal 95 % for each number of patients, with its own standard error."""
    parser = argparse.ArgumentParser(prog="python -m bench coverage", description=__doc__)
    parser.add_argument("--patients", type=int, nargs="+", default=[50, 100, 300, 1000])
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--pool", default="linear")
    options = parser.parse_args(arguments)
    fresh = study(FRESH, stream(0, "coverage", "fresh"))
    yield f"{options.studies} studies each, pool {options.pool}, nominal 95 %"
    for patients in options.patients:
        held = np.array([_holds(patients, n, options.pool, fresh) for n in range(options.studies)])
        error = np.sqrt(held.mean() * (1 - held.mean()) / len(held))
        yield f"  {patients:5} patients: {held.mean():6.1%} +- {error:.1%}"


def study(n_patients: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return members (N, M, K), targets of 3 to 20 votes (N, K), and patients (N,)."""
    groups = np.repeat(np.arange(n_patients), 1 + rng.geometric(0.25, n_patients))
    hardness = rng.gamma(2, 0.5, n_patients)[groups]
    logits = rng.normal(0, 1.5, (n_patients, CLASSES))[groups] + rng.normal(0, 1, (len(groups), CLASSES))
    votes = rng.integers(3, 21, len(groups))
    targets = rng.multinomial(votes, softmax(logits)) / votes[:, None]
    noise = rng.normal(size=(len(groups), MEMBERS, CLASSES)) * np.linspace(0.6, 1.4, MEMBERS)[:, None]
    return softmax(logits[:, None] + noise * hardness[:, None, None]), targets, groups


def _holds(patients: int, number: int, pool: str, fresh: tuple[np.ndarray, np.ndarray, np.ndarray]) -> bool:
    probs, targets, groups = study(patients, stream(0, "coverage", patients, number))
    fitted = ensemble.fit(probs, targets, groups, pool=pool, seed=number)
    truth = TASK.score(fresh[1], fitted.predict(fresh[0]))
    low, high = fitted.interval_
    return low <= truth <= high
