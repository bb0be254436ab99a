"""What the person sees while a search runs: one live table in a terminal, plain log lines anywhere else."""

import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import TextIO

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hms_ray.core.sizes import in_words
from hms_ray.execution.events import EpochDone, FoldBegun, FoldFailed, Message, Note, TeacherEpochDone
from hms_ray.search.events import (
    BestTrial,
    EnsembleSoFar,
    FoldScored,
    FoldsToCome,
    SearchEvent,
    TrialEnded,
    TrialRejected,
    TrialScored,
    TrialStopped,
)
from hms_ray.search.search_progress import Running, SearchProgress, duration

log = logging.getLogger(__name__)

REFRESH_HZ = 4
FIXED_LINES = 16  # of the table, when it shows no running trial
STATES = {"COMPLETE": "complete", "PRUNED": "stopped", "FAIL": "failed"}


class ConsoleView:
    """Shows the events of a search; a context in which the table is live, and after which its last state stands.

    `handle` may be called from any thread. Outside the context they log. Arguments as in `SearchProgress`.
    """

    def __init__(
        self,
        title: str,
        trials: int,
        trial_folds: int,
        finalist_folds: int = 0,
        ended: Mapping[str, int] | None = None,
        trained: float = 0.0,
        saved: float = 0.0,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
        optimism: str = "",
    ) -> None:
        self.title = title
        self.progress = SearchProgress(
            trials, trial_folds, finalist_folds, ended or {}, trained, saved, clock, optimism
        )
        self.console = console or Console(stderr=True)
        self.live = False
        self.open = ExitStack()
        self.lock = threading.RLock()  # a signal's handler may interrupt its own thread inside it

    def __enter__(self) -> "ConsoleView":
        if _is_terminal(self.console):
            self.open.enter_context(_live(self.console, self._table))
            self.live = True
        return self

    def __exit__(self, *_: object) -> None:
        self.live = False
        self.open.close()

    def handle(self, event: Message | SearchEvent) -> None:
        """Show an event: in the table, or where there is none in the log.

        Never logged with the lock held, for which a redraw may wait. A handler of a signal may call this.
        """
        with self.lock:
            log_line = self._count(event)
        if log_line and not self.live:
            log.log(log_line.level, "%s", log_line.sentence)

    def _count(self, event: Message | SearchEvent) -> Note | None:
        """Bring the table up to date, and return the log line that stands for it where there is none."""
        progress = self.progress
        match event:
            case FoldBegun(trial, fold, epochs) if epochs:
                is_first = progress.since is None
                progress.started(trial, fold, epochs)
                if is_first:
                    return Note(f"the first fold begins: {_named(trial, fold)}, {epochs} epochs")
            case EpochDone(trial, row):
                progress.epoch(trial, row["fold"], row["epoch"], row["score"], row["memory_gb"] or None)
            case TeacherEpochDone(trial, fold):
                progress.taught(trial, fold)
            case FoldScored(trial, fold):
                progress.fold_done(trial, fold)
                total, left = round(progress.work() + progress.to_come()), duration(progress.left_s())
                return Note(f"{self._fold_words(event)}; {progress.finished} of about {total} folds, {left} left")
            case TrialScored(trial, score, units, min_votes):
                return self._note(Note(f"{trial} all folds: {self._score_words(score, units, min_votes)}"))
            case TrialStopped(trial, fold, cause, folds_saved):
                progress.fold_broken(trial, fold)
                progress.saved += folds_saved
                return self._note(Note(f"{_named(trial, fold)} stopped: {cause}"))
            case FoldFailed(trial, fold, cause):
                progress.fold_broken(trial, fold)
                return self._note(Note(f"{_named(trial, fold)} failed: {cause}", logging.WARNING))
            case TrialRejected(trial, cause):
                progress.fold_broken(trial, None)
                return self._note(Note(f"{trial} failed: {cause}", logging.WARNING))
            case TrialEnded(trial, state):
                progress.ended(trial, state)
            case BestTrial(trial, score) if progress.best != (trial, score):
                progress.best = trial, score
                return Note(f"best single so far: {_best(progress)}")
            case EnsembleSoFar():
                progress.ensemble = event
                return Note(f"ensemble so far: {_ensemble(progress)}")
            case FoldsToCome(folds):
                progress.finalists(folds)
            case Note():
                return self._note(event)
        return None

    def _note(self, note: Note) -> Note:
        """Show a sentence in the table until newer ones push it out."""
        self.progress.notes.append(note.sentence)
        return note

    def _fold_words(self, fold: FoldScored) -> str:
        if not fold.units:
            return (
                f"{fold.trial} fold {fold.fold}: trained; none of its units has {fold.min_votes} votes, so it has no "
                "score"
            )
        skipped = ""
        if fold.skipped_steps:
            skipped = f"; {fold.skipped_steps} steps skipped: their gradients were infinite in float16"
        return f"{fold.trial} fold {fold.fold}: {self._score_words(fold.score, fold.units, fold.min_votes)}{skipped}"

    def _score_words(self, score: float, units: int, min_votes: int) -> str:
        """Word a score with its population."""
        votes = f" with >= {min_votes} votes" if min_votes > 1 else ""
        optimism = f", {self.progress.optimism}" if self.progress.optimism else ""
        return f"score {score:.4f} on {units} units{votes}{optimism}"

    def _table(self) -> Table:
        with self.lock:
            return render(self.title, self.progress, max(3, self.console.height - FIXED_LINES))


