"""The console view: a live table in a terminal, plain lines elsewhere, and nothing that tears either."""

import io
import itertools
import logging
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from contextlib import redirect_stderr
from typing import Literal

import pytest
from rich.console import Console

from hms_ray.execution.events import EpochDone, FoldBegun, FoldFailed, Note
from hms_ray.search.console import ConsoleView, render
from hms_ray.search.events import (
    BestTrial,
    EnsembleSoFar,
    FoldScored,
    FoldsToCome,
    TrialEnded,
    TrialRejected,
    TrialStopped,
)
from hms_ray.search.search_progress import SearchProgress

SEARCH = """
import logging, sys, time
from hms_ray.execution.events import EpochDone, FoldBegun, FoldFailed
from hms_ray.search.console import ConsoleView
from hms_ray.search.events import FoldScored
logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr, force=True)
with ConsoleView("study", trials=2, trial_folds=1) as console_view:
    console_view.handle(FoldBegun("demo-0000", 0, 3, None))
    row = dict(fold=0, epoch=2, score=0.9876, memory_gb=0.0)
    console_view.handle(EpochDone("demo-0000", row))
    logging.getLogger("elsewhere").warning("somebody logs [b]this[/b]")
    time.sleep(0.4)
    console_view.handle(FoldScored("demo-0000", 0, 0.5432, 44, 10, 0))
    console_view.handle(FoldFailed("demo-0001", 0, "KeyError: 'x' [/]"))
    {last}
logging.getLogger("elsewhere").warning("afterwards")
"""


def program(last: str = "pass") -> list[str]:
    return [sys.executable, "-c", SEARCH.format(last=last)]


def environment(**changes: str) -> dict[str, str]:
    decided_by = ("NO_COLOR", "FORCE_COLOR", "TTY_INTERACTIVE", "TTY_COMPATIBLE", "COLUMNS", "LINES")
    clean = {name: value for name, value in os.environ.items() if name not in decided_by}
    return clean | {"TERM": "xterm", "COLUMNS": "100", "LINES": "40"} | changes


