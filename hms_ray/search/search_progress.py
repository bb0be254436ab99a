"""What a search has done and what is still to come, counted in folds."""

import math
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hms_ray.search.events import EnsembleSoFar

NOTES = 3  # so many of the newest are shown


@dataclass
class Running:
    """A fold in flight: its last epoch, counted from 1, and the score then.

    epochs: its whole schedule and its teachers', if known; taught: epochs of its teachers so far
    """

    epochs: int | None
    epoch: int = 0
    score: float = math.nan
    taught: int = 0

    @property
    def done(self) -> int:
        """Epochs so far."""
        return self.epoch + self.taught

    @property
    def share(self) -> float:
        """How much of the fold is trained, 0 to 1."""
        return self.done / self.epochs if self.epochs else 0.0


class SearchProgress:
    """Counts what the driver tells it.

    trials: the budget; 0 where only chosen configurations are trained
    trial_folds: folds of a trial that nothing stops
    finalist_folds: folds that are expected to follow those of the trials
    ended, trained, saved: trials by state, and folds, of earlier runs of the same search
    clock: seconds that never go back
    optimism: what flatters every score of the study, beside which it stands; "": nothing
    """

    def __init__(
        self,
        trials: int,
        trial_folds: int,
        finalist_folds: int,
        ended: Mapping[str, int],
        trained: float,
        saved: float,
        clock: Callable[[], float],
        optimism: str = "",
    ) -> None:
        self.trials, self.trial_folds, self.finalist_folds = trials, trial_folds, finalist_folds
        self.states = Counter(ended)
        self.trained_before, self.saved, self.clock = trained, saved, clock
        self.optimism = optimism
        self.finished = 0  # folds, in this run
        self.running: dict[tuple[str, int], Running] = {}
        self.parts: defaultdict[str, float] = defaultdict(float)  # folds that a trial has left behind in this run
        self.over: set[str] = set()  # trials that ended in this run
        self.since: float | None = None  # when this run's first fold began
        self.before_finalists: float | None = None  # folds that this run had trained when the trials were over
        self.best: tuple[str, float] | None = None
        self.ensemble: EnsembleSoFar | None = None
        self.memory_gb = 0.0
        self.notes: deque[str] = deque(maxlen=NOTES)

    def started(self, trial: str, fold: int, epochs: int | None) -> None:
        """Count a fold as in flight; one that a lost worker had begun begins again."""
        self.since = self.clock() if self.since is None else self.since
        self.running[trial, fold] = Running(epochs)

    def epoch(self, trial: str, fold: int, epoch: int, score: float, memory_gb: float | None) -> None:
        """Take the newest epoch of a fold."""
        if (trial, fold) not in self.running:
            self.started(trial, fold, None)
        running = self.running[trial, fold]
        running.epoch, running.score = epoch, score
        self.memory_gb = max(self.memory_gb, memory_gb or 0.0)

    def taught(self, trial: str, fold: int) -> None:
        """Count an epoch of a fold's teacher."""
        if (trial, fold) in self.running:
            self.running[trial, fold].taught += 1

    def fold_done(self, trial: str, fold: int) -> None:
        """Count a finished fold."""
        self.running.pop((trial, fold), None)
        self.parts[trial] += 1
        self.finished += 1

    def fold_broken(self, trial: str, fold: int | None) -> None:
        """Count what was trained of a fold that will not be finished; None: no fold was in flight."""
        running = self.running.pop((trial, fold), None) if fold is not None else None
        self.parts[trial] += running.share if running else 0.0

    def ended(self, trial: str, state: str) -> None:
        """Count a trial as ended."""
        self.states[state] += 1
        self.over.add(trial)

    def finalists(self, folds: int) -> None:
        """The trials, or a round, are over; so many folds of chosen configurations follow, as far as is known."""
        self.finalist_folds, self.before_finalists = folds, self.work()

    def work(self) -> float:
        """Return how many folds this run has trained, parts included."""
        return sum(self._parts().values())

    def trained(self) -> float:
        """Return how many folds are finished, those of earlier runs included."""
        return self.trained_before + self.finished

    def to_come(self) -> float:
        """Return how many folds are still to be trained: a trial that has not begun takes what ended ones took."""
        if self.before_finalists is not None:
            return max(0.0, self.finalist_folds - (self.work() - self.before_finalists))
        parts = self._parts()
        in_flight = [part for trial, part in parts.items() if trial not in self.over]
        each = sum(parts[trial] for trial in self.over) / len(self.over) if self.over else self.trial_folds
        waiting = max(0, self.trials - self.states.total() - len(in_flight))
        return sum(max(0.0, self.trial_folds - part) for part in in_flight) + each * waiting + self.finalist_folds

    def left_s(self) -> float | None:
        """Return the seconds to go at this run's speed so far; None before its first fold is finished."""
        if not self.finished or self.since is None:
            return None
        return self.to_come() * (self.clock() - self.since) / self.work()

    def _parts(self) -> defaultdict[str, float]:
        """Return how many folds each trial of this run has trained."""
        parts = defaultdict(float, self.parts)
        for (trial, _), running in self.running.items():
            parts[trial] += running.share
        return parts


def duration(seconds: float | None) -> str:
    """Word an estimate in the unit that suits it; ? for None."""
    if seconds is None:
        return "?"
    if seconds < 90:
        return f"about {seconds:.0f} s"
    if seconds < 90 * 60:
        return f"about {seconds / 60:.0f} min"
    return f"about {seconds / 3600:.1f} h"
