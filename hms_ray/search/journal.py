"""The journal: every trial of a study, its true state and every report, in Optuna's own format.

One Optuna study a space. What is proposed depends on the seed and on the results of earlier trials, never on which of
the trials running side by side ended first: two searches with one seed on machines of one size are the same, and so is
one that was killed.
"""

import fcntl
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import FrozenTrial, TrialState

from hms_ray import seeds
from hms_ray.errors import ConfigError
from hms_ray.search.ranges import spelled
from hms_ray.search.space import Space
from hms_ray.study_folder import StudyFolder

COLUMNS = ["trial", "space", "number", "state", "value", "seconds", "cause", "params"]


@contextmanager
def one_driver(folder: StudyFolder) -> Iterator[None]:
    """Hold the study for this process; the kernel gives it back however the process ends."""
    for path in (folder.root, *folder.root.parents):
        if path.is_file():
            raise ConfigError(f"--study {folder.root}: {path} is a file, not a folder")
    folder.root.mkdir(parents=True, exist_ok=True)
    with open(folder.root / ".driver.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"{folder.root} is in use by another hms-ray process; wait for it or stop it") from error
        try:
            yield
        finally:
            if not folder.study.is_file():  # the start was refused: leave no empty study behind
                _clear(folder)


def _clear(folder: StudyFolder) -> None:
    (folder.root / ".driver.lock").unlink()
    with suppress(OSError):  # not empty: the folder has other things in it
        folder.root.rmdir()


class Journal:
    """The trials of one space."""

    def __init__(self, folder: StudyFolder, space: Space) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder, self.space = folder, space
        self.study = optuna.create_study(
            storage=_storage(folder), study_name=space.name, direction="minimize", load_if_exists=True
        )

    def trial_id(self, number: int) -> str:
        """Return the id of a trial, as the study folder uses it."""
        return f"{self.space.name}-{number:04d}"

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Return the trials in those states, all of them without any, by number."""
        return self.study.get_trials(deepcopy=False, states=states or None)

    def unfinished(self) -> list[tuple[int, dict[str, Any]]]:
        """Return number and run of the trials that a stopped driver left behind."""
        return [(t.number, self.run(t.number)) for t in self.trials(TrialState.RUNNING)]

    def propose(self, behind: int) -> tuple[int, dict[str, Any]] | None:
        """Begin a new trial and return its number and run; the first one is the base run.

        The sampler sees the results of all trials but the newest `behind`; of those it sees the parameters alone, as
        of trials still running. None: one of the older is still running, ask again later.
        """
        trials = self.trials()
        number = len(trials)
        older, newest = trials[: max(0, number - behind)], trials[max(0, number - behind) :]
        if not all(trial.state.is_finished() for trial in older):
            return None
        view = optuna.create_study(sampler=_sampler(seeds.derive(self.space.run.seed, "tpe", self.space.name, number)))
        view.add_trials([*older, *map(_running, newest)])
        base = self.space.base_params() if number == 0 else None
        if base is not None:
            view.enqueue_trial(base)
        trial = view.ask()
        run = self.space.suggest(trial)
        self.study.add_trial(_running(trial))
        return number, run

    def run(self, number: int) -> dict[str, Any]:
        """Rebuild the run of a trial from its parameters."""
        return self.space.suggest(optuna.trial.FixedTrial(self.trials()[number].params))

    def report(self, number: int, step: int, score: float) -> None:
        """Add a score at a step (epochs trained so far, over the trial's folds)."""
        self._live(number).report(score, step)

    def complete(self, number: int, score: float, seconds: float) -> None:
        """End a trial with its score."""
        self._live(number).set_user_attr("seconds", seconds)
        self.study.tell(number, score)

    def fail(self, number: int, cause: str) -> None:
        """End a trial without a score, and say why."""
        self._live(number).set_user_attr("cause", cause)
        self.study.tell(number, state=TrialState.FAIL)

    def best(self, count: int) -> list[FrozenTrial]:
        """Return the best finished trials, the older first among equals."""
        return sorted(self.trials(TrialState.COMPLETE), key=lambda t: (t.value, t.number))[:count]

    def _live(self, number: int) -> optuna.Trial:
        """Return the trial for writing."""
        return optuna.Trial(self.study, self.trials()[number]._trial_id)


def trials_table(folder: StudyFolder) -> pd.DataFrame:
    """Return one row a trial of every space: trial, space, number, state, value, seconds, cause, params."""
    if not folder.journal.is_file():
        return pd.DataFrame(columns=COLUMNS)
    storage, rows = _storage(folder), []
    for study in storage.get_all_studies():
        for trial in storage.get_all_trials(study._study_id, deepcopy=False):
            rows.append(_row(study.study_name, trial))
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(space: str, trial: FrozenTrial) -> Mapping[str, Any]:
    return {
        "trial": f"{space}-{trial.number:04d}",
        "space": space,
        "number": trial.number,
        "state": trial.state.name,
        "value": trial.value if trial.state == TrialState.COMPLETE else float("nan"),
        "seconds": trial.user_attrs.get("seconds", float("nan")),
        "cause": trial.user_attrs.get("cause", ""),
        "params": {path: spelled(value) for path, value in trial.params.items()},
    }


def _running(trial: FrozenTrial | optuna.Trial) -> FrozenTrial:
    """Return a trial of the same parameters that has not ended."""
    return optuna.trial.create_trial(state=TrialState.RUNNING, params=trial.params, distributions=trial.distributions)


def _sampler(seed: int) -> optuna.samplers.TPESampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed)


def _storage(folder: StudyFolder) -> JournalStorage:
    path = folder.journal
    return JournalStorage(JournalFileBackend(str(path), lock_obj=_KernelLock(path.with_name(".journal.lock"))))


class _KernelLock:
    """A lock that a crash cannot leave behind, unlike Optuna's own files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def acquire(self) -> bool:
        """Wait for the lock."""
        self.file = open(self.path, "w")  # noqa: SIM115 - held until release
        fcntl.flock(self.file, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        """Give the lock back."""
        self.file.close()
