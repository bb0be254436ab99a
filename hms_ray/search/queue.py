"""The queue of a space's trials: proposes, prunes and records them, wherever they are trained."""

import math
import re
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from hms_ray.core.errors import ConfigError, SearchAborted
from hms_ray.execution.collector import ATTEMPTS, LOST
from hms_ray.execution.events import FoldDone, FoldHalted, Message, Note, Work
from hms_ray.execution.packing import GpuPacking
from hms_ray.search.events import BestTrial, EnsembleSoFar, TrialEnded, TrialRejected, TrialStopped
from hms_ray.search.finalists.shortlist import Shortlist
from hms_ray.search.open_study import OpenStudy
from hms_ray.search.optuna.journal import Journal
from hms_ray.search.pruning.pruner import Pruner
from hms_ray.search.recorder import Recorder
from hms_ray.training.jobs import FoldResult, FoldStopped
from hms_ray.training.run_config import RunConfig, try_run


@dataclass(frozen=True)
class _Stop:
    """Why a trial was stopped, and how much of its schedule it had trained."""

    cause: str
    fidelity: float


class TrialQueue:
    """The source of trials: first those that a stopped driver left, then new proposals within the budget.

    What a trial is proposed from and judged against are the trials that had ended `result_lag` numbers before it. So no
    decision depends on which of the trials running side by side ends first, nor on when a search was killed.

    `result_lag` goes by the most trials that ever ran at once in the study. A node that joins lets it grow; one that is
    lost changes nothing, since its trials are to be those of an undisturbed search. Each trial keeps what it was
    proposed under, in the journal.

    max_concurrent: returns how many trials can run side by side now, of so many that are left

    gpus: what a trial takes of a GPU: a number, or by measurement
    """

    def __init__(
        self,
        study: OpenStudy,
        journal: Journal,
        recorder: Recorder,
        pruner: Pruner,
        max_concurrent: Callable[[int], int],
        gpus: float | GpuPacking,
    ) -> None:
        self.study, self.journal, self.recorder, self.pruner, self.gpus = study, journal, recorder, pruner, gpus
        self.store, self.publish = recorder.store, recorder.publish
        self.folds, self.budget = pruner.folds, journal.space.budget
        self.max_concurrent, self.concurrency = max_concurrent, journal.concurrency()
        self.waiting = deque(journal.unfinished())
        self.numbers: dict[str, int] = {}
        self.runs: dict[str, RunConfig] = {}
        self.given: dict[str, float] = {}
        self.stops: dict[str, _Stop] = {}
        self.losses: Counter[str] = Counter()
        self.shown_faults: set[str] = set()
        self.interrupted = False
        self.lock = threading.RLock()
        self.shortlist = Shortlist(journal, pruner)
        self.shortlist.update()
        self.store.release([journal.trial_id(number) for number in journal.out])  # a kill may have come before

    def interrupt(self) -> None:
        """Let the folds in flight end, and begin no others."""
        self.interrupted = True

    def exhausted(self) -> bool:
        """Whether nothing more will come."""
        return self.interrupted or (not self.waiting and len(self.journal.trials()) >= self.budget.trials)

    def remaining(self) -> int:
        """Return how many trials have not ended, those included that are not proposed yet."""
        states = [trial.state.is_finished() for trial in self.journal.trials()]
        return max(len(states), self.budget.trials) - sum(states)

    @property
    def result_lag(self) -> int:
        """How many of the newest trials a proposal knows nothing of: fewer learn sooner, more wait less for each
        other."""
        return self.concurrency + self.concurrency // 2 if self.concurrency > 1 else 0

    def next(self) -> Work | None:
        """Return the next trial, or None; proposals that cannot be trained are replaced by others.

        Raises:
            SearchAborted: too many proposals in a row cannot be trained; or as in `ended`.
        """
        with self.lock:
            while not self.exhausted():
                proposal = self.waiting.popleft() if self.waiting else self._propose()
                if proposal is None:
                    return None
                if self._view(proposal[0]) is None:
                    self.waiting.appendleft(proposal)
                    return None
                work = self._work(*proposal)
                if work:
                    return work
            return None

    def handle(self, message: Message) -> None:
        """Write what a worker sent."""
        self.recorder.handle(message)
        with self.lock:
            match message:
                case FoldHalted(trial, stopped):
                    self._stop(trial, _behind_others(stopped.epochs[-1]))
                    self._learn(trial, stopped)
                case FoldDone(trial, result):
                    self._learn(trial, result)

    def goes_on(self, trial: str, fold: int) -> bool:
        """Race the trial after a fold; an interrupted search stops none, but begins no fold either."""
        with self.lock:
            return not self.interrupted and self._survives(trial)

    def ended(self, work: Work) -> None:
        """Record how a trial ended.

        Raises:
            SearchAborted: too many trials in a row have failed with the same error.
        """
        with self.lock:
            self._end(work.trial)
            self.store.release(self.shortlist.update())

    def why(self) -> str:
        """Return the last failure's cause."""
        failed = self.journal.trials(TrialState.FAIL)
        return f"the last one failed with: {failed[-1].user_attrs['cause']}" if failed else "none was proposed"

    def kept(self, number: int) -> list[str]:
        """Return the trials that this one may know of and that were not stopped."""
        view = self._view(number)
        assert view is not None, "a trial begins when those that it may know of have ended"
        return [self.journal.trial_id(t.number) for t in view if t.state == TrialState.COMPLETE]

    def _propose(self) -> tuple[int, dict[str, Any]] | None:
        """Propose a trial, under the concurrency of now if that has grown.

        Each rule by which another proposal was replaced is shown once.
        """
        now = self.max_concurrent(self.remaining())
        if now > self.concurrency:
            number = len(self.journal.trials())
            if self.concurrency and number:
                first = self.journal.trial_id(number)
                self.publish(Note(f"{now} trials at once instead of {self.concurrency}, from {first} on"))
            self.concurrency = now
        proposal = self.journal.propose(self.result_lag, self.study.fault, self.concurrency)
        if proposal is not None:
            replaced = self.journal.trial(proposal[0]).user_attrs.get("replaced", {})
            for cause in (cause for cause in replaced if cause not in self.shown_faults):
                self.shown_faults.add(cause)
                self.publish(Note(f"an invalid configuration was replaced, as others like it will be: {cause}"))
        return proposal

    def _view(self, number: int) -> list[FrozenTrial] | None:
        """Return the trials that one may know of, None while one of them is still running."""
        known = self.journal.known(number)
        return self.journal.view(number, self.result_lag if known is None else number - known)

    def _work(self, number: int, content: dict) -> Work | None:
        """Return what is left to train of a trial; None when that is nothing, after recording how it ended."""
        trial = self.journal.trial_id(number)
        run, faults = try_run(content)
        if run is None:
            return self._reject(number, trial, "; ".join(faults))
        self.shortlist.make_room()
        self.numbers[trial], self.runs[trial] = number, run
        missing = self.store.missing(trial, self.folds)
        began = len(missing) < len(self.folds)
        if not missing or (began and not self._survives(trial)):  # the driver was killed before it recorded that
            self._end(trial)
            return None
        try:
            self.study.weights(run)
        except ConfigError as error:  # a combination of choices whose weights cannot be had
            return self._reject(number, trial, str(error))
        kept = self.kept(number)
        jobs = [self.study.job(trial, run, fold, self.pruner.prune_thresholds(run, fold, kept)) for fold in missing]
        self.given[trial] = self.gpus.share(run) if isinstance(self.gpus, GpuPacking) else self.gpus
        return Work(trial, tuple(jobs), self.given[trial])

    def _reject(self, number: int, trial: str, cause: str) -> None:
        """Fail a trial that cannot begin."""
        self.publish(TrialRejected(trial, cause))
        self._fail(number, trial, cause)

    def _survives(self, trial: str) -> bool:
        done = self._done(trial)
        if len(done) == len(self.folds):
            return True
        decision = self.pruner.decide(trial, done, self.kept(self.numbers[trial]))
        if decision.stop:
            self._stop(trial, decision.reason)
        return not decision.stop

    def _done(self, trial: str) -> list[int]:
        missing = self.store.missing(trial, self.folds)
        return [fold for fold in self.folds if fold not in missing]

    def _learn(self, trial: str, result: FoldResult | FoldStopped) -> None:
        if isinstance(self.gpus, GpuPacking):
            self.gpus.learn(self.runs[trial], self.given[trial], result)

    def _stop(self, trial: str, cause: str) -> None:
        whole = self.runs[trial].epochs * len(self.folds)
        stop = self.stops[trial] = _Stop(cause, self.store.epochs(trial) / whole)
        fold, folds_saved = self.recorder.halted_folds.get(trial), (1 - stop.fidelity) * len(self.folds)
        self.publish(TrialStopped(trial, fold, cause, folds_saved))

    def _end(self, trial: str) -> None:
        missing, failure = self.store.missing(trial, self.folds), self.recorder.failures.get(trial)
        share = self.given.get(trial, 1.0)
        if failure and failure.of_memory and isinstance(self.gpus, GpuPacking) and share < 1:
            self.gpus.halve(self.runs[trial], share)
            self._again(trial)
        elif trial in self.stops:
            self._prune(trial, self.stops[trial])
        elif not missing:
            self._complete(trial)
        elif failure:
            self._fail(self.numbers[trial], trial, failure.cause)
        elif not self.interrupted:
            self._lose(trial)

    def _lose(self, trial: str) -> None:
        """Have a trial trained again that ended without a word: Tune gives one up whose reused worker dies before it
        has begun."""
        self.losses[trial] += 1
        if self.losses[trial] < ATTEMPTS:
            self._again(trial)
        else:
            self._fail(self.numbers[trial], trial, LOST)

    def _again(self, trial: str) -> None:
        proposal = self.numbers[trial], self.journal.run(self.numbers[trial])
        self.waiting = deque(sorted([*self.waiting, proposal], key=lambda waiting: waiting[0]))

    def _complete(self, trial: str) -> None:
        number, score = self.numbers[trial], self.store.score(trial, self.folds)
        if not math.isfinite(score):
            return self._fail(number, trial, f"its score is {score}")
        attrs = {"score": score}
        if self.study.score.objective == "gain":
            attrs["gain"] = self.pruner.gain(trial, self.folds, self.kept(number))
        self.journal.reports(number, self.store.reports(trial))
        self.journal.complete(number, -attrs["gain"] if "gain" in attrs else score, self.store.seconds(trial), **attrs)
        self.publish(TrialEnded(trial, "COMPLETE"))
        self.show()

    def _prune(self, trial: str, stop: _Stop) -> None:
        number, kept = self.numbers[trial], self.kept(self.numbers[trial])
        if self.study.score.objective == "gain":
            estimate = -self.pruner.gain(trial, self._done(trial), kept)
        else:
            estimate = self.pruner.estimate(trial, self.runs[trial], self.recorder.halted_folds.get(trial), kept)
        self.journal.reports(number, self.store.reports(trial))
        self.journal.prune(number, estimate, stop.fidelity, stop.cause, self.store.seconds(trial))
        self.store.drop_weights(trial)
        self.publish(TrialEnded(trial, "PRUNED"))

    def _fail(self, number: int, trial: str, cause: str) -> None:
        self.journal.reports(number, self.store.reports(trial))
        self.journal.fail(number, cause, seconds=self.store.seconds(trial))
        self.store.drop_weights(trial)
        self.publish(TrialEnded(trial, "FAIL"))
        self._check_failures()

    def show(self) -> None:
        """Show the best trial and the ensemble so far, if there are any."""
        complete = self.journal.trials(TrialState.COMPLETE)
        if not complete:
            return
        best = min(complete, key=lambda t: (t.user_attrs["score"], t.number))
        self.publish(BestTrial(self.journal.trial_id(best.number), best.user_attrs["score"]))
        self.publish(EnsembleSoFar(*self.pruner.ensemble([self.journal.trial_id(t.number) for t in complete])))

    def _check_failures(self) -> None:
        """Abort when the newest trials that have ended all failed alike: what is wrong is not the configuration."""
        ended = [t for t in self.journal.trials() if t.state.is_finished()][-self.budget.same_failures :]
        if len(ended) == self.budget.same_failures and len(set(map(_error, ended))) == 1 and _error(ended[0]):
            raise SearchAborted(
                f"space {self.journal.space.name}: {len(ended)} trials in a row failed with the same error "
                f"(budget.same_failures): {ended[-1].user_attrs['cause']}"
            )


def _behind_others(row: Mapping[str, Any]) -> str:
    return f"its score of {row['score']:.4f} in epoch {row['epoch']} of fold {row['fold']} is too far behind the others"


def _error(trial: FrozenTrial) -> str:
    """Return a failed trial's cause without what differs from trial to trial; empty for others."""
    return re.sub(r"\d+", "#", trial.user_attrs.get("cause", "")) if trial.state == TrialState.FAIL else ""
