"""Which trials may still become finalists: while a search goes on, the weights of these alone are kept.

The best ensemble of few trials may need one that an earlier choice left out, so that no trial is safely out by the
final choice itself. Therefore runners-up stay beside the trials that would get all folds now. Trials are considered in
the order of their numbers. Who goes is out for good, which the journal records before weights are deleted. The
finalists are chosen from those that are left, so that none of them lacks weights, and what is left does not depend on
which trial ended first or when a search was killed.
"""

import math
from collections.abc import Collection

from optuna.trial import FrozenTrial, TrialState

from hms_ray.core.errors import SearchAborted
from hms_ray.search.disk_limit import DiskLimit
from hms_ray.search.finalists.allocation import Plan
from hms_ray.search.optuna.journal import Journal
from hms_ray.search.pruning.pruner import Pruner
from hms_ray.search.space.settings import Budget, Race

FINALISTS = 8  # of rules other than ensemble, where the budget names no number
SPARE = 4  # runners-up at least


def most_finalists(budget: Budget, race: Race) -> int:
    """Return how many trials at most get all their folds."""
    if race.rule != "ensemble":
        return min(budget.trials, budget.finalists or FINALISTS)
    by_folds = budget.trials if race.folds is None else max(1, int(race.folds * budget.trials + 1e-9))
    return min(budget.trials, by_folds, budget.finalists or budget.trials)


def size(kept: int, race: Race) -> int:
    """Return how many trials stay where `kept` would get all folds: half as many runners-up for a choice by the
    ensemble.

    A choice of the best trials needs none: whoever is worse than so many stays so.
    """
    return kept + max(SPARE, kept // 2) if race.rule == "ensemble" else kept


class Shortlist:
    """The trials of one space that may become finalists, by number."""

    def __init__(self, journal: Journal, pruner: Pruner) -> None:
        self.journal, self.pruner, self.budget = journal, pruner, journal.space.budget
        self.by_ensemble = pruner.race.rule == "ensemble"
        self.considered, out = journal.considered, set(journal.out)
        first = journal.trials()[: self.considered]
        self.members = [trial for trial in first if trial.state == TrialState.COMPLETE and trial.number not in out]

    def update(self) -> list[str]:
        """Consider the trials that have ended since, as far as all before them have, and return those that went out."""
        trials, out = self.journal.trials(), set(self.journal.out)
        gone = []
        while self.considered < len(trials) and trials[self.considered].state.is_finished():
            trial = trials[self.considered]
            self.considered += 1
            if trial.state == TrialState.COMPLETE and trial.number not in out:
                self.members.append(trial)
                gone += self._reduce()
        return self.put_out(gone)

    def plan(self) -> Plan:
        """Return which members train their next fold and which are to get all folds, by position."""
        return self.pruner.plan(self._ids(), self._spent()) if self.members else Plan([], [])

    def leave(self, kept: Collection[int]) -> list[int]:
        """Keep the members at these positions and runners-up, and return the numbers of the others."""
        count = size(len(kept), self.pruner.race)
        if count >= len(self.members):
            return []
        foremost = self.pruner.foremost(self._ids(), count) if self.by_ensemble else []
        behind = [member for member in foremost if member not in kept]
        return self._leave({*kept, *behind[: count - len(kept)]})

    def put_out(self, numbers: Collection[int]) -> list[str]:
        """Record which trials are out for good, and return their ids."""
        if numbers:
            self.journal.put_out(numbers, self.considered)
            self.members = [trial for trial in self.members if trial.number not in numbers]
        return [self.journal.trial_id(number) for number in numbers]

    def make_room(self) -> None:
        """Where the disk is short, give up the runners-up for good.

        Raises:
            SearchAborted: it is short nevertheless.
        """
        disk = DiskLimit(self.pruner.store.folder.root, self.budget.disk_gb)
        try:
            disk.check()
        except SearchAborted:
            self.pruner.store.release(self.put_out(self._leave(self._kept())))
            disk.check()

    def finalists(self) -> dict[str, int]:
        """Return the trials to train on all folds and their numbers: those of the best ensemble, or else the best."""
        kept = [self.members[position] for position in self._kept()]
        return {self.journal.trial_id(trial.number): trial.number for trial in kept}

    def _reduce(self) -> list[int]:
        """Leave out who is not among the finalists or runners-up of now, and return their numbers."""
        if len(self.members) <= size(1, self.pruner.race) and self.by_ensemble:  # one is kept at least
            return []
        return self.leave(self._kept())

    def _kept(self) -> list[int]:
        """Return the positions of the members that would get all folds if no trial came after them."""
        if self.by_ensemble:
            return self.plan().kept
        ranks = sorted(range(len(self.members)), key=lambda i: (self.members[i].value, self.members[i].number))
        return sorted(ranks[: most_finalists(self.budget, self.pruner.race)])

    def _leave(self, positions: Collection[int]) -> list[int]:
        gone = [trial.number for position, trial in enumerate(self.members) if position not in positions]
        self.members = [trial for trial in self.members if trial.number not in gone]
        return gone

    def _ids(self) -> list[str]:
        return [self.journal.trial_id(trial.number) for trial in self.members]

    def _spent(self) -> int:
        """Return how many folds are no members': those that others have trained, and those of trials to come."""
        if self.pruner.race.folds is None:  # nobody asks
            return 0
        members = {trial.number for trial in self.members}
        others = [trial for trial in self.journal.trials()[: self.considered] if trial.number not in members]
        trials_to_come = max(0, self.budget.trials - self.considered)
        return math.ceil(sum(map(self._trained, others))) + trials_to_come * len(self.pruner.folds)

    def _trained(self, trial: FrozenTrial) -> float:
        """Return how many folds a trial has trained, the part of one in which it was stopped included."""
        if trial.state == TrialState.PRUNED:
            return trial.user_attrs["fidelity"] * len(self.pruner.folds)
        return self.pruner.trained(self.journal.trial_id(trial.number))
