"""Applies a space's race to its trials: gathers what a trial and those kept have predicted, and asks the rules."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hms_ray.ensemble.pools import linear
from hms_ray.search.finalists import allocation
from hms_ray.search.finalists.allocation import Plan
from hms_ray.search.pruning import ensemble_gain, learning_curve
from hms_ray.search.pruning.ensemble_gain import PruneDecision
from hms_ray.search.space.settings import Budget, Race
from hms_ray.study import epoch_selection
from hms_ray.study.trial_store import Scored, TrialStore
from hms_ray.training.run_config import RunConfig

GO_ON = PruneDecision(stop=False, gain=math.nan, error=math.nan, upper=math.nan, reason="nothing to be judged by")


class Pruner:
    """Judges the trials of one space.

    folds: those that a trial trains. `kept`, wherever it is an argument, are the trials that a trial may know of and
    that were not stopped: all of them have all these folds.
    """

    def __init__(self, race: Race, budget: Budget, store: TrialStore, folds: Sequence[int]) -> None:
        self.race, self.budget, self.store, self.folds = race, budget, store, tuple(folds)
        self.min_gain = allocation.PRICE / budget.trials if race.min_gain is None else race.min_gain

    def decide(self, trial: str, done: Sequence[int], kept: Sequence[str]) -> PruneDecision:
        """Decide whether a trial that has finished the folds `done`, but not all, goes on."""
        own = self._scored(trial, done)
        if self.race.rule == "none" or not kept or not len(own.targets):
            return GO_ON
        look = {"look": len(done), "looks": len(self.folds), "stop_rate": self.race.stop_rate}
        if self.race.rule == "best":
            incumbent = min(kept, key=lambda other: self.store.score(other, done))
            rows = self._scored(incumbent, done).probs
            return ensemble_gain.judge_best(own.targets, own.groups, own.probs, rows, **look)
        others = self._stacked(kept, done)
        return ensemble_gain.judge_ensemble(own.targets, own.groups, own.probs, others, **look, min_gain=self.min_gain)

    def prune_thresholds(self, run: RunConfig, fold: int, kept: Sequence[str]) -> tuple[float, ...]:
        """Return the score above which a fold of this run is stopped, epoch by epoch; empty: it never is."""
        if self.race.rule == "none" or not self.race.inside_folds:
            return ()
        return tuple(
            map(float, learning_curve.prune_thresholds(self._curves(kept, fold), _rounds(run), self.race.rule))
        )

    def estimate(self, trial: str, run: RunConfig, stopped_in: int | None, kept: Sequence[str]) -> float:
        """Guess the score that a stopped trial would have had over all its folds; stopped_in: the fold it was in."""
        scored = [fold for fold in self.folds if self.store.scored_units(fold)]
        missing = self.store.missing(trial, scored)
        own = [self.store.score(trial, [fold]) for fold in scored if fold not in missing]
        done = [fold for fold in scored if fold not in missing]
        if stopped_in in missing:
            curves = self._curves(kept, stopped_in)
            own.append(learning_curve.projected_end(self._curve(trial, stopped_in, _rounds(run)), curves))
            done.append(stopped_in)
        order = [*done, *(fold for fold in scored if fold not in done)]
        others = np.array([[self.store.score(other, [fold]) for fold in order] for other in kept])
        units = np.array([self.store.scored_units(fold) for fold in order])
        return learning_curve.estimate(np.array(own), others.reshape(len(kept), len(order)), units)

    def gain(self, trial: str, folds: Sequence[int], kept: Sequence[str]) -> float:
        """Return what a trial adds to the ensemble of those kept, on those folds; 0 while there is none to add to."""
        own = self._scored(trial, folds) if folds else None
        if not kept or own is None or not len(own.targets):
            return 0.0
        return ensemble_gain.gain(own.targets, own.probs, self._stacked(kept, folds))

    def plan(self, trials: Sequence[str], spent: int) -> Plan:
        """Return which of the trials train their next fold, and which are to get all folds, by position.

        Folds are positions in the order in which the study trains them. spent: the folds that other trials take.
        """
        price, most = self.min_gain * len(trials), self.budget.finalists
        return self._planned(trials, price=price, budget=self._share(len(trials), spent), most=most)

    def foremost(self, trials: Sequence[str], count: int) -> list[int]:
        """Return the positions of the `count` trials that the ensemble needs most, whatever their folds cost."""
        return self._planned(trials, price=0.0, most=count).kept

    def trained(self, trial: str) -> int:
        """Return how many folds a trial has finished."""
        folds = range(self.store.n_folds)
        return len(folds) - len(self.store.missing(trial, folds))

    def ensemble(self, trials: Sequence[str]) -> tuple[float, int, int, int]:
        """Return the score of the best pool of trials, its members, and the units and patients that it is scored on."""
        task, own = self.store.labels.task, self.store.scored(trials[0], self.folds)
        probs = self._stacked(trials, self.folds)
        pool = linear.fit(probs, task.outcomes(own.targets))
        score = task.score(own.targets, task.from_outcomes(pool.predict(probs)))
        return score, int((pool.weights > 0).sum()), len(own.targets), len(np.unique(own.groups))

    def _share(self, trials: int, spent: int) -> float:
        """Return the share of the folds of so many trials that `race.folds` allows."""
        if self.race.folds is None:
            return 1.0
        folds = self.store.n_folds
        return (self.race.allowed(self.budget.trials, folds) - spent) / (trials * folds)

    def _planned(self, trials: Sequence[str], **terms: Any) -> Plan:
        """Plan by all folds that the trials have finished, each at the epoch that the folds of its trial choose."""
        order = np.array(self.store.scored_folds())
        trained = np.array([~np.isin(order, self.store.missing(trial, order)) for trial in trials])
        done = np.cumprod(trained, axis=1).sum(1)
        found = [self._scored(trial, order[:count].tolist()) for trial, count in zip(trials, done, strict=True)]
        longest = found[int(done.argmax())]
        probs = np.full((len(longest.targets), len(trials), *longest.probs.shape[1:]), np.nan)
        for member, its in enumerate(found):  # all have the rows of their folds in the same order
            probs[: len(its.probs), member] = its.probs
        positions = np.argsort(order)[longest.folds]
        return allocation.plan(longest.targets, probs, longest.groups, positions, trained, **terms)

    def _curves(self, trials: Sequence[str], fold: int) -> list[learning_curve.Curve]:
        """Return the curves of trials that have finished a fold."""
        return [self._curve(trial, fold, self.store.stages(trial, fold)) for trial in trials]

    def _curve(self, trial: str, fold: int, stages: tuple[int, ...]) -> learning_curve.Curve:
        """Return the score that a fold would have, had it ended after each epoch; stages: epochs of its schedule."""
        store, scores = self.store, self.store.curve(trial, fold)
        return learning_curve.Curve(
            epoch_selection.as_ended(store.epoch_rule, store.candidates, scores, sum(stages)), stages
        )

    def _stacked(self, trials: Sequence[str], folds: Sequence[int]) -> np.ndarray:
        """Return the outcomes (N, M, ..., K) that trials predict for the scored units of those folds."""
        task = self.store.labels.task
        if not trials:
            rows = sum(map(self.store.scored_units, folds))
            return task.outcomes(np.empty((rows, 0, len(task.classes))))
        return np.stack([self._scored(trial, folds).probs for trial in trials], axis=1)

    def _scored(self, trial: str, folds: Sequence[int]) -> Scored:
        """Return a trial's predictions on the scored units of those folds, and the targets, as the task's outcomes."""
        task, found = self.store.labels.task, self.store.scored(trial, folds)
        return replace(found, targets=task.outcomes(found.targets), probs=task.outcomes(found.probs))


def _rounds(run: RunConfig) -> tuple[int, ...]:
    """Return the rows of the learning curve that each stage of a run has."""
    return tuple(stage.rounds for stage in run.stages)
