"""Who is stopped between folds, and what a configuration brings to the ensemble.

Pure functions on the task's outcomes of scored units: targets (N, ..., K) are shares, predictions are (N, ..., K) of a
candidate and (N, M, ..., K) of the members kept; between lies an axis for the questions that are asked of a unit, if
there are several. Gains are decreases of the mean KL, in nats. Standard errors count patients, not units: the units of
one patient err together.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from hms_ray.ensemble import bootstrap
from hms_ray.ensemble.pools import linear
from hms_ray.ensemble.terms import scored_terms
from hms_ray.tasks import CLIP


@dataclass(frozen=True)
class PruneDecision:
    """Whether a candidate is stopped, and why in one sentence.

    gain: what it brings on the units seen; error: its clustered standard error
    upper: the bound on the true gain that decides; all in nats
    """

    stop: bool
    gain: float
    error: float
    upper: float
    reason: str


def judge_ensemble(
    targets: np.ndarray,
    groups: np.ndarray,
    candidate: np.ndarray,
    kept: np.ndarray,
    *,
    look: int,
    looks: int,
    stop_rate: float,
    min_gain: float,
) -> PruneDecision:
    """Stop a candidate that cannot bring `min_gain` to the best linear pool of those kept.

    Rows are the scored units of the `look` folds it has finished of `looks`; groups (N,) are the patients. A candidate
    that is truly worth min_gain or more is stopped with a chance of at most `stop_rate` (to 0.5), all looks together.

    With q the best pool of the kept, s = mean_i sum_c y_ic p_ic / q_ic - 1 is the slope of the gain as weight moves to
    the candidate; what it can bring is about s^2 over twice the curvature, and 0 for s < 0. The gain itself therefore
    has no usable standard error near 0, but the slope has: the bound is the gain of weights fitted anew with a slope
    higher by the quantile of its error. It errs to the safe side where a gain is so large that s^2 overstates it.
    """
    units, patients = len(targets), len(np.unique(groups))
    seen = f"{units} units of {patients} patients"
    if kept.shape[1] == 0:
        return _unjudged(f"nothing is kept yet to judge it by ({seen})")
    quantile = _quantile(groups, look, looks, stop_rate)
    if quantile is None:
        return _unjudged(f"too few patients to judge by ({seen})")
    now = _Pooled.fit(targets, candidate, kept)
    lead = quantile * now.slope_error(groups)
    weights = now.refit(lead)
    gain, upper = now.gain(now.refit()), now.gain(weights, lead)
    error = bootstrap.standard_error(now.change(weights), groups)
    stop = upper <= min_gain + linear.TOLERANCE
    found = f"at most {upper:.5f} (gain {gain:.5f}, standard error {error:.5f}; {seen})"
    reason = f"to the pool of {kept.shape[1]} kept it brings {found}; {min_gain:g} is asked for"
    return PruneDecision(stop, gain, error, upper, reason)


def judge_best(
    targets: np.ndarray,
    groups: np.ndarray,
    candidate: np.ndarray,
    incumbent: np.ndarray,
    *,
    look: int,
    looks: int,
    stop_rate: float,
) -> PruneDecision:
    """Stop a candidate that is worse than the incumbent, by the paired difference of their KL, clustered by patient.

    Arguments as in `judge_ensemble`; a candidate that is truly as good is stopped with a chance of at most `stop_rate`.
    """
    seen = f"{len(targets)} units of {len(np.unique(groups))} patients"
    quantile = _quantile(groups, look, looks, stop_rate)
    if quantile is None:
        return _unjudged(f"too few patients to judge by ({seen})")
    better = row_kl(targets, incumbent) - row_kl(targets, candidate)
    gain, error = float(better.mean()), bootstrap.standard_error(better, groups)
    upper = gain + quantile * error
    found = f"{gain:+.5f}, at most {upper:+.5f} (standard error {error:.5f}; {seen})"
    return PruneDecision(upper < 0, gain, error, upper, f"against the best model its gain is {found}")


def gain(targets: np.ndarray, candidate: np.ndarray, kept: np.ndarray) -> float:
    """Return how much the KL of the best pool of the kept falls when the candidate joins.

    Where nothing is kept, the best constant prediction stands in for it.
    """
    if kept.shape[1] == 0:
        kept = np.broadcast_to(targets.mean(0), (len(targets), 1, *targets.shape[1:]))
    now = _Pooled.fit(targets, candidate, kept)
    return now.gain(now.refit())


def row_kl(targets: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Return each unit's KL but for the targets' entropy, which no difference sees: (N, ..., K) -> (N,).

    Of several questions it is the mean.
    """
    crossed = -(targets * np.log(np.clip(probs, CLIP, 1 - CLIP))).sum(-1)
    return crossed.reshape(len(crossed), -1).mean(1)


