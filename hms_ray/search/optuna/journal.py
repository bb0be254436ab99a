"""The journal: every trial of a study, its true state and every report, in Optuna's own format.

One Optuna study a space. What is proposed depends on the seed and on the results of earlier trials, never on which of
the trials running side by side ended first: two searches with one seed on machines of one size are the same, and so is
one that was killed. Where nodes came while a search ran, each trial says how many ran at once when it was proposed, and
how many trials' results were known then.
"""

import fcntl
import math
import os
import platform
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TextIO

import optuna
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from hms_ray.core.errors import ConfigError
from hms_ray.search.optuna import warm_start
from hms_ray.search.optuna.journal_file import JournalFile, opened, read_trials
from hms_ray.search.optuna.samplers import Fault, Proposer, faultless
from hms_ray.search.space.space import Space
from hms_ray.study.folder import StudyFolder
from hms_ray.study.journal_records import check_recorded, trial_id

KNOWN, CONCURRENCY = "known", "concurrency"  # of a trial, when it was proposed


@contextmanager
def one_driver(folder: StudyFolder) -> Iterator[None]:
    """Hold the study for this process; the kernel gives it back however the process ends."""
    for path in (folder.root, *folder.root.parents):
        if path.is_file():
            raise ConfigError(f"--study {folder.root}: {path} is a file, not a folder")
    folder.root.mkdir(parents=True, exist_ok=True)
    with open(folder.root / ".driver.lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"{folder.root} is in use by another hms-ray process{_holder(file)}; wait for it or stop it"
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()} on {platform.node()}")
        file.flush()
        try:
            yield
        finally:
            if not folder.study.is_file():  # the start was refused: leave no empty study behind
                _clear(folder)


def _holder(file: TextIO) -> str:
    """Say who holds a study; nothing in the moment before it has written who it is."""
    file.seek(0)
    name = file.read()
    return f" ({name})" if name else ""


def _clear(folder: StudyFolder) -> None:
    (folder.root / ".driver.lock").unlink()
    with suppress(OSError):  # not empty: the folder has other things in it
        folder.root.rmdir()


