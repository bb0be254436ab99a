"""The ensemble as an estimator in the style of scikit-learn: arrays in, fitted attributes that end in `_`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hms_ray import tasks
from hms_ray.core import files, seeds
from hms_ray.core.errors import ConfigError, DataError
from hms_ray.ensemble import bootstrap, methods, notes, scores
from hms_ray.ensemble.inputs import check_predictions, make_rows
from hms_ray.ensemble.members import Limits
from hms_ray.ensemble.nested import Fits, cross_fit
from hms_ray.ensemble.pools import _base
from hms_ray.ensemble.pools._base import Pool
from hms_ray.ensemble.threads import on_one_thread
from hms_ray.tasks import Task

KEPT = ("method_", "names_", "score_in_sample_", "score_cross_fitted_", "interval_", "n_units_", "n_groups_", "notes_")
RENAMED = {"kl_in_sample_": "score_in_sample_", "kl_cross_fitted_": "score_cross_fitted_"}  # old names


@dataclass(frozen=True)
class Ensemble:
    """A fitted ensemble of M members.

    score_in_sample_: score on the rows of the fit, which is optimistic
    score_cross_fitted_: score of predictions whose weights, hyper-parameters, members and pool were all chosen without
        the patients that they are scored on
    interval_: 95 % interval of the cross-fitted score, from a bootstrap over patients; None with too few patients
    n_units_, n_groups_: numbers of scored units and groups
    notes_: warnings about the rows and the scores
    oof_: cross-fitted predictions (N, K); not saved
    """

    pool_: Pool
    task_: Task
    method_: str
    names_: tuple[str, ...]
    score_in_sample_: float
    score_cross_fitted_: float
    interval_: tuple[float, float] | None
    n_units_: int
    n_groups_: int
    notes_: tuple[str, ...]
    oof_: np.ndarray | None = field(default=None, repr=False, compare=False)

    @property
    def weights_(self) -> np.ndarray:
        """Weight of each member (M,); weights of a linear pool sum to 1."""
        return self.pool_.weights

    @property
    def gap_(self) -> float | None:
        """Bound on the distance of its convex pools to their optimum, in sample; None without a convex pool."""
        return self.pool_.gap

    def predict(self, probs: np.ndarray) -> np.ndarray:
        """Pool the members' predictions, (N, M, K) -> (N, K).

        Raises:
            DataError: a wrong shape, or values that are not predictions.
        """
        probs, expected = np.asarray(probs), (len(self.names_), len(self.task_.classes))
        if probs.ndim != 3 or probs.shape[1:] != expected:
            raise DataError(f"probs must be (N, {expected[0]}, {expected[1]}), but its shape is {probs.shape}")
        check_predictions(probs, self.task_, self.names_)
        return self.task_.from_outcomes(self.pool_.predict(self.task_.outcomes(probs)))

    def save(self, path: str | Path) -> None:
        """Write the ensemble as JSON, atomically."""
        kept = {name: getattr(self, name) for name in KEPT}
        files.write_json(Path(path), {"pool_": _base.to_dict(self.pool_), "task_": self.task_.to_dict(), **kept})

    @classmethod
    def load(cls, path: str | Path) -> Ensemble:
        """Read an ensemble that `save` wrote.

        Raises:
            DataError: the file is missing or broken, or is not such an ensemble.
        """
        content = files.read_json(Path(path))
        try:
            content |= {new: content[old] for old, new in RENAMED.items() if old in content}
            kept: dict[str, Any] = {name: tuple(v) if isinstance(v := content[name], list) else v for name in KEPT}
            return cls(_base.from_dict(content["pool_"]), tasks.from_dict(content["task_"]), **kept)
        except (ConfigError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: not an ensemble that was saved by hms_ray ({error})") from error


@on_one_thread
def fit(
    probs: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray | None = None,
    folds: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    pool: str = "auto",
    *,
    task: str | Task = tasks.DEFAULT,
    names: Sequence[str] | None = None,
    families: Sequence[str] | None = None,
    limits: Limits | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Ensemble:
    """Fit an ensemble to out-of-fold predictions and score it by cross-fitting.

    Args:
        probs: predictions (N, M, K) of M models; none was trained on the group of the row that it predicts.
        targets: (N, K); by default, shares whose rows sum to 1.
        groups: of the rows (N,), such as patients; None: each row is a group.
        folds: whole numbers (N,), no group in two of them; None: five folds by group.
        weights: of the rows (N,); rows of weight 0 are only predicted. None: all equal.
        pool: "auto", which weighs several pools by their nested score, or one pool: linear, log_linear, tempered,
            calibrated, two_level, average, greedy, uniform, best_single.
        task: the name of one, a file of hms_ray/tasks, or a Task; by default rows are shares, scored by KL divergence.
        names, families: of the members (M,); members of one family, such as one input, can be pooled first.
        limits: on the number of members, or on the seconds that they take.
        seed: of the bootstrap; the fit itself is deterministic.
        progress: called with (done, total) after each fit.

    Raises:
        ConfigError: unknown pool, or limits that cannot be met.
        DataError: arrays of different lengths, or invalid values.
    """
    methods.check(pool)
    rows = make_rows(probs, targets, groups, folds, weights, task, names, families)
    limits = Limits() if limits is None else limits
    limits.check(rows.n_members)
    rng = seeds.stream(seed, "ensemble", "bootstrap")
    fits = Fits(rows, limits, progress)
    nested, fitted = cross_fit(fits, pool), fits.chosen(pool)
    losses = rows.losses(nested.probs[rows.scored], rows.scored)
    groups, weight = rows.groups[rows.scored], rows.weight[rows.scored]
    [score] = bootstrap.estimates(losses[:, None], groups, weight, rng, bounds=scores.SCORES)
    return Ensemble(
        pool_=fitted,
        task_=rows.task,
        method_=pool,
        names_=rows.names,
        score_in_sample_=rows.score(fitted.predict(rows.probs)),
        score_cross_fitted_=score.value,
        interval_=None if score.low is None or score.high is None else (score.low, score.high),
        n_units_=rows.n_units,
        n_groups_=rows.n_groups,
        notes_=(*nested.notes, *notes.of_constant(rows, fitted), *notes.of(rows, np.arange(len(rows.targets)))),
        oof_=rows.task.from_outcomes(nested.probs),
    )
