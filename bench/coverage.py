"""How often intervals hold the truth: of the cross-fitted score, and of its distance to the plain mean of the members.

Made-up studies: patients with unequal numbers of units, a hardness that a patient's units share, members of unequal
noise. The truth is what the ensemble of the study scores on a population of fresh patients that is too large to matter.

Real members: half of the patients are the study, the others stand for the truth. They are as few, so that an interval
is widened by their own standard error before it is asked whether it holds what they say.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bench._members import Members, add_files, clustered, read_scored
from hms_ray import ensemble, tasks
from hms_ray.core.seeds import stream
from hms_ray.ensemble import bootstrap

MEMBERS, FRESH = 5, 4000
TASK = tasks.default([str(k) for k in range(6)])
NORMAL = 1.96  # standard errors on either side of 95 %


@dataclass(frozen=True)
class Study:
    """What a study says and what is true of it, each for the score and for the distance to the plain mean, (2,).

    said, low, high: the estimate and its interval; truth, error: on other patients, and its standard error
    in_sample: the score on the rows of the fit
    """

    said: np.ndarray
    low: np.ndarray
    high: np.ndarray
    truth: np.ndarray
    error: np.ndarray
    in_sample: float

    @property
    def holds(self) -> np.ndarray:
        """Whether the intervals, widened by the error of the truth, hold it (2,)."""
        below, above = (np.hypot(self.said - bound, NORMAL * self.error) for bound in (self.low, self.high))
        return (self.said - below <= self.truth) & (self.truth <= self.said + above)


def run(arguments: list[str]) -> Iterator[str]:
    """Yield the coverage of the nominal 95 %, with its own standard error, and the bias of the scores."""
    options = _options(arguments)
    yield f"pool {options.pool}, nominal 95 %; the cross-fitted score, and its distance to the plain mean"
    fresh = Members(*clustered(FRESH, MEMBERS, stream(0, "coverage", "fresh")))
    for patients in options.patients:
        found = []
        for number in range(options.studies):
            study = Members(*clustered(patients, MEMBERS, stream(0, "coverage", patients, number)))
            found.append(measure(study, fresh, options.pool, number))
        yield f"  {patients:5} made-up patients, {options.studies} studies: {_line(found)}"
    for min_votes in options.min_votes if options.oof else ():
        members = read_scored(options.oof, min_votes)
        patients, found = np.unique(members.groups), []
        for number in range(options.halves):
            drawn = stream(0, "coverage", "halves", number).permutation(patients)
            half, others = np.array_split(drawn, 2)
            found.append(measure(members.of(half), members.of(others), options.pool, number))
        yield f"  {len(half):5} real patients, >= {min_votes} votes, {options.halves} halves: {_line(found)}"


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench coverage", description=__doc__)
    add_files(parser)
    parser.add_argument("--patients", type=int, nargs="*", default=[50, 100, 300, 1000])
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--halves", type=int, default=200, help="of the real patients")
    parser.add_argument("--min-votes", type=int, nargs="+", default=[10], help="populations of real files")
    parser.add_argument("--pool", default="auto")
    return parser.parse_args(arguments)


def measure(study: Members, others: Members, pool: str, seed: int) -> Study:
    """Fit an ensemble to a study, and set what it says of itself beside what it is worth for other patients."""
    fitted = ensemble.fit(study.probs, study.targets, study.groups, pool=pool, seed=seed)
    losses = _losses(study, fitted.oof_)
    rng = stream(seed, "coverage", "difference")
    _, apart = bootstrap.estimates(losses, study.groups, np.ones(len(losses)), rng)
    true = _losses(others, fitted.predict(others.probs))
    sums, sizes = bootstrap.by_group(true, others.groups, np.ones(len(true)))
    return Study(
        said=np.array([fitted.score_cross_fitted_, apart.value]),
        low=np.array([fitted.interval_[0], apart.low]),
        high=np.array([fitted.interval_[1], apart.high]),
        truth=true.mean(0),
        error=bootstrap.standard_errors(sums, sizes),
        in_sample=fitted.score_in_sample_,
    )


def _losses(members: Members, pooled: np.ndarray) -> np.ndarray:
    """Return each unit's score and its distance to that of the plain mean, (N, 2)."""
    mine, plain = (TASK.row_scores(members.targets, probs) for probs in (pooled, members.probs.mean(1)))
    return np.stack([mine, mine - plain], axis=1)


def _line(found: list[Study]) -> str:
    holds = np.array([study.holds for study in found])
    score, apart = holds.mean(0)
    errors = np.sqrt(holds.mean(0) * (1 - holds.mean(0)) / len(found))
    bias = np.mean([study.said - study.truth for study in found], axis=0)
    in_sample = np.mean([study.in_sample - study.truth[0] for study in found])
    return (
        f"score {score:6.1%} +- {errors[0]:.1%}, distance {apart:6.1%} +- {errors[1]:.1%}; "
        f"bias of the cross-fitted score {bias[0]:+.5f}, in sample {in_sample:+.5f}, of the distance {bias[1]:+.5f}"
    )
