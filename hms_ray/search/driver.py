"""A search from its first trial to the out-of-fold tables of its finalists.

Everything is read from and written to the study folder: run again, it goes on with what is missing.
"""

import logging
import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from optuna.trial import TrialState

from hms_ray.core.errors import SearchAborted
from hms_ray.execution.cluster import Cluster
from hms_ray.execution.executor import Executor, LocalExecutor, RayExecutor
from hms_ray.execution.packing import GpuPacking
from hms_ray.execution.prepare_tasks import RayTasks
from hms_ray.execution.session import session
from hms_ray.search import disk_budget
from hms_ray.search.console import ConsoleView
from hms_ray.search.finalists.remaining_folds import Finals, Folds
from hms_ray.search.finalists.rounds import Rounds
from hms_ray.search.finalists.shortlist import Shortlist, most_finalists
from hms_ray.search.open_study import Study, open_study
from hms_ray.search.optuna.journal import Journal, one_driver
from hms_ray.search.pruning.pruner import Pruner
from hms_ray.search.queue import Trials
from hms_ray.search.space.space import Space
from hms_ray.search.trial_store import TrialStore
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
    with _opened(folder, spaces, root, in_process, force, _found, searched=True) as (study, executors):
        return [trial for space in spaces for trial in _search_space(study, space, executors[space.name])]


def train(
    folder: StudyFolder, spaces: Sequence[Space], root: Path, in_process: bool = False, force: bool = False
) -> list[str]:
    """Train the base run of every space on all folds and return the trial ids; arguments and errors as in `search`."""
    spaces = [member for space in spaces for member in space.members]

    def done(study: Study, space: Space) -> bool:
        return _whole(study, [_base(space)])

    with _opened(folder, spaces, root, in_process, force, done, searched=False) as (study, executors):
        return [trial for space in spaces for trial in _train_base(study, space, executors[space.name])]


@contextmanager
def _opened(
    folder: StudyFolder,
    spaces: Sequence[Space],
    root: Path,
    in_process: bool,
    force: bool,
    done: Callable[[Study, Space], bool],
    searched: bool,
) -> Iterator[tuple[Study, dict[str, Executor]]]:
    """Yield the study and the place of each space; what cannot work is refused before the study is written."""
    with one_driver(folder):
        study = open_study(folder, spaces, root, force)
        nothing_left = folder.study.is_file() and all(done(study, space) for space in spaces)
        if not nothing_left:
            study.fetch(spaces)
        with session() if not (in_process or nothing_left) else nullcontext() as cluster:
            executors = {space.name: _executor(study, space, cluster, in_process) for space in spaces}
            if not nothing_left:
                max_concurrent = {
                    s.name: max(1, executors[s.name].max_concurrent_trials(s.budget.trials)) for s in spaces
                }
                needs = [
                    disk_budget.need(s, study.rehearsals.weight_bytes, max_concurrent[s.name], searched) for s in spaces
                ]
                disk_budget.check(folder, list(zip(needs, [space.budget.disk_gb for space in spaces], strict=True)))
                study.prepare(spaces, None if in_process else RayTasks())
            study.begin(spaces)
            study.write_baseline()
            yield study, executors


def _executor(study: Study, space: Space, cluster: Cluster | None, in_process: bool) -> Executor:
    """Return where a space is trained; without a cluster that is this process, also where nothing is left to train."""
    minutes = space.budget.fold_minutes
    fold_s = None if minutes is None else 60 * minutes
    if cluster is None:
        return (
            LocalExecutor.of(space.resources, study.labels, fold_s)
            if in_process
            else LocalExecutor(study.labels, 1, fold_s)
        )
    logs = (study.folder.root / "ray").absolute()  # Ray's own logs and TensorBoard files; nothing is read from there
    return RayExecutor.of(space.resources, cluster, study.labels, logs, fold_s, space.log.mlflow, space.log.wandb)


def _search_space(study: Study, space: Space, executor: Executor) -> list[str]:
    journal, folds = Journal(study.folder, space), _trial_folds(study, space)
    packing = GpuPacking(study.folder.gpu_memory)
    with _console_view(study, space, journal) as console_view:
        chosen_on = sorted({*folds, *study.chosen_on(space)})
        trial_store = TrialStore(study, chosen_on, console_view, space.budget.disk_gb, _rounds_on(study, space))
        pruner = Pruner(space.race, space.budget, trial_store, folds)
        trials = Trials(study, journal, trial_store, pruner, executor.max_concurrent_trials, executor.gpus(packing))
        trials.show()  # what earlier runs of this command have found
        with _interruptible(trials, console_view):
            while not trials.exhausted():  # a trial may come back that wants more memory when Tune has ended
                executor.run_trials(trials)
        shortlist = trials.shortlist
        trial_store.release(shortlist.update())
        if space.race.rule == "ensemble":
            _run_rounds(Rounds(journal, trial_store, shortlist), executor, packing)
        finalists = shortlist.finalists()
        if not finalists:
            raise SearchAborted(
                f"space {space.name}: none of its {space.budget.trials} trials could be trained; {trials.why()}"
            )
        ended = [journal.trial_id(t.number) for t in journal.trials() if t.state.is_finished()]
        trial_store.release([trial for trial in ended if trial not in finalists])
        runs = {trial: parse_run(journal.run(number)) for trial, number in finalists.items()}
        whole = _train_all_folds(trial_store, runs, executor, packing)
        trial_store.release(list(finalists))
        return whole


