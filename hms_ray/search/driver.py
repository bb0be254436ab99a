"""A search from its first trial to the out-of-fold tables of its finalists.

Everything is read from and written to the study folder: run again, it goes on with what is missing.
"""

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from optuna.trial import TrialState

from hms_ray.config import RunConfig, parse_run
from hms_ray.errors import SearchAborted
from hms_ray.execution.cluster import Cluster
from hms_ray.execution.packing import Shares
from hms_ray.execution.place import Here, OnCluster, Place
from hms_ray.execution.prepare_tasks import RayTasks
from hms_ray.execution.session import session
from hms_ray.oof import optimism
from hms_ray.search import disk
from hms_ray.search.board import Board
from hms_ray.search.finals import Finals
from hms_ray.search.journal import Journal, one_driver
from hms_ray.search.ledger import Ledger
from hms_ray.search.referee import Referee
from hms_ray.search.shortlist import Shortlist
from hms_ray.search.space import Space
from hms_ray.search.study import Study, open_study
from hms_ray.search.trials import Trials
from hms_ray.study_folder import StudyFolder

log = logging.getLogger(__name__)


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
    with _opened(folder, spaces, root, in_process, force, _found, searched=True) as (study, places):
        return [trial for space in spaces for trial in _search_space(study, space, places[space.name])]


def train(
    folder: StudyFolder, spaces: Sequence[Space], root: Path, in_process: bool = False, force: bool = False
) -> list[str]:
    """Train the base run of every space on all folds and return the trial ids; arguments and errors as in `search`."""
    spaces = [member for space in spaces for member in space.members]

    def done(study: Study, space: Space) -> bool:
        return _whole(study, [_base(space)])

    with _opened(folder, spaces, root, in_process, force, done, searched=False) as (study, places):
        return [trial for space in spaces for trial in _train_base(study, space, places[space.name])]


@contextmanager
def _opened(
    folder: StudyFolder,
    spaces: Sequence[Space],
    root: Path,
    in_process: bool,
    force: bool,
    done: Callable[[Study, Space], bool],
    searched: bool,
) -> Iterator[tuple[Study, dict[str, Place]]]:
    """Yield the study and the place of each space; what cannot work is refused before the study is written."""
    with one_driver(folder):
        study = open_study(folder, spaces, root, force)
        nothing_left = folder.study.is_file() and all(done(study, space) for space in spaces)
        if not nothing_left:
            study.fetch(spaces)
        with session() if not (in_process or nothing_left) else nullcontext() as cluster:
            places = {space.name: _place(study, space, cluster, in_process) for space in spaces}
            if not nothing_left:
                at_once = {s.name: max(1, places[s.name].trials_at_once(s.budget.trials)) for s in spaces}
                needs = [disk.need(s, study.rehearsals.weight_bytes, at_once[s.name], searched) for s in spaces]
                disk.check(folder, list(zip(needs, [space.budget.disk_gb for space in spaces], strict=True)))
                study.prepare(spaces, None if in_process else RayTasks())
            study.begin(spaces)
            study.write_baseline()
            yield study, places


def _place(study: Study, space: Space, cluster: Cluster | None, in_process: bool) -> Place:
    """Return where a space is trained; without a cluster that is this process, also where nothing is left to train."""
    minutes = space.budget.fold_minutes
    fold_s = None if minutes is None else 60 * minutes
    if cluster is None:
        return Here.of(space.resources, study.labels, fold_s) if in_process else Here(study.labels, 1, fold_s)
    logs = (study.folder.root / "ray").absolute()  # Ray's own logs and TensorBoard files; nothing is read from there
    return OnCluster.of(space.resources, cluster, study.labels, logs, fold_s, space.log.mlflow, space.log.wandb)


def _search_space(study: Study, space: Space, place: Place) -> list[str]:
    journal, folds = Journal(study.folder, space), _trial_folds(study, space)
    shares = Shares(study.folder.gpu_memory)
    with _board(study, space, journal) as board:
        ledger = Ledger(study, sorted({*folds, *study.chosen_on(space)}), board, space.budget.disk_gb)
        referee = Referee(space.race, ledger, folds)
        trials = Trials(study, journal, ledger, referee, place.trials_at_once, place.gpus(shares))
        trials.show()  # what earlier runs of this command have found
        with _interruptible(trials, board):
            while not trials.exhausted():  # a trial may come back that wants more memory when Tune has ended
                place.run_trials(trials)
        finalists = _finalists(journal, referee)
        if not finalists:
            raise SearchAborted(
                f"space {space.name}: none of its {space.budget.trials} trials could be trained; {trials.why()}"
            )
        ended = [journal.trial_id(t.number) for t in journal.trials() if t.state.is_finished()]
        _drop_weights(ledger, [trial for trial in ended if trial not in finalists])
        runs = {trial: parse_run(journal.run(number)) for trial, number in finalists.items()}
        whole = _train_all_folds(ledger, runs, place, shares)
        _drop_weights(ledger, list(finalists))
        return whole


