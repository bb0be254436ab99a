"""Intervals by a bootstrap over patients: patients are drawn with replacement, each with all of its units.

A score is a mean over units whose number differs by patient, a ratio. Its interval is studentised (bootstrap-t): each
draw's deviation is taken in the draw's own standard errors, which holds the nominal coverage with fewer patients than
plain percentiles do. A draw of a few patients that happen to score alike has next to no error of its own: below
LEAST_ERROR of the whole sample's, that is taken instead. Without it intervals of 4 to 6 patients are up to 40 times as
wide; and where most patients score 0 they cover less often (of 8 patients 75 % instead of 91 %).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

LEVEL = 0.95
DRAWS = 2000
BLOCK = 250  # draws at a time: the counts of a block are (BLOCK, G)
FEWEST = 4  # patients: of fewer, most draws hold one patient alone or all of them, and say nothing
LEAST_ERROR = 0.25  # of a draw, as a share of the whole sample's
ROUNDING = 1e-12  # of the terms of a sum of squares: what is left below this is 0


@dataclass(frozen=True)
class Estimate:
    """A weighted mean over units, its standard error by patient, and an interval.

    error: None where there is one patient; low, high: None where there are fewer than FEWEST
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
        """Whether there is an interval."""
        return self.low is not None and self.high is not None

    @property
    def may_be_chance(self) -> bool:
        """Whether the interval of a difference holds 0."""
        return self.low is not None and self.high is not None and self.low <= 0 <= self.high

    @property
    def opposite(self) -> Estimate:
        """The same difference, seen from the other side."""
        if self.low is None or self.high is None:
            return Estimate(-self.value, self.error, None, None)
        return Estimate(-self.value, self.error, -self.high, -self.low)

    def moved(self, by: float) -> Estimate:
        """Return the estimate with its interval, moved by a constant."""
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
    """Estimate the weighted mean of each column of values (N, C) from the same draws of groups (N,).

    bounds: the least and the largest value that there can be; no interval goes beyond
    """
    sums, sizes = by_group(values, groups, weight)
    means = sums.sum(0) / sizes.sum()
    if len(sizes) < 2:
        return [Estimate(float(mean), None, None, None) for mean in means]
    error = standard_errors(sums, sizes)
    if len(sizes) < FEWEST:
        return [Estimate(*row, None, None) for row in zip(means.tolist(), error.tolist(), strict=True)]
    counts = _counts(rng, len(sizes), draws)
    deviations = np.concatenate([_deviations(drawn, sums, sizes, means, LEAST_ERROR * error) for drawn in counts])
    high, low = means - np.quantile(deviations, [(1 - level) / 2, (1 + level) / 2], axis=0) * error
    figures = np.stack([means, error, np.maximum(low, bounds[0]), np.minimum(high, bounds[1])], axis=1)
    return [Estimate(*row) for row in figures.tolist()]


def by_group(values: np.ndarray, groups: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each group's weighted sums (G, C) and weights (G,)."""
    _, codes = np.unique(groups, return_inverse=True)
    sums = np.stack([np.bincount(codes, weight * column) for column in values.T], axis=1)
    return sums, np.bincount(codes, weight)


def worth(sizes: np.ndarray) -> float:
    """Return how many groups of equal size know as much as those of these sizes (G,): Kish's effective number."""
    return float(sizes.sum() ** 2 / (sizes @ sizes))


def standard_errors(sums: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the standard error (C,) of each column's mean, by group; `by_group` gives sums and sizes."""
    return _errors(np.ones((1, len(sizes))), sums, sizes, (sums.sum(0) / sizes.sum())[None])[0]


def standard_error(values: np.ndarray, groups: np.ndarray) -> float:
    """Return the standard error of the mean of values (N,) whose groups (N,) are independent; NaN below two groups.

    With G groups the variance is G / (G - 1) * sum_g(sum_i(v_i - mean))^2 / N^2: the sandwich estimator of a mean.
    """
    _, codes = np.unique(groups, return_inverse=True)
    sums = np.bincount(codes, values - values.mean())
    if len(sums) < 2:
        return float("nan")
    return float(np.sqrt((sums @ sums) * len(sums) / (len(sums) - 1)) / len(values))


def _counts(rng: np.random.Generator, n_groups: int, draws: int) -> Iterator[np.ndarray]:
    """Yield how often each group is in each draw, (BLOCK, G) at a time."""
    even = np.full(n_groups, 1 / n_groups)
    for start in range(0, draws, BLOCK):
        yield rng.multinomial(n_groups, even, min(BLOCK, draws - start)).astype(np.float64)


def _deviations(
    counts: np.ndarray, sums: np.ndarray, sizes: np.ndarray, means: np.ndarray, least: np.ndarray
) -> np.ndarray:
    """Return each draw's deviation from the means in the draw's own standard errors, (draws, C); least (C,): errors."""
    drawn = (counts @ sums) / (counts @ sizes)[:, None]
    errors = np.maximum(_errors(counts, sums, sizes, drawn), least)
    return np.divide(drawn - means, errors, out=np.zeros_like(drawn), where=errors > 0)


def _errors(counts: np.ndarray, sums: np.ndarray, sizes: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Return the linearised standard errors of ratios, (draws, C); means (draws, C) are the draws' own."""
    total, n = counts @ sizes, counts.sum(1)
    cross, square = counts @ (sums * sizes[:, None]), (counts @ sizes**2)[:, None]
    own = counts @ sums**2
    squares = own - 2 * means * cross + means**2 * square
    squares[squares < ROUNDING * own] = 0  # a draw of one patient alone, say
    return np.sqrt(squares * (n / (n - 1))[:, None]) / total[:, None]
