"""A search from its first trial to the out-of-fold tables of its finalists.

Everything is read from and written to the study folder: run again, it goes on with what is missing.
"""

import logging
import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from optuna.trial import TrialState

from hms_ray import files
from hms_ray.config import RunConfig, parse_run, try_run
from hms_ray.crossval import FoldJob
from hms_ray.errors import SearchAborted
from hms_ray.execution.mailbox import Collector
from hms_ray.execution.resources import Request, fitted, folds_at_once
from hms_ray.execution.session import session
from hms_ray.execution.train_group import run_group
from hms_ray.execution.tune_trials import run_trials
from hms_ray.search.journal import Journal, one_driver
from hms_ray.search.ledger import Ledger
from hms_ray.search.space import Space
from hms_ray.search.study import Study, open_study
from hms_ray.study_folder import StudyFolder

log = logging.getLogger(__name__)


def search(folder: StudyFolder, spaces: Sequence[Space], root: Path) -> list[str]:
    """Search every space, train its finalists on all folds, and return the finalists' trial ids.

    Raises:
        UserError: before anything starts.
        SearchAborted: no trial of a space could be trained, or a worker group failed.
    """
    with _begun(folder, spaces, root) as (study, placings):
        return [trial for space in spaces for trial in _search_space(study, space, placings[space.name])]


def train(folder: StudyFolder, spaces: Sequence[Space], root: Path) -> list[str]:
    """Train the base run of every space on all folds and return the trial ids; errors as in `search`."""
    with _begun(folder, spaces, root) as (study, placings):
        return [
            trial
            for space in spaces
            for trial in _train_all_folds(study, {f"{space.name}-base": space.run}, (), placings[space.name])
        ]


@dataclass(frozen=True)
class _Placing:
    """How a space's work is laid out on the cluster: trials have one worker each, folds of a worker group may have
    several."""

    trial: Request
    trials_at_once: int
    fold: Request
    folds_at_once: int


@contextmanager
def _begun(folder: StudyFolder, spaces: Sequence[Space], root: Path) -> Iterator[tuple[Study, dict[str, _Placing]]]:
    """Yield the study and how each space is placed; what cannot work is refused before the study is written."""
    with one_driver(folder):
        study = open_study(folder, spaces, root)
        with session() as cluster:
            placings = {space.name: _place(space, cluster) for space in spaces}
            study.begin(spaces)
            yield study, placings


def _place(space: Space, cluster: Mapping[str, float]) -> _Placing:
    wanted = space.resources
    fold = fitted(wanted.cpus, wanted.gpus, wanted.workers_per_fold, cluster)
    trial = replace(fold, workers_per_fold=1)
    return _Placing(trial, folds_at_once(trial, cluster), fold, folds_at_once(fold, cluster))


def _search_space(study: Study, space: Space, placing: _Placing) -> list[str]:
    journal, budget = Journal(study.folder, space), space.budget
    folds = study.scored_folds()[: budget.trial_folds]
    at_once = placing.trials_at_once
    trials = _Trials(study, journal, folds, at_once)
    if not trials.exhausted():
        log.info("%s: %d trials on fold %s, %d at once", space.name, trials.left(), ", ".join(map(str, folds)), at_once)
        with Collector(trials.ledger.handle) as collector:
            run_trials(trials, study.labels, placing.trial, at_once, collector, _logs(study))
    best = journal.best(budget.finalists)
    if not best:
        raise SearchAborted(f"space {space.name}: none of its {budget.trials} trials could be trained; {trials.why()}")
    finalists = {journal.trial_id(t.number): parse_run(journal.run(t.number)) for t in best}
    return _train_all_folds(study, finalists, folds, placing)