def in_terminal(command: list[str], **changes: str) -> str:
    """Run a program on a terminal of its own and return all that it wrote there."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment(**changes))
    os.close(theirs)
    chunks: list[bytes] = []
    reader = threading.Thread(target=_read_all, args=(ours, chunks))
    reader.start()
    process.wait(60)
    reader.join(60)
    os.close(ours)
    return b"".join(chunks).decode()


def _read_all(terminal: int, chunks: list[bytes]) -> None:
    while True:
        try:
            chunk = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            return
        if not chunk:
            return
        chunks.append(chunk)


class Told(ConsoleView):
    """A console view with the events of a search as methods."""

    def started(self, trial: str, fold: int, epochs: int) -> None:
        self.handle(FoldBegun(trial, fold, epochs, None))

    def epoch(self, trial: str, fold: int, epoch: int, score: float, memory_gb: float = 0.0) -> None:
        self.handle(EpochDone(trial, {"fold": fold, "epoch": epoch, "score": score, "memory_gb": memory_gb}))

    def fold_done(self, trial: str, fold: int, score: float = 0.5432) -> None:
        self.handle(FoldScored(trial, fold, score, 44, 10, 0))

    def stopped(self, trial: str, fold: int | None, cause: str, folds_saved: float) -> None:
        self.handle(TrialStopped(trial, fold, cause, folds_saved))

    def failed(self, trial: str, fold: int | None, cause: str) -> None:
        self.handle(TrialRejected(trial, cause) if fold is None else FoldFailed(trial, fold, cause))

    def ended(self, trial: str, state: Literal["COMPLETE", "PRUNED", "FAIL"]) -> None:
        self.handle(TrialEnded(trial, state))

    def best(self, trial: str, score: float) -> None:
        self.handle(BestTrial(trial, score))

    def ensemble(self, score: float, members: int, units: int, patients: int) -> None:
        self.handle(EnsembleSoFar(score, members, units, patients))

    def note(self, sentence: str) -> None:
        self.handle(Note(sentence))


def shown(title: str, progress: SearchProgress, **arguments: int) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(render(title, progress, **arguments))
    return console.file.getvalue()


@pytest.fixture
def console_view(caplog: pytest.LogCaptureFixture) -> Told:
    caplog.set_level(logging.INFO)
    return Told("study", trials=12, trial_folds=2, finalist_folds=4, clock=itertools.count(0, 10).__next__)


def test_an_empty_board_says_what_is_to_come(console_view):
    text = shown("runs/demo", console_view.progress)
    assert "runs/demo" in text
    assert "0 of 12 ended: 0 complete, 0 stopped, 0 failed" in text
    assert "0 trained, 0 saved by racing, about 28 to come" in text
    assert "time left  ?" in text
    for absent in ("best single", "ensemble", "GPU memory", "epoch"):
        assert absent not in text


def test_what_flatters_every_score_stands_beside_it(caplog):
    caplog.set_level(logging.INFO)
    console_view = Told("study", trials=2, trial_folds=1, optimism="optimistic: best epochs")
    console_view.best("demo-0002", 0.54321)
    console_view.ensemble(0.50004, 3, 44, 12)
    best, ensemble = caplog.messages
    assert best == "best single so far: 0.5432 demo-0002; optimistic: best epochs"
    assert ensemble.endswith(" of 12 patients (in search, optimistic); optimistic: best epochs")
    lines = [" ".join(line.strip("│ ").split()) for line in shown("t", console_view.progress).splitlines()]
    assert "best single 0.5432 demo-0002; optimistic: best epochs" in lines


def test_without_a_terminal_the_first_fold_is_told_and_no_other(console_view, caplog):
    console_view.started("demo-0000", 1, 12)
    console_view.started("demo-0001", 0, 8)
    assert caplog.messages == ["the first fold begins: demo-0000 fold 1, 12 epochs"]


def test_the_table_shows_everything_that_was_told(console_view):
    console_view.started("demo-0000", 0, 12)
    console_view.epoch("demo-0000", 0, 3, 0.61234, 3.24)
    console_view.started("demo-0001", 1, 8)
    console_view.epoch("demo-0001", 1, 8, float("nan"))
    console_view.fold_done("demo-0002", 0)
    console_view.ended("demo-0002", "COMPLETE")
    console_view.stopped("demo-0003", 0, "it brings nothing", 1.25)
    console_view.ended("demo-0003", "PRUNED")
    console_view.best("demo-0002", 0.54321)
    console_view.ensemble(0.50004, 3, 44, 12)
    lines = [line.strip("│ ").split() for line in shown("t", console_view.progress).splitlines()]
    text = "\n".join(map(" ".join, lines))
    assert "trials 2 of 12 ended: 1 complete, 1 stopped, 0 failed" in text
    assert "folds 1 trained, 1.2 saved by racing" in text
    assert "best single 0.5432 demo-0002" in text
    assert "ensemble 0.5000 of 3 trials on 44 units of 12 patients (in search, optimistic)" in text
    assert "GPU memory 3.2 GB a worker at its peak" in text
    assert ["demo-0000", "0", "3/12", "0.6123"] in lines
    assert ["demo-0001", "1", "8/8", "-"] in lines
    assert "demo-0003 fold 0 stopped: it brings nothing" in text


def test_folds_without_trials_are_not_raced():
    console_view = ConsoleView("t", trials=0, trial_folds=0)
    console_view.handle(FoldsToCome(5))
    text = shown("t", console_view.progress)
    assert "0 trained, about 5 to come" in text
    assert "racing" not in text
    assert "ended" not in text


def test_only_the_newest_notes_are_shown(console_view):
    for number in range(5):
        console_view.note(f"note {number}")
    text = shown("t", console_view.progress)
    assert [f"note {number}" in text for number in range(5)] == [False, False, True, True, True]


def test_many_folds_in_flight_do_not_push_the_rest_out(console_view):
    for number in range(20):
        console_view.started(f"demo-{number:04d}", 0, 4)
    text = shown("t", console_view.progress, rows=5)
    assert text.count("demo-") == 5
    assert "and 15 more" in text


def test_brackets_are_no_markup(console_view):
    console_view.failed("demo-0000", None, "x[/] [red]y[0]")
    assert "demo-0000 failed: x[/] [red]y[0]" in shown("[b]study[/b]", console_view.progress)
    assert "[b]study[/b]" in shown("[b]study[/b]", console_view.progress)


def test_without_a_terminal_it_logs_lines(console_view, caplog):
    with console_view:
        console_view.started("demo-0000", 0, 4)
        console_view.epoch("demo-0000", 0, 1, 0.7)
        console_view.fold_done("demo-0000", 0)
        console_view.stopped("demo-0000", None, "it brings nothing", 1.0)
        console_view.failed("demo-0001", 1, "100 % wrong")
        console_view.best("demo-0000", 0.5432)
        console_view.best("demo-0000", 0.5432)
        console_view.ensemble(0.5, 2, 44, 12)
    assert caplog.messages == [
        "the first fold begins: demo-0000 fold 0, 4 epochs",
        "demo-0000 fold 0: score 0.5432 on 44 units with >= 10 votes; 1 of about 28 folds, about 4 min left",
        "demo-0000 stopped: it brings nothing",
        "demo-0001 fold 1 failed: 100 % wrong",
        "best single so far: 0.5432 demo-0000",
        "ensemble so far: 0.5000 of 2 trials on 44 units of 12 patients (in search, optimistic)",
    ]
    assert [record.levelname for record in caplog.records][3] == "WARNING"


def test_threads_lose_no_count_and_draw_meanwhile(console_view):
    over, faults = threading.Event(), []

    def work(name: str) -> None:
        for number in range(50):
            trial = f"{name}-{number}"
            console_view.started(trial, 0, 1)
            console_view.epoch(trial, 0, 1, 0.5)
            console_view.fold_done(trial, 0)
            console_view.stopped(trial, None, "", 0.5)
            console_view.ended(trial, "PRUNED")

    def draw() -> None:
        while not over.is_set():
            try:
                console_view._table()
            except RuntimeError as error:  # a dictionary that changes while it is read
                faults.append(error)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        drawer, *workers = [threading.Thread(target=draw), *(threading.Thread(target=work, args=(n,)) for n in "abcd")]
        for thread in (drawer, *workers):
            thread.start()
        for thread in workers:
            thread.join(60)
    finally:
        over.set()
        drawer.join(60)
        sys.setswitchinterval(before)
    progress = console_view.progress
    assert (progress.finished, progress.states["PRUNED"], progress.saved, progress.running) == (200, 200, 100.0, {})
    assert not faults


def test_a_signal_s_handler_may_note_while_its_thread_is_inside(console_view):
    heard = []
    before = signal.signal(signal.SIGUSR1, lambda *_: (console_view.note("interrupted"), heard.append(True)))
    try:
        with console_view.lock:
            os.kill(os.getpid(), signal.SIGUSR1)
            deadline = time.monotonic() + 5
            while not heard and time.monotonic() < deadline:
                time.sleep(0.01)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert list(console_view.progress.notes) == ["interrupted"]


class Terminal(io.StringIO):
    """A terminal in memory, which may be closed by the person."""

    gone = False

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.gone:
            raise OSError(5, "Input/output error")
        return super().write(text)


def live_board(terminal: Terminal) -> Told:
    return Told("study", 1, 1, console=Console(file=terminal, force_terminal=True, force_interactive=True))


def test_a_terminal_that_is_gone_costs_no_search():
    with redirect_stderr(Terminal()) as terminal:
        with live_board(terminal) as console_view:
            terminal.gone = True
            console_view.note("unseen")
        assert sys.stderr is terminal
    assert list(console_view.progress.notes) == ["unseen"]


def test_log_handlers_get_their_stream_back():
    terminal, file = Terminal(), io.StringIO()
    logger, handlers = logging.getLogger("elsewhere"), [logging.StreamHandler(terminal), logging.StreamHandler(file)]
    for handler in handlers:
        logger.addHandler(handler)
    try:
        with redirect_stderr(terminal), pytest.raises(ValueError, match="on purpose"), live_board(terminal):
            assert handlers[0].stream is sys.stderr is not terminal
            assert handlers[1].stream is file
            logger.warning("above the table")
            raise ValueError("on purpose")
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
    assert [handler.stream for handler in handlers] == [terminal, file]
    assert "above the table" in terminal.getvalue()
    assert file.getvalue() == "above the table\n"


def test_in_a_terminal_the_table_lives_and_its_last_state_stands():
    text = in_terminal(program())
    assert "\x1b[1A" in text, "it is redrawn in place"
    assert "2/3" in text
    last = text[text.rindex("╭") : text.rindex("╯")]
    assert "1 trained" in last
    assert "demo-0001 fold 0 failed: KeyError: 'x' [/]" in last
    assert "2/3" not in last
    assert text.rstrip().endswith("afterwards")
    assert "of about" not in text, "lines are for those who have no table"


def test_others_log_above_the_table_and_do_not_tear_it():
    text = in_terminal(program())
    line = text.index("somebody logs [b]this[/b]")
    assert text.rindex("\x1b[2K", 0, line) > text.index("╭"), "the table is erased first"
    assert text.index("╭", line) < text.index("╯", line), "and drawn again below"


def test_it_does_not_flood_the_terminal():
    many = "console_view.handle(EpochDone('demo-0002', row | dict(epoch=n)))"
    many = "\n    ".join(["for n in range(20000):", f"    {many}", "pass"])
    text = in_terminal(program(many))
    assert text.count("╭") < 20


@pytest.mark.parametrize("last", ["raise KeyboardInterrupt", "raise ValueError", "import os; os._exit(3)"])
def test_however_it_ends_the_cursor_is_there(last):
    text = in_terminal(program(last))
    assert "╭" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_no_colour_is_a_wish_and_no_reason_to_hide_the_table():
    text = in_terminal(program(), NO_COLOR="1")
    assert "╭" in text
    assert "\x1b[36m" in in_terminal(program())
    assert "\x1b[36m" not in text


def test_a_dumb_terminal_gets_plain_lines():
    text = in_terminal(program(), TERM="dumb")
    assert "\x1b" not in text
    assert "44 units with >= 10 votes; 1 of about" in text


@pytest.mark.parametrize("changes", [{}, {"FORCE_COLOR": "1"}])
def test_a_pipe_gets_plain_lines_without_escapes(changes):
    done = subprocess.run(program(), capture_output=True, text=True, env=environment(**changes), timeout=60, check=True)
    assert done.stdout == ""
    assert "\x1b" not in done.stderr
    assert "╭" not in done.stderr
    lines = done.stderr.splitlines()
    assert lines[:2] == ["the first fold begins: demo-0000 fold 0, 3 epochs", "somebody logs [b]this[/b]"]
    assert lines[2].startswith(
        "demo-0000 fold 0: score 0.5432 on 44 units with >= 10 votes; 1 of about 2 folds, about "
    )
    assert lines[3:] == ["demo-0001 fold 0 failed: KeyError: 'x' [/]", "afterwards"]


def test_what_goes_to_a_file_stays_out_of_the_terminal(tmp_path):
    command = f'{sys.executable} -c "$SEARCH" > {tmp_path / "out"}'
    text = in_terminal(["/bin/sh", "-c", command], SEARCH=SEARCH.format(last="print('a result')"))
    assert "╭" in text
    assert "a result" not in text
    assert (tmp_path / "out").read_text() == "a result\n"