@dataclass(frozen=True)
class _Pooled:
    """The best pool of the kept, on the P (unit, class) pairs that count, and a candidate beside it.

    units, shares, pooled: (P,); terms: (P, M + 1) predictions, the candidate last; weights (M,)
    """

    targets: np.ndarray
    probs: np.ndarray
    units: np.ndarray
    terms: np.ndarray
    shares: np.ndarray
    weights: np.ndarray
    pooled: np.ndarray

    @classmethod
    def fit(cls, targets: np.ndarray, candidate: np.ndarray, kept: np.ndarray) -> "_Pooled":
        probs = np.concatenate([kept, candidate[:, None]], axis=1)
        terms, shares = scored_terms(probs, targets)
        weights = linear.fit(kept, targets).weights
        return cls(targets, probs, np.nonzero(targets > 0)[0], terms, shares, weights, terms[:, :-1] @ weights)

    def slope_error(self, groups: np.ndarray) -> float:
        """Return the standard error of the slope, less what the kept members' own fitted weights take up of it."""
        relative = self.terms / self.pooled[:, None]
        active, candidate = relative[:, :-1][:, self.weights > 0], relative[:, -1]
        root = np.sqrt(self.shares)
        follow = np.linalg.lstsq(active * root[:, None], candidate * root, rcond=None)[0]
        return bootstrap.standard_error(self._by_unit(candidate - active @ follow), groups)

    def refit(self, lead: float = 0.0) -> np.ndarray:
        """Return the weights (M + 1,) of the best pool with the candidate, its predictions scaled up by 1 + lead."""
        scale = np.append(np.full(len(self.weights), 1 / (1 + lead)), 1)  # the fit knows probabilities up to 1 only
        return linear.fit(self.probs * _aligned(scale, self.probs), self.targets).weights

    def gain(self, weights: np.ndarray, lead: float = 0.0) -> float:
        """Return the gain at the weights of `refit`; it could be below 0 by rounding alone."""
        return max(0.0, float(self.change(weights, lead).mean()))

    def change(self, weights: np.ndarray, lead: float = 0.0) -> np.ndarray:
        """Return each unit's gain (N,) from the kept's pool to these weights (M + 1,), the candidate scaled up."""
        scale = np.append(np.ones(len(self.weights)), 1 + lead)
        return self._by_unit(np.log(self.terms @ (scale * weights) / self.pooled))

    def _by_unit(self, values: np.ndarray) -> np.ndarray:
        units = len(self.targets)
        return np.bincount(self.units, self.shares * values, minlength=units) * units


def _quantile(groups: np.ndarray, look: int, looks: int, stop_rate: float) -> float | None:
    """Return how many standard errors a bound lies above its estimate; None where there are too few patients.

    The rate is shared evenly by the looks that can stop: all but the last. Student's t has as many degrees of freedom
    as patients of equal size would have that are worth as much (Kish), less one.
    """
    assert 0 < look < looks, f"look {look} of {looks} has nothing left to save"
    assert 0 < stop_rate <= 0.5, f"a stop rate of {stop_rate} promises nothing"
    worth = bootstrap.effective_groups(np.unique(groups, return_counts=True)[1])
    return float(student.isf(stop_rate / (looks - 1), worth - 1)) if worth >= 2 else None


def _aligned(values: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Return values (..., M) of the members with an axis of length 1 for each that predictions (N, M, ..., K) go on."""
    return values.reshape(*values.shape, *[1] * (probs.ndim - 2))


def _unjudged(reason: str) -> PruneDecision:
    return PruneDecision(False, np.nan, np.nan, np.nan, reason)
