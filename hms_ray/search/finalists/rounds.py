"""The rounds that follow the trials of a space: in each, the trials that the ensemble may need train one more fold.

Rule `ensemble` alone has rounds. A round is recorded before it is trained, and planned when all before it is trained: a
driver that was killed finishes the recorded round and then plans as it would have done.
"""

import logging

from hms_ray.core.errors import SearchAborted
from hms_ray.execution.events import Note
from hms_ray.search.finalists.allocation import Plan
from hms_ray.search.finalists.shortlist import Shortlist
from hms_ray.search.optuna.journal import Journal
from hms_ray.search.recorder import Recorder
from hms_ray.study.trial_store import TrialStore
from hms_ray.training.run_config import RunConfig, parse_run


class Rounds:
    """What is trained next of the trials on the shortlist, all of which have ended."""

    def __init__(self, journal: Journal, store: TrialStore, shortlist: Shortlist) -> None:
        self.journal, self.store, self.shortlist = journal, store, shortlist
        self.order = store.scored_folds()

    def next(self) -> dict[str, int]:
        """Return the trials that train now, each with its fold; none: the rounds are over.

        They are what is left of the recorded round, or else a new one, which is recorded. Trials that can no longer
        become finalists lose their weights.

        Raises:
            SearchAborted: the study has outgrown its budget.
        """
        if pending := self.pending():
            return pending
        if self.shortlist.plan().pairs:
            self.shortlist.make_room()
            self._open(self.shortlist.plan())
        return self.pending()

    def pending(self) -> dict[str, int]:
        """Return what is left of the recorded round: trials that are not out, each with its fold."""
        found = {}
        for number, fold in self._last()["pairs"]:
            trial = self.journal.trial_id(number)
            if number not in self.journal.out and self.store.missing(trial, [fold]):
                found[trial] = fold
        return found

    def runs(self) -> dict[str, RunConfig]:
        """Return the runs of the trials that train now."""
        pending, pairs = self.pending(), self._last()["pairs"]
        numbers = {self.journal.trial_id(number): number for number, _ in pairs}
        return {trial: parse_run(self.journal.run(numbers[trial])) for trial in pending}

    def folds(self) -> int:
        """Return how many folds the trials lack that are to get all folds, as far as is known now."""
        kept = [self.journal.trial_id(number) for number in self._last()["kept"] if number not in self.journal.out]
        return sum(len(self.store.missing(trial, self.order)) for trial in kept)

    def close(self, recorder: Recorder) -> None:
        """Take out the trials whose fold could not be trained.

        Raises:
            SearchAborted: none of the trials that are to get all folds is left; the same command tries again.
        """
        failed = self.pending()
        if not failed:
            return
        causes = {
            trial: f"fold {fold} of {trial} could not be trained: {_cause(recorder, trial)}"
            for trial, fold in failed.items()
        }
        numbers = [number for number, _ in self._last()["pairs"] if self.journal.trial_id(number) in failed]
        if {*self._last()["kept"]} <= {*numbers, *self.journal.out}:
            raise SearchAborted(f"space {self.journal.space.name}: {'; '.join(causes.values())}")
        for trial, cause in causes.items():
            recorder.publish(Note(f"{trial} cannot become a finalist: {cause}", logging.WARNING))
        self.store.release(self.shortlist.put_out(numbers))

    def _open(self, plan: Plan) -> None:
        """Record a round."""
        members = list(self.shortlist.members)
        pairs = [(members[position].number, self.order[place]) for position, place in plan.pairs]
        kept = [members[position].number for position in plan.kept]
        gone = self.shortlist.leave(plan.kept)
        self.journal.put_round(pairs, kept, gone, self.shortlist.considered)
        self.store.release([self.journal.trial_id(number) for number in gone])

    def _last(self) -> dict[str, list]:
        return self.journal.rounds[-1] if self.journal.rounds else {"pairs": [], "kept": []}


def _cause(recorder: Recorder, trial: str) -> str:
    failure = recorder.failures.get(trial)
    return failure.cause if failure else "its worker did not say why"
