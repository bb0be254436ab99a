"""A search from its first trial to the out-of-fold tables of its finalists.

Everything is read from and written to the study folder: rerun, it resumes with what is missing.
"""

import logging
import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import TrialState

from hms_ray.core.errors import SearchAborted
from hms_ray.execution.cluster import Cluster
from hms_ray.execution.events import Note
from hms_ray.execution.executor import Executor, LocalExecutor, RayExecutor
from hms_ray.execution.packing import GpuPacking
from hms_ray.execution.prepare_tasks import RayTasks
from hms_ray.execution.session import session
from hms_ray.search import disk_budget
from hms_ray.search.console import ConsoleView
from hms_ray.search.disk_limit import DiskLimit
from hms_ray.search.events import FoldsToCome, Publish
from hms_ray.search.finalists.remaining_folds import Finals, Folds
from hms_ray.search.finalists.rounds import Rounds
from hms_ray.search.finalists.shortlist import Shortlist, most_finalists
from hms_ray.search.open_study import OpenStudy, open_study
from hms_ray.search.optuna.journal import Journal, one_driver
from hms_ray.search.pruning.pruner import Pruner
from hms_ray.search.queue import TrialQueue
from hms_ray.search.recorder import Recorder
from hms_ray.search.space.space import Space
from hms_ray.study.folder import StudyFolder
from hms_ray.study.oof import optimism
from hms_ray.training.run_config import RunConfig, parse_run

log = logging.getLogger(__name__)

USUAL = 0.4  # share of trials that get all folds where nothing bounds them, as replays of real models show


def search(
    folder: StudyFolder, spaces: Sequence[Space], root: Path, in_process: bool = False, force: bool = False
) -> list[str]:
    """Search every space, train its finalists on all folds, and return the finalists' trial ids.

    in_process: without Ray, one fold at a time
    force: go on with a study that other code has made

    Raises:
        UserError: before anything starts.
        SearchAborted: no trial of a space could be trained, all fail alike, a worker group failed, or the disk is full.
        KeyboardInterrupt: the user interrupted it; everything finished is written.
    """
    with _opened(folder, spaces, root, in_process, force, _is_searched, searched=True) as (study, executors):
        return [trial for space in spaces for trial in _search_space(study, space, executors[space.name])]


def train(
    folder: StudyFolder, spaces: Sequence[Space], root: Path, in_process: bool = False, force: bool = False
) -> list[str]:
    """Train the base run of every space on all folds and return the trial ids; arguments and errors as in `search`."""
    spaces = [member for space in spaces for member in space.members]

    def is_trained(study: OpenStudy, space: Space) -> bool:
        return study.trial_store().is_whole(_base(space))

    with _opened(folder, spaces, root, in_process, force, is_trained, searched=False) as (study, executors):
        return [trial for space in spaces for trial in _train_base(study, space, executors[space.name])]


def _search_space(study: OpenStudy, space: Space, executor: Executor) -> list[str]:
    """Run the trials of a space, the rounds that follow them, and all folds of its finalists; return the finalists."""
    journal, folds = Journal(study.folder, space), _trial_folds(study, space)
    packing = GpuPacking(study.folder.gpu_memory)
    # Rounds choose on all folds but the last, after which nothing is chosen.
    rounds_on = study.trial_store().scored_folds()[:-1] if space.race.rule == "ensemble" else []
    store = study.trial_store(sorted({*folds, *study.chosen_on(space)}), rounds_on)
    pruner = Pruner(space.race, space.budget, store, folds)
    with _console_view(study, space, journal) as console_view:
        recorder = Recorder(store, console_view.handle)
        queue = TrialQueue(study, journal, recorder, pruner, executor.max_concurrent_trials, executor.gpus(packing))
        queue.show()  # what earlier runs of this command have found
        with _interruptible(queue, recorder.publish):
            while not queue.exhausted():  # a trial may come back that wants more memory when Tune has ended
                executor.run_trials(queue)
        shortlist = queue.shortlist
        store.release(shortlist.update())
        training = _Training(study, recorder, executor, packing, DiskLimit(study.folder.root, space.budget.disk_gb))
        if space.race.rule == "ensemble":
            training.run_rounds(Rounds(journal, store, shortlist))
        finalists = shortlist.finalists()
        if not finalists:
            raise SearchAborted(
                f"space {space.name}: none of its {space.budget.trials} trials could be trained; {queue.why()}"
            )
        ended = [journal.trial_id(t.number) for t in journal.trials() if t.state.is_finished()]
        store.release([trial for trial in ended if trial not in finalists])
        whole = training.run_all_folds({trial: parse_run(journal.run(n)) for trial, n in finalists.items()})
        store.release(list(finalists))
        return whole


def _train_base(study: OpenStudy, space: Space, executor: Executor) -> list[str]:
    title = f"{study.folder.name} · {space.name}"
    with ConsoleView(title, trials=0, trial_folds=0, optimism=optimism(study.epoch)) as console_view:
        recorder, packing = Recorder(study.trial_store(), console_view.handle), GpuPacking(study.folder.gpu_memory)
        training = _Training(study, recorder, executor, packing, DiskLimit(study.folder.root, space.budget.disk_gb))
        return training.run_all_folds({_base(space): space.run})