class Journal:
    """The trials of one space, for the driver, which holds the study; its threads may share it.

    Raises:
        ConfigError: a new space's warm start has nothing to offer.
        DataError: the file is damaged, or lacks trials that the folder has; a last line that a crash cut short is no
            damage, it is dropped.
    """

    def __init__(self, folder: StudyFolder, space: Space) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder, self.space = folder, space
        self.file = JournalFile(folder.journal)
        self.file.mend()
        check_recorded(folder, (trial_id(name, trial.number) for name, trial in read_trials(folder.journal)))
        self.study = self._study()

        self.starts = self._starts()
        self.proposer = Proposer(space)
        self.lock = threading.RLock()

    def trial_id(self, number: int) -> str:
        """Return the id of a trial, as the study folder uses it."""
        return trial_id(self.space.name, number)

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Return the trials in those states, all of them without any, by number; not to be changed."""
        return self.study.get_trials(deepcopy=False, states=states or None)

    def trial(self, number: int) -> FrozenTrial:
        """Return one trial."""
        return self.trials()[number]

    def unfinished(self) -> list[tuple[int, dict[str, Any]]]:
        """Return number and run of the trials that a stopped driver left behind."""
        return [(t.number, self.run(t.number)) for t in self.trials(TrialState.RUNNING)]

    def view(self, number: int, result_lag: int) -> list[FrozenTrial] | None:
        """Return what a trial may be judged and proposed by: all trials before it but the newest `behind`.

        All of them have ended, COMPLETE, PRUNED or FAIL. None: one of them is still running.
        """
        older = self.trials()[: max(0, number - result_lag)]
        return older if all(trial.state.is_finished() for trial in older) else None

    def known(self, number: int) -> int | None:
        """Return how many of the first trials a trial was proposed from, None where that was not recorded."""
        return self.trial(number).user_attrs.get(KNOWN)

    def concurrency(self) -> int:
        """Return the largest number of trials at once under which one was proposed, 0 where none was recorded."""
        return max((trial.user_attrs.get(CONCURRENCY, 0) for trial in self.trials()), default=0)

    def propose(
        self, result_lag: int, fault: Fault = faultless, concurrency: int | None = None
    ) -> tuple[int, dict[str, Any]] | None:
        """Begin a new trial and return its number and run; the first ones are the base run and the warm start.

        The sampler sees the results of all trials but the newest `behind`; of those it sees the parameters alone, as
        of trials still running. A stopped trial counts at its estimate, a failed one not at all. None: one of the
        older is still running, ask again later.

        What was known stays known: where `behind` has grown, a trial still sees what the one before it saw.
        fault: says why a run cannot be trained; another one is proposed in its place, and the trial notes it
        concurrency: how many trials run at once; it is recorded, with the number of trials whose results were seen

        Raises:
            SearchAborted: too many proposals in a row cannot be trained.
        """
        with self.lock:
            trials = self.trials()
            number = len(trials)
            known = max(0, number - result_lag, (self.known(number - 1) or 0) if trials else 0)
            older = self.view(number, number - known)
            if older is None:
                return None
            start = self.starts[number] if number < len(self.starts) else None
            trial, run = self.proposer.propose(trials, known, start, fault)
            trial.set_user_attr(KNOWN, known)
            if concurrency is not None:
                trial.set_user_attr(CONCURRENCY, concurrency)
            self.study.add_trial(trial)
            return number, run

    def run(self, number: int) -> dict[str, Any]:
        """Rebuild the run of a trial from its parameters."""
        return self.space.suggest(FixedTrial(self.trial(number).params))

    def report(self, number: int, step: int, score: float) -> None:
        """Add a score at a step (epochs trained so far, over the trial's folds); the last one of a step counts."""
        self.reports(number, [(step, score)])

    def reports(self, number: int, pairs: Iterable[tuple[int, float]]) -> None:
        """Add many scores, each with its step, in one write."""
        with self.lock:
            trial_id = self.trial(number)._trial_id
            with self.file.together():
                for step, score in pairs:
                    self.study._storage.set_trial_intermediate_value(trial_id, step, float(score))

    def complete(self, number: int, value: float, seconds: float, **attrs: Any) -> None:
        """End a trial that has trained all its trial folds.

        value: what the sampler makes small; seconds: what it has trained; attrs: what else is known of it, such as
        `score` where the value is something else.
        """
        self._end(number, TrialState.COMPLETE, value, seconds=seconds, **attrs)

    def prune(self, number: int, estimate: float, fidelity: float, cause: str, seconds: float) -> None:
        """End a trial that was stopped.

        estimate: a guess of the value that it would have reached, NaN where there is none
        fidelity: the share of its schedule that it trained
        """
        attrs = {} if math.isnan(estimate) else {"estimate": estimate}
        self._end(number, TrialState.PRUNED, None, **attrs, fidelity=fidelity, cause=cause, seconds=seconds)

    def fail(self, number: int, cause: str, **attrs: Any) -> None:
        """End a trial without a value, and say why."""
        self._end(number, TrialState.FAIL, None, cause=cause, **attrs)

    def best(self, count: int) -> list[FrozenTrial]:
        """Return the best complete trials, the older first among equals."""
        return sorted(self.trials(TrialState.COMPLETE), key=lambda t: (t.value, t.number))[:count]

    @property
    def out(self) -> list[int]:
        """The numbers of complete trials that can no longer become finalists."""
        return self.study.user_attrs.get("out", [])  # a journal has none before the first

    @property
    def considered(self) -> int:
        """How many of the first trials had been considered when trials last went out."""
        return self.study.user_attrs.get("considered", 0)

    def put_out(self, numbers: Iterable[int], considered: int) -> None:
        """Record trials that can no longer become finalists, and how many of the first trials were considered."""
        with self.lock:
            self._set({"out": sorted({*self.out, *numbers}), "considered": considered})

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """The rounds so far: `pairs`, each a trial's number and a fold, and `kept`, who is to get all folds."""
        return self.study.user_attrs.get("rounds", [])

    def put_round(
        self, pairs: Sequence[tuple[int, int]], kept: Sequence[int], out: Iterable[int], considered: int
    ) -> None:
        """Record a round before it is trained, and the trials that go out with it; arguments as above."""
        with self.lock:
            rounds = [*self.rounds, {"pairs": [list(pair) for pair in pairs], "kept": list(kept)}]
            self._set({"rounds": rounds, "out": sorted({*self.out, *out}), "considered": considered})

    def _set(self, attrs: Mapping[str, Any]) -> None:
        """Write attributes of the space's study at once."""
        with self.file.together():
            for name, content in attrs.items():
                self.study.set_user_attr(name, content)

    def _end(self, number: int, state: TrialState, value: float | None, **attrs: Any) -> None:
        """Write attributes and state at once; ValueError for a trial that has ended, and for a value that is NaN."""
        with self.lock:
            trial_id = self.trial(number)._trial_id
            with self.file.together():
                for name, content in attrs.items():
                    self.study._storage.set_trial_user_attr(trial_id, name, content)
                self.study.tell(number, value, state=state)

    def _study(self) -> optuna.Study:
        storage, name = opened(self.file), self.space.name
        if name in (study.study_name for study in storage.get_all_studies()):
            return optuna.load_study(study_name=name, storage=storage)
        return optuna.create_study(storage=storage, study_name=name, direction="minimize")

    def _starts(self) -> list[dict[str, Any]]:
        """Return the parameters of the first trials; they are recorded, since the study of a warm start may change."""
        if "starts" not in self.study.user_attrs:
            known = self.space.starts()
            known += [params for params in warm_start.configurations(self.space) if params not in known]
            self.study.set_user_attr("starts", known)
        return self.study.user_attrs["starts"]
