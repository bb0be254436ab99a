"""Confidence intervals by a bootstrap over patients: patients are drawn with replacement, each with all its units.

A score is a ratio: a mean over units, whose number differs by patient. Its interval is studentised (bootstrap-t): the
deviation of each draw is divided by the standard error of that draw. It reaches the nominal coverage with fewer
patients than plain percentiles. A draw of few patients with similar scores has a standard error close to 0, so a floor
of LEAST_ERROR times the standard error of the whole sample applies. Without the floor, intervals of 4 to 6 patients are
up to 40 times as wide, and coverage falls where most patients score 0 (8 patients: 75 % instead of 91 %).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

LEVEL = 0.95
DRAWS = 2000
BLOCK = 250  # draws computed at once: the counts of a block are (BLOCK, G)
FEWEST = 4  # patients: with fewer, most draws hold a single patient or all of them
LEAST_ERROR = 0.25  # floor of a draw's standard error, as a share of the whole sample's
ROUNDING = 1e-12  # a sum of squares below this share of its terms is rounding error, and counts as 0


@dataclass(frozen=True)
class Estimate:
    """A weighted mean over units, its standard error by patient, and a 95 % confidence interval.

    error: None with one patient; low, high: None with fewer than FEWEST patients
    """

    value: float
    error: float | None
    low: float | None
    high: float | None

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "allow_inf_nan": False}  # in ensemble.json

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise ValueError(f"low and high must both be numbers, or both null, but are {self.low} and {self.high}")

    @property
    def known(self) -> bool:
        """Whether the interval is known."""
        return self.low is not None and self.high is not None

    @property
    def may_be_chance(self) -> bool:
        """Whether the interval of a difference contains 0."""
        return self.low is not None and self.high is not None and self.low <= 0 <= self.high

    @property
    def opposite(self) -> Estimate:
        """The difference with the opposite sign."""
        if self.low is None or self.high is None:
            return Estimate(-self.value, self.error, None, None)
        return Estimate(-self.value, self.error, -self.high, -self.low)

    def moved(self, by: float) -> Estimate:
        """Return the estimate and its interval, shifted by a constant."""
        if self.low is None or self.high is None:
            return Estimate(self.value + by, self.error, None, None)
        return Estimate(self.value + by, self.error, self.low + by, self.high + by)


def estimates(
    values: np.ndarray,
    groups: np.ndarray,
    weight: np.ndarray,
    rng: np.random.Generator,
    level: float = LEVEL,
    draws: int = DRAWS,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> list[Estimate]:
    """Estimate the weighted mean of each column of values (N, C); all columns share the draws of groups (N,).

    bounds: the smallest and the largest possible value; intervals are clipped to them
    """
    sums, sizes = by_group(values, groups, weight)
    n_groups, means = len(sizes), sums.sum(0) / sizes.sum()
    if n_groups < 2:
        return [Estimate(float(mean), None, None, None) for mean in means]
    error = standard_errors(sums, sizes)
    if n_groups < FEWEST:
        return [Estimate(*row, None, None) for row in zip(means.tolist(), error.tolist(), strict=True)]
    even, deviations = np.full(n_groups, 1 / n_groups), []
    for start in range(0, draws, BLOCK):
        counts = rng.multinomial(n_groups, even, min(BLOCK, draws - start)).astype(np.float64)  # (draws, G)
        drawn = (counts @ sums) / (counts @ sizes)[:, None]
        errors = np.maximum(_errors(counts, sums, sizes, drawn), LEAST_ERROR * error)
        deviations.append(np.divide(drawn - means, errors, out=np.zeros_like(drawn), where=errors > 0))
    quantiles = np.quantile(np.concatenate(deviations), [(1 - level) / 2, (1 + level) / 2], axis=0)
    high, low = means - quantiles * error
    figures = np.stack([means, error, np.maximum(low, bounds[0]), np.minimum(high, bounds[1])], axis=1)
    return [Estimate(*row) for row in figures.tolist()]


def by_group(values: np.ndarray, groups: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the weighted sums (G, C) and the weights (G,) of the groups."""
    _, codes = np.unique(groups, return_inverse=True)
    sums = np.stack([np.bincount(codes, weight * column) for column in values.T], axis=1)
    return sums, np.bincount(codes, weight)


def effective_groups(sizes: np.ndarray) -> float:
    """Return Kish's effective number of groups of these sizes (G,): as many equal groups hold as much information."""
    return float(sizes.sum() ** 2 / (sizes @ sizes))


def standard_errors(sums: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the clustered standard error (C,) of the mean of each column; `by_group` returns sums and sizes."""
    return _errors(np.ones((1, len(sizes))), sums, sizes, (sums.sum(0) / sizes.sum())[None])[0]


def mean_and_error(values: np.ndarray, groups: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Return the weighted mean of values (N,) and its clustered standard error; NaN with fewer than two groups."""
    sums, sizes = by_group(values[:, None], groups, weight)
    error = float(standard_errors(sums, sizes)[0]) if len(sizes) > 1 else float("nan")
    return float(sums.sum() / sizes.sum()), error


def standard_error(values: np.ndarray, groups: np.ndarray) -> float:
    """Return the standard error of the mean of values (N,) whose groups (N,) are independent; NaN below two groups."""
    values = np.asarray(values)  # columns of tables too
    return mean_and_error(values - values.mean(), groups, np.ones(len(values)))[1]


def _errors(counts: np.ndarray, sums: np.ndarray, sizes: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Return the linearised standard errors of ratios, (draws, C).

    counts (draws, G): how often each group is in each draw; means (draws, C): of the draws. With G groups the variance
    is G / (G - 1) * sum_g(sum_i(w_i (v_i - mean)))^2 / (sum_i w_i)^2: the sandwich estimator of a mean.
    """
    total, n = counts @ sizes, counts.sum(1)
    cross, square = counts @ (sums * sizes[:, None]), (counts @ sizes**2)[:, None]
    raw = counts @ sums**2
    squares = raw - 2 * means * cross + means**2 * square
    squares[squares < ROUNDING * raw] = 0  # for example, a draw that holds a single patient
    return np.sqrt(squares * (n / (n - 1))[:, None]) / total[:, None]