def _train_all_folds(
    study: Study, runs: Mapping[str, RunConfig], selected_on: Sequence[int], placing: _Placing
) -> list[str]:
    """Train what is missing of those trials in one Ray Train worker group, write their out-of-fold tables, and return
    the trials that have one."""
    ledger = Ledger(study, selected_on, 0)
    every_fold = range(study.folds)
    jobs = [_job(study, trial, run, fold) for trial, run in runs.items() for fold in ledger.missing(trial, every_fold)]
    ledger.total = len(jobs)
    if jobs:
        log.info("%d folds of %s in a worker group", len(jobs), ", ".join(runs))
        with Collector(ledger.handle) as collector:
            run_group(jobs, study.labels, placing.fold, placing.folds_at_once, collector, _logs(study))
    whole = [trial for trial in runs if not ledger.missing(trial, every_fold)]
    for trial in whole:
        if not study.folder.oof(trial).is_file():
            ledger.write_oof(trial)
    failed = [f"{trial} has no out-of-fold table: {ledger.causes.get(trial)}" for trial in runs if trial not in whole]
    if not whole:
        raise SearchAborted("; ".join(failed))
    for sentence in failed:
        log.warning(sentence)
    return whole


def _job(study: Study, trial: str, run: RunConfig, fold: int) -> FoldJob:
    config = study.folder.trial(trial).config
    if not config.is_file():
        files.write_yaml(config, run.content)
    return study.job(trial, run, fold)


def _logs(study: Study) -> Path:
    """Where Ray writes its own logs and TensorBoard files; nothing is read back from there."""
    return (study.folder.root / "ray").absolute()


class _Trials:
    """The source of trials for Tune: first those that a stopped driver left, then new proposals within the budget."""

    def __init__(self, study: Study, journal: Journal, folds: Sequence[int], at_once: int) -> None:
        self.study, self.journal, self.folds = study, journal, folds
        self.behind = 2 * at_once  # few enough to learn from, enough that hardly ever a worker waits for another
        self.waiting = deque(journal.unfinished())
        self.numbers: dict[str, int] = {}
        self.ledger = Ledger(study, folds, self.left() * len(folds))

    def left(self) -> int:
        """How many trials have yet to end."""
        ended = len(self.journal.trials(TrialState.COMPLETE, TrialState.FAIL))
        return max(len(self.waiting), self.journal.space.budget.trials - ended)

    def exhausted(self) -> bool:
        """Whether nothing more will come."""
        return not self.waiting and len(self.journal.trials()) >= self.journal.space.budget.trials

    def next(self) -> tuple[str, Sequence[FoldJob]] | None:
        """Return the next trial, or None; proposals that cannot be a run are recorded as failed and passed over."""
        while not self.exhausted():
            proposal = self.waiting.popleft() if self.waiting else self.journal.propose(self.behind)
            if proposal is None:
                return None
            number, content = proposal
            trial = self.journal.trial_id(number)
            self.numbers[trial] = number
            run, faults = try_run(content)
            if run is None:
                self.journal.fail(number, "; ".join(faults))
                continue
            jobs = [_job(self.study, trial, run, fold) for fold in self.ledger.missing(trial, self.folds)]
            if jobs:
                return trial, jobs
            self.ended(trial)  # the driver was stopped between the last fold and this line
        return None

    def ended(self, trial: str) -> None:
        """Record how a trial ended."""
        number, missing = self.numbers[trial], self.ledger.missing(trial, self.folds)
        if missing:
            self.journal.fail(number, self.ledger.causes.get(trial, "its worker was lost"))
            return
        score = self.ledger.score(trial, self.folds)
        for step, value in self.ledger.reports(trial):
            self.journal.report(number, step, value)
        if math.isfinite(score):
            self.journal.complete(number, score, self.ledger.seconds(trial))
        else:
            self.journal.fail(number, f"its score is {score}")

    def why(self) -> str:
        """Return the last failure's cause."""
        failed = self.journal.trials(TrialState.FAIL)
        return f"the last one failed with: {failed[-1].user_attrs['cause']}" if failed else "none was proposed"
