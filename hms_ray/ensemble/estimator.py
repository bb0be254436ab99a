"""The ensemble as an estimator, in the manner of scikit-learn: arrays in, attributes that end in `_` out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

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

    score_in_sample_: its score on the rows it is fitted on, which is optimistic
    score_cross_fitted_: the score of predictions whose weights, hyper-parameters, members and pool were all chosen
        without the patients that they are scored on
    interval_: bounds of the cross-fitted score, 95 %, from a bootstrap over patients; None where there are too few
    n_units_, n_groups_: how many units and groups the scores are of
    notes_: what has to be said about them
    oof_: the cross-fitted predictions (N, K); not saved
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
        """What each member counts (M,); they sum to 1 where the pool is linear."""
        return self.pool_.weights

    @property
    def gap_(self) -> float | None:
        """No other weights of its convex pools are better, in sample, by more; None where no pool in it is convex."""
        return self.pool_.gap

    def predict(self, probs: np.ndarray) -> np.ndarray:
        """Pool the members' predictions, (N, M, K) -> (N, K).

        Raises:
            DataError: another shape, or values that are no predictions.
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
        """Read what `save` wrote.

        Raises:
            DataError: the file is missing, broken, or something else.
        """
        content = files.read_json(Path(path))
        try:
            content |= {new: content[old] for old, new in RENAMED.items() if old in content}
            kept = {name: tuple(v) if isinstance(v := content[name], list) else v for name in KEPT}
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
    """Fit an ensemble to out-of-fold predictions, and score it by cross-fitting.

    Args:
        probs: predictions (N, M, K) of M models, each made by a model that had not seen the row's group.
        targets: (N, K); by default, shares whose rows sum to 1.
        groups: whose rows they are (N,), such as patients; None: each row its own.
        folds: whole numbers (N,), no group in two of them; None: five folds by group.
        weights: how much each row counts (N,); rows of weight 0 are predicted only. None: all alike.
        pool: "auto", which weighs several pools by their nested score, or one of them: linear, log_linear, tempered,
            calibrated, two_level, average, greedy, uniform, best_single.
        task: the name of one, a file of hms_ray/tasks, or a Task; by default rows are shares, scored by KL divergence.
        names, families: of the members (M,); members of one family, say of one input, can be pooled first.
        limits: how many members may be used, or how many seconds they may take.
        seed: of the bootstrap; the fit itself has nothing random.
        progress: called with (done, total) after each fit.

    Raises:
        ConfigError: no such pool, or limits that cannot be kept.
        DataError: arrays that do not fit each other, or values that cannot be.
    """
    methods.check(pool)
    rows = make_rows(probs, targets, groups, folds, weights, task, names, families)
    limits = Limits() if limits is None else limits
    limits.check(rows.n_members)
    rng = seeds.stream(seed, "ensemble", "bootstrap")
    fits = Fits(rows, limits, progress)
    nested, fitted = cross_fit(fits, pool), fits.chosen(pool)
    losses = rows.losses(nested.probs[rows.scored], rows.scored)
    whose, weight = rows.groups[rows.scored], rows.weight[rows.scored]
    [score] = bootstrap.estimates(losses[:, None], whose, weight, rng, bounds=scores.SCORES)
    return Ensemble(
        pool_=fitted,
        task_=rows.task,
        method_=pool,
        names_=rows.names,
        score_in_sample_=rows.score(fitted.predict(rows.probs)),
        score_cross_fitted_=score.value,
        interval_=None if score.low is None else (score.low, score.high),
        n_units_=rows.n_units,
        n_groups_=rows.n_groups,
        notes_=(*nested.notes, *notes.of_constant(rows, fitted), *notes.of(rows, np.arange(len(rows.targets)))),
        oof_=rows.task.from_outcomes(nested.probs),
    )