def _run_rounds(rounds: Rounds, executor: Executor, packing: GpuPacking) -> None:
    """Train round after round until no fold is expected to bring the ensemble what it costs."""
    trial_store = rounds.trial_store
    while pairs := rounds.next():
        runs = rounds.runs()
        trial_store.console_view.finalists(rounds.folds())
        source = Folds(runs, pairs.items(), trial_store, max(map(packing.share, runs.values())), packing)
        _run_folds(source, executor)
        if not source.short:  # else what had too little memory is tried again with more
            rounds.close()


def _train_base(study: Study, space: Space, executor: Executor) -> list[str]:
    title = f"{study.folder.name} · {space.name}"
    with ConsoleView(title, trials=0, trial_folds=0, optimism=optimism(study.epoch)) as console_view:
        trial_store = TrialStore(study, (), console_view, space.budget.disk_gb)
        return _train_all_folds(trial_store, {_base(space): space.run}, executor, GpuPacking(study.folder.gpu_memory))


def _train_all_folds(
    trial_store: TrialStore, runs: Mapping[str, RunConfig], executor: Executor, packing: GpuPacking
) -> list[str]:
    """Train and predict what is missing of those trials, write their out-of-fold tables, and return the trials that
    have one."""
    finals = _run_finals(trial_store, runs, executor, packing)
    while finals.short:
        finals = _run_finals(trial_store, runs, executor, packing)
    whole = [trial for trial in runs if trial_store.is_whole(trial)]
    failed = [
        f"{trial} has no out-of-fold table: "
        f"{trial_store.failures[trial].cause if trial in trial_store.failures else 'unknown'}"
        for trial in runs
        if trial not in whole
    ]
    if not whole:
        raise SearchAborted("; ".join(failed))
    for sentence in failed:
        log.warning(sentence)
    return whole


def _run_finals(
    trial_store: TrialStore, runs: Mapping[str, RunConfig], executor: Executor, packing: GpuPacking
) -> Finals:
    """Run the folds that are missing, all with the share of a GPU that the largest of them needs."""
    finals = Finals(runs, trial_store, max(map(packing.share, runs.values())), packing)
    trial_store.console_view.finalists(finals.remaining())
    _run_folds(finals, executor)
    return finals


def _run_folds(source: Folds, executor: Executor) -> None:
    with _interruptible(source, source.trial_store.console_view):
        if source.remaining():
            executor.run_folds(source, source.share)


@contextmanager
def _interruptible(source: Trials | Folds, console_view: ConsoleView) -> Iterator[None]:
    """Make the first Ctrl-C let folds in flight end; the second stops at once, as does one elsewhere."""

    def first(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        source.interrupt()
        console_view.note("interrupted: the folds in flight are finished first; Ctrl-C again stops now")

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


def _console_view(study: Study, space: Space, journal: Journal) -> ConsoleView:
    """Return the console view, with what earlier runs of this command have done."""
    trials, budget = [t for t in journal.trials() if t.state.is_finished()], space.budget
    states = [t.state.name for t in trials]
    stopped = [t.user_attrs["fidelity"] for t in trials if t.state == TrialState.PRUNED]
    folds = len(_trial_folds(study, space))
    saved = sum((1 - fidelity) * folds for fidelity in stopped)
    return ConsoleView(
        f"{study.folder.name} · {space.name}",
        trials=budget.trials,
        trial_folds=folds,
        finalist_folds=_expected_finalists(space) * (study.folds - folds),
        ended={state: states.count(state) for state in ("COMPLETE", "PRUNED", "FAIL")},
        trained=len(trials) * folds - saved,
        saved=saved,
        optimism=optimism(study.epoch),
    )


def _trial_folds(study: Study, space: Space) -> list[int]:
    return study.scored_folds()[: space.budget.trial_folds]


def _rounds_on(study: Study, space: Space) -> list[int]:
    """Return the folds on whose scores rounds choose: all but the last, after which nothing is chosen."""
    return study.scored_folds()[:-1] if space.race.rule == "ensemble" else []


def _expected_finalists(space: Space) -> int:
    """Guess how many trials will get all folds, before there are any."""
    most = most_finalists(space.budget, space.race)
    return min(most, math.ceil(USUAL * space.budget.trials)) if space.race.rule == "ensemble" else most


def _found(study: Study, space: Space) -> bool:
    """Whether a search has nothing left to do."""
    if not study.folder.journal.is_file():
        return False
    journal = Journal(study.folder, space)
    if len(journal.trials()) < space.budget.trials or journal.unfinished():
        return False
    trial_store = TrialStore(study, (), _silent())
    shortlist = Shortlist(journal, Pruner(space.race, space.budget, trial_store, _trial_folds(study, space)))
    shortlist.update()
    return not Rounds(journal, trial_store, shortlist).pending() and _whole(study, list(shortlist.finalists()))


def _whole(study: Study, trials: Sequence[str]) -> bool:
    """Whether those trials have all that they are to have."""
    trial_store = TrialStore(study, (), _silent())
    return all(map(trial_store.is_whole, trials))


def _silent() -> ConsoleView:
    """A console view for questions that train nothing."""
    return ConsoleView("", trials=0, trial_folds=0)


def _base(space: Space) -> str:
    return f"{space.name}-base"
