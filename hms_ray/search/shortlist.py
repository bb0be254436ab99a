"""Which trials may still become finalists: while a search goes on, the weights of these alone are kept.

The best ensemble of few trials may need one that an earlier choice left out, so that no trial is safely out by the
final choice itself. Therefore the choice is made step by step: trials are considered in the order of their numbers, and
of more than `size` the one goes that the pool of the others misses least. It is out for good, which the journal records
before its weights are deleted. The finalists are chosen from those that are left, so that none of them lacks weights,
and what is left does not depend on which trial ended first or when a search was killed.
"""

import math

from optuna.trial import FrozenTrial, TrialState

from hms_ray.search.journal import Journal
from hms_ray.search.referee import Referee
from hms_ray.search.settings import Budget, Race

SPARE = 4  # runners-up at least


def size(budget: Budget, race: Race) -> int:
    """Return how many trials are kept: the finalists, and half as many runners-up for a choice by the ensemble.

    A choice of the best trials needs none: whoever is worse than so many stays so.
    """
    spare = max(SPARE, budget.finalists // 2) if race.rule == "ensemble" else 0
    return min(budget.trials, budget.finalists + spare)


class Shortlist:
    """The trials of one space that may become finalists, by number."""

    def __init__(self, journal: Journal, referee: Referee) -> None:
        self.journal, self.referee, self.budget = journal, referee, journal.space.budget
        self.size = size(self.budget, referee.race)
        self.members: list[FrozenTrial] = []
        self.considered = 0

    def update(self) -> list[str]:
        """Consider the trials that have ended since, as far as all before them have, and return those that went out."""
        trials, out = self.journal.trials(), set(self.journal.out)
        gone = []
        while self.considered < len(trials) and trials[self.considered].state.is_finished():
            trial = trials[self.considered]
            self.considered += 1
            if trial.state == TrialState.COMPLETE and trial.number not in out:
                self.members.append(trial)
            if len(self.members) > self.size:
                gone += self._reduce(self.size)
        return self._record(gone)

    def reduce(self) -> list[str]:
        """Keep no runners-up, where the disk is short, and return those that went out."""
        return self._record(self._reduce(self.budget.finalists))

    def finalists(self) -> dict[str, int]:
        """Return the trials to train on all folds and their numbers: those of the best ensemble, or else the best."""
        count = self.budget.finalists
        if self.referee.race.rule == "ensemble" and self.members:
            chosen = self._chosen(count, self.referee.race.min_gain)
        else:
            chosen = self._best(count)
        return {self.journal.trial_id(trial.number): trial.number for trial in chosen}

    def _reduce(self, count: int) -> list[int]:
        """Leave `count` members at most, and return the numbers of the others."""
        by_ensemble = self.referee.race.rule == "ensemble"
        kept = self._chosen(count, -math.inf) if by_ensemble else self._best(count)
        numbers = {trial.number for trial in kept}
        gone = [trial.number for trial in self.members if trial.number not in numbers]
        self.members = kept
        return gone

    def _chosen(self, count: int, min_gain: float) -> list[FrozenTrial]:
        by_id = {self.journal.trial_id(trial.number): trial for trial in self.members}
        chosen = set(self.referee.choose(list(by_id), count, min_gain)) if by_id else set()
        return [trial for name, trial in by_id.items() if name in chosen]

    def _best(self, count: int) -> list[FrozenTrial]:
        numbers = {trial.number for trial in self.members}
        best = [trial for trial in self.journal.best(self.budget.trials) if trial.number in numbers][:count]
        return sorted(best, key=lambda trial: trial.number)

    def _record(self, gone: list[int]) -> list[str]:
        if gone:
            self.journal.put_out(gone)
        return [self.journal.trial_id(number) for number in gone]