def _drop_weights(ledger: Ledger, trials: Sequence[str]) -> None:
    """Delete the weights of all trials but candidates of the ensemble: those with a table of all folds."""
    for trial in trials:
        if not ledger.study.folder.oof(trial).is_file():
            ledger.drop_weights(trial)


def _train_base(study: Study, space: Space, place: Place) -> list[str]:
    title = f"{study.folder.name} · {space.name}"
    with Board(title, trials=0, trial_folds=0, optimism=optimism(study.epoch)) as board:
        ledger = Ledger(study, (), board, space.budget.disk_gb)
        return _train_all_folds(ledger, {_base(space): space.run}, place, Shares(study.folder.gpu_memory))


def _train_all_folds(ledger: Ledger, runs: Mapping[str, RunConfig], place: Place, shares: Shares) -> list[str]:
    """Train and predict what is missing of those trials, write their out-of-fold tables, and return the trials that
    have one."""
    finals = _run_finals(ledger, runs, place, shares)
    while finals.short:
        finals = _run_finals(ledger, runs, place, shares)
    whole = [trial for trial in runs if ledger.is_whole(trial)]
    failed = [
        f"{trial} has no out-of-fold table: {ledger.failures[trial].cause if trial in ledger.failures else 'unknown'}"
        for trial in runs
        if trial not in whole
    ]
    if not whole:
        raise SearchAborted("; ".join(failed))
    for sentence in failed:
        log.warning(sentence)
    return whole


def _run_finals(ledger: Ledger, runs: Mapping[str, RunConfig], place: Place, shares: Shares) -> Finals:
    """Run the folds that are missing, all with the share of a GPU that the largest of them needs."""
    finals = Finals(runs, ledger, max(map(shares.share, runs.values())), shares)
    ledger.board.finalists(finals.remaining())
    with _interruptible(finals, ledger.board):
        if finals.remaining():
            place.run_folds(finals, finals.share)
    return finals


@contextmanager
def _interruptible(source: Trials | Finals, board: Board) -> Iterator[None]:
    """Make the first Ctrl-C let folds in flight end; the second stops at once, as does one elsewhere."""

    def first(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        source.interrupt()
        board.note("interrupted: the folds in flight are finished first; Ctrl-C again stops now")

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


def _board(study: Study, space: Space, journal: Journal) -> Board:
    """Return the board, with what earlier runs of this command have done."""
    trials, budget = [t for t in journal.trials() if t.state.is_finished()], space.budget
    states = [t.state.name for t in trials]
    stopped = [t.user_attrs["fidelity"] for t in trials if t.state == TrialState.PRUNED]
    folds = len(_trial_folds(study, space))
    saved = sum((1 - fidelity) * folds for fidelity in stopped)
    return Board(
        f"{study.folder.name} · {space.name}",
        trials=budget.trials,
        trial_folds=folds,
        finalist_folds=budget.finalists * (study.folds - folds),
        ended={state: states.count(state) for state in ("COMPLETE", "PRUNED", "FAIL")},
        trained=len(trials) * folds - saved,
        saved=saved,
        optimism=optimism(study.epoch),
    )


def _trial_folds(study: Study, space: Space) -> list[int]:
    return study.scored_folds()[: space.budget.trial_folds]


def _finalists(journal: Journal, referee: Referee) -> dict[str, int]:
    """Return the trials to train on all folds and their numbers."""
    shortlist = Shortlist(journal, referee)
    shortlist.update()
    return shortlist.finalists()


def _found(study: Study, space: Space) -> bool:
    """Whether a search has nothing left to do."""
    if not study.folder.journal.is_file():
        return False
    journal = Journal(study.folder, space)
    if len(journal.trials()) < space.budget.trials or journal.unfinished():
        return False
    referee = Referee(space.race, Ledger(study, (), _silent()), _trial_folds(study, space))
    return _whole(study, list(_finalists(journal, referee)))


def _whole(study: Study, trials: Sequence[str]) -> bool:
    """Whether those trials have all that they are to have."""
    ledger = Ledger(study, (), _silent())
    return all(map(ledger.is_whole, trials))


def _silent() -> Board:
    """A board for questions that train nothing."""
    return Board("", trials=0, trial_folds=0)


def _base(space: Space) -> str:
    return f"{space.name}-base"