def render(title: str, progress: SearchProgress, rows: int = 12) -> Table:
    """Lay out the progress of a search, with at most so many of the folds in flight."""
    table = Table(title=Text(title, "bold"), box=box.ROUNDED, show_header=False, min_width=60)
    table.add_row(_summary(progress))
    if progress.running:
        table.add_section()
        table.add_row(_running(progress.running, rows))
    if progress.notes:
        table.add_section()
        for sentence in progress.notes:
            table.add_row(Text(sentence, "dim"))
    return table


def _summary(progress: SearchProgress) -> Table:
    grid = Table.grid(padding=(0, 2))
    for name, words in _facts(progress):
        grid.add_row(Text(name, "cyan"), Text(words))
    return grid


def _facts(progress: SearchProgress) -> Iterator[tuple[str, str]]:
    """Yield what is known, with its name."""
    if progress.trials:
        states = ", ".join(f"{progress.states[state]} {name}" for state, name in STATES.items())
        yield "trials", f"{progress.states.total()} of {progress.trials} ended: {states}"
    saved = f", {_count(progress.saved)} saved by racing" if progress.trials else ""
    yield "folds", f"{_count(progress.trained())} trained{saved}, about {math.ceil(progress.to_come())} to come"
    yield "time left", duration(progress.left_s())
    if progress.best:
        yield "best single", _best(progress)
    if progress.ensemble:
        yield "ensemble", _ensemble(progress)
    if progress.memory_gb:
        yield "GPU memory", f"{in_words(1e9 * progress.memory_gb)} a worker at its peak"


def _running(running: Mapping[tuple[str, int], Running], rows: int) -> Table:
    """List the folds in flight, the oldest first."""
    grid = Table("trial", "fold", "epoch", "score", box=None, header_style="cyan", pad_edge=False)
    for (trial, fold), state in list(running.items())[:rows]:
        epoch = f"{state.done}/{state.epochs}" if state.epochs else str(state.done)
        grid.add_row(Text(trial), str(fold), epoch, f"{state.score:.4f}" if math.isfinite(state.score) else "-")
    if len(running) > rows:
        grid.add_row(Text(f"and {len(running) - rows} more", "dim"))
    return grid


def _best(progress: SearchProgress) -> str:
    assert progress.best, "a best trial was told"
    trial, score = progress.best
    return f"{score:.4f} {trial}{_mark(progress)}"


def _ensemble(progress: SearchProgress) -> str:
    assert progress.ensemble, "an ensemble was told"
    ensemble = progress.ensemble
    population = f"{ensemble.units} units of {ensemble.patients} patients"
    return f"{ensemble.score:.4f} of {ensemble.members} trials on {population} (in search, optimistic){_mark(progress)}"


def _mark(progress: SearchProgress) -> str:
    return f"; {progress.optimism}" if progress.optimism else ""


def _named(trial: str, fold: int | None) -> str:
    return trial if fold is None else f"{trial} fold {fold}"


def _count(folds: float) -> str:
    return f"{round(folds, 1):g}"


def _is_terminal(console: Console) -> bool:
    """Whether someone looks: colours that are forced into a pipe make no terminal of it, and a dumb one cannot redraw.

    NO_COLOR keeps the table, without colours.
    """
    return console.file.isatty() and console.is_interactive


@contextmanager
def _live(console: Console, table: Callable[[], Table]) -> Iterator[None]:
    """Keep the table at the bottom of the terminal, and what others print or log above it."""
    terminal = sys.stderr
    live = Live(
        get_renderable=table,
        console=console,
        refresh_per_second=REFRESH_HZ,
        redirect_stdout=sys.stdout.isatty(),  # what goes to a file stays out of the terminal
    )
    live.start(refresh=True)
    console.show_cursor(True)  # a process that is killed could not bring it back
    try:
        with _routed(terminal, sys.stderr):
            yield
    finally:
        with suppress(OSError):  # the terminal may be gone: no reason to lose a search
            live.stop()


@contextmanager
def _routed(terminal: TextIO, live: TextIO) -> Iterator[None]:
    """Let the log handlers that write to the terminal write above the table meanwhile."""
    known = [logging.getLogger(), *logging.getLogger().manager.loggerDict.values()]
    handlers = [handler for logger in known for handler in getattr(logger, "handlers", ())]
    routed = [h for h in handlers if isinstance(h, logging.StreamHandler) and h.stream is terminal]
    for handler in routed:
        handler.setStream(live)
    try:
        yield
    finally:
        for handler in routed:
            handler.setStream(terminal)