@dataclass(frozen=True)
class _Training:
    """Trains chosen folds of one space, whichever they are."""

    study: OpenStudy
    recorder: Recorder
    executor: Executor
    packing: GpuPacking
    disk: DiskLimit

    def run_rounds(self, rounds: Rounds) -> None:
        """Train round after round until no fold is expected to bring the ensemble what it costs."""
        while pairs := rounds.next():
            runs = rounds.runs()
            share = max(map(self.packing.share, runs.values()))
            source = Folds(runs, pairs.items(), self.study, self.recorder, self.disk, share, self.packing)
            self._run(source, rounds.folds())
            if not source.short:  # else what had too little memory is tried again with more
                rounds.close(self.recorder)

    def run_all_folds(self, runs: Mapping[str, RunConfig]) -> list[str]:
        """Train and predict what is missing of those trials, write their out-of-fold tables, and return the trials that
        have one.

        All take the share of a GPU that the largest of them needs.
        """
        while True:
            share = max(map(self.packing.share, runs.values()))
            source = Finals(runs, self.study, self.recorder, self.disk, share, self.packing)
            self._run(source, source.remaining())
            if not source.short:
                break
        store, failures = self.recorder.store, self.recorder.failures
        whole = [trial for trial in runs if store.is_whole(trial)]
        failed = [
            f"{trial} has no out-of-fold table: {failures[trial].cause if trial in failures else 'unknown'}"
            for trial in runs
            if trial not in whole
        ]
        if not whole:
            raise SearchAborted("; ".join(failed))
        for sentence in failed:
            log.warning(sentence)
        return whole

    def _run(self, source: Folds, folds_to_come: int) -> None:
        self.recorder.publish(FoldsToCome(folds_to_come))
        with _interruptible(source, self.recorder.publish):
            if source.remaining():
                self.executor.run_folds(source, source.share)


@contextmanager
def _opened(
    folder: StudyFolder,
    spaces: Sequence[Space],
    root: Path,
    in_process: bool,
    force: bool,
    is_done: Callable[[OpenStudy, Space], bool],
    searched: bool,
) -> Iterator[tuple[OpenStudy, dict[str, Executor]]]:
    """Yield the study and the executor of each space; what cannot work is refused before the study is written."""
    with one_driver(folder):
        study = open_study(folder, spaces, root, force)
        nothing_left = folder.study.is_file() and all(is_done(study, space) for space in spaces)
        if not nothing_left:
            study.fetch(spaces)
        with session() if not (in_process or nothing_left) else nullcontext() as cluster:
            executors = {space.name: _executor(study, space, cluster, in_process) for space in spaces}
            if not nothing_left:
                needs = []
                for space in spaces:
                    concurrent = max(1, executors[space.name].max_concurrent_trials(space.budget.trials))
                    need = disk_budget.need(space, study.rehearsals.weight_bytes, concurrent, searched)
                    needs.append((need, space.budget.disk_gb))
                disk_budget.check(folder, needs)
                study.prepare(spaces, None if in_process else RayTasks())
            study.begin(spaces)
            study.write_baseline()
            yield study, executors


def _executor(study: OpenStudy, space: Space, cluster: Cluster | None, in_process: bool) -> Executor:
    """Return where a space is trained; without a cluster that is this process, also where nothing is left to train."""
    minutes = space.budget.fold_minutes
    fold_s = None if minutes is None else 60 * minutes
    if cluster is not None:
        logs = (
            study.folder.root / "ray"
        ).absolute()  # Ray's own logs and TensorBoard files; nothing is read from there
        return RayExecutor.of(space.resources, cluster, study.labels, logs, fold_s, space.log.mlflow, space.log.wandb)
    if in_process:
        return LocalExecutor.of(space.resources, study.labels, fold_s)
    return LocalExecutor(study.labels, 1, fold_s)


@contextmanager
def _interruptible(source: TrialQueue | Folds, publish: Publish) -> Iterator[None]:
    """Make the first Ctrl-C let folds in flight end; the second stops at once, as does one elsewhere."""

    def first(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        source.interrupt()
        publish(Note("interrupted: the folds in flight are finished first; Ctrl-C again stops now"))

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if source.interrupted:
        raise KeyboardInterrupt


def _console_view(study: OpenStudy, space: Space, journal: Journal) -> ConsoleView:
    """Return the console view, with what earlier runs of this command have done."""
    trials, budget, folds = (
        [t for t in journal.trials() if t.state.is_finished()],
        space.budget,
        len(_trial_folds(study, space)),
    )
    states = [t.state.name for t in trials]
    saved = sum((1 - t.user_attrs["fidelity"]) * folds for t in trials if t.state == TrialState.PRUNED)
    finalists = most_finalists(budget, space.race)  # a guess of how many trials will get all folds
    if space.race.rule == "ensemble":
        finalists = min(finalists, math.ceil(USUAL * budget.trials))
    return ConsoleView(
        f"{study.folder.name} · {space.name}",
        trials=budget.trials,
        trial_folds=folds,
        finalist_folds=finalists * (study.labels.n_folds - folds),
        ended={state: states.count(state) for state in ("COMPLETE", "PRUNED", "FAIL")},
        trained=len(trials) * folds - saved,
        saved=saved,
        optimism=optimism(study.epoch),
    )


def _trial_folds(study: OpenStudy, space: Space) -> list[int]:
    """Return the folds that every trial trains unless it is stopped."""
    return study.trial_store().scored_folds()[: space.budget.trial_folds]


def _is_searched(study: OpenStudy, space: Space) -> bool:
    """Whether a search has nothing left to do."""
    if not study.folder.journal.is_file():
        return False
    journal = Journal(study.folder, space)
    if len(journal.trials()) < space.budget.trials or journal.unfinished():
        return False
    store = study.trial_store()
    shortlist = Shortlist(journal, Pruner(space.race, space.budget, store, _trial_folds(study, space)))
    shortlist.update()
    return not Rounds(journal, store, shortlist).pending() and all(map(store.is_whole, shortlist.finalists()))


def _base(space: Space) -> str:
    return f"{space.name}-base"
