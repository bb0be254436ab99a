"""The verbs of `hms-ray` as functions: for a notebook, a script, and the command line itself.

    import hms_ray as hr

    study = hr.search("effnet", "data/hms", study="runs/first", trials=20)
    study.leaderboard()  # every model that has all its folds
    hr.report(study)  # reports/first/index.html
    hr.predict(study, "data/hms", out="submission.csv")

Nothing large is imported before it is needed: torch and Ray only once something is trained.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

from hms_ray import __version__, registry
from hms_ray.core.errors import ConfigError
from hms_ray.study.folder import StudyFolder

if TYPE_CHECKING:
    import pandas as pd

    from hms_ray.ensemble.members import Limits
    from hms_ray.ensemble.result import EnsembleResult
    from hms_ray.search.space.space import Space

PathLike: TypeAlias = str | os.PathLike[str]
SpaceLike: TypeAlias = "PathLike | Space"  # a name, a YAML file, or what `load_space` returned
Overrides: TypeAlias = Mapping[str, object] | Sequence[str]
SMOKE_PATIENTS, SMOKE_SEED = 60, 0
REMOTE = ("://", "@")  # in what `data` names when it is no folder: the address of a repository


class Study:
    """A study folder, read: what was tried, how it scored, and the ensemble.

    Every property reads the folder anew, so that it shows what is there now.

    Raises:
        ConfigError: there is no such folder, or it is no study.
        DataError: a file of the study is damaged; the message names it.
    """

    def __init__(self, path: PathLike) -> None:
        self.folder = StudyFolder(Path(path))
        self._content = self.folder.read_study()

    def __repr__(self) -> str:
        return f"Study({str(self.path)!r})"

    @property
    def path(self) -> Path:
        """The study's folder."""
        return self.folder.root

    @property
    def min_votes(self) -> int:
        """Units with at least so many votes are scored."""
        return int(self._content["score"]["min_votes"])

    @property
    def trials(self) -> pd.DataFrame:
        """One row a trial: trial, space, number, state, value, score, estimate, fidelity, seconds, cause, params.

        No rows in a study without a search. Units and meanings as in `hms_ray.study.trials_table`.
        """
        from hms_ray.study.trials_table import trials_table

        return trials_table(self.folder)

    @property
    def ensemble(self) -> EnsembleResult:
        """What `fit_ensemble` found: members, weights, scores with intervals and populations, notes."""
        from hms_ray.ensemble.result import EnsembleResult

        if not self.folder.ensemble.is_file():
            raise ConfigError(f"{self.path} has no ensemble; fit one with `fit_ensemble`, or `hms-ray ensemble`")
        return EnsembleResult.load(self.folder.ensemble)

    @property
    def oof(self) -> pd.DataFrame:
        """The ensemble's cross-fitted predictions: unit_id, group_id, fold, votes, CLASS_target and CLASS_prob."""
        return self._table(self.folder.ensemble_oof)

    def oof_of(self, trial: str) -> pd.DataFrame:
        """Return the out-of-fold predictions of one model that has all its folds; columns as in `oof`."""
        if trial not in self.folder.oof_ids():
            known = ", ".join(self.folder.oof_ids()) or "none"
            raise ConfigError(f"{self.path} has no out-of-fold table of {trial!r}; it has {known}")
        return self._table(self.folder.oof(trial))

    def leaderboard(self) -> pd.DataFrame:
        """Return one row a model that has all its folds, the lowest score first.

        trial, space
        score: out of fold, on the scored units; lower is better
        units, patients: on which it is scored
        selected_on: the folds whose scores chose the configuration; on them the score is optimistic
        """
        import pandas as pd

        from hms_ray.study.oof import OofTable

        rows = []
        for trial in self.folder.oof_ids():
            table = OofTable.read(self.folder.oof(trial))
            scored = table.rows(self.min_votes)
            rows.append(
                {
                    "trial": trial,
                    "space": table.space,
                    "score": table.task.score(table.targets[scored], table.probs[scored]),
                    "units": int(scored.sum()),
                    "patients": len(set(table.group_ids[scored])),
                    "selected_on": list(table.selected_on),
                }
            )
        columns = ["trial", "space", "score", "units", "patients", "selected_on"]
        return pd.DataFrame(rows, columns=columns).sort_values("score", ignore_index=True)

    def fit_ensemble(
        self,
        pool: str = "auto",
        *,
        min_votes: int | None = None,
        limits: Limits | None = None,
        progress: bool = True,
    ) -> Study:
        """Fit the ensemble of all out-of-fold tables and write it into the study; arguments as in `fit_study`."""
        from hms_ray.core.progress import Progress
        from hms_ray.ensemble import fit_study

        with _shown(progress):
            fit_study(self.folder, min_votes, pool, limits, Progress("ensemble"))
        return self

    def _table(self, path: Path) -> pd.DataFrame:
        from hms_ray.core import files
        from hms_ray.study.oof import OofTable

        OofTable.read(path)  # which refuses a table that is damaged
        return files.read_table(path)


def load_study(path: PathLike) -> Study:
    """Open a study folder for reading; errors as in `Study`."""
    return Study(path)


def load_space(name: PathLike, overrides: Overrides = (), *, smoke: bool = False) -> Space:
    """Read and check a search space.

    name: one of `hms-ray list spaces`, or a YAML file
    overrides: values by dotted path, {"stages.0.lr": 1e-3}, or as on the command line, ["stages.0.lr=1e-3"]
    smoke: the space as a tiny run: two trials of two folds, few epochs, random weights

    Raises:
        ConfigError: lists every fault of the file and the overrides.
    """
    from hms_ray.search.space import space

    words = _words(overrides)
    loaded = space.load(os.fspath(name), tuple(words))
    return space.small(loaded, words) if smoke else loaded


def search(
    space: SpaceLike | Sequence[SpaceLike],
    data: PathLike | None = None,
    *,
    study: PathLike | None = None,
    trials: int | None = None,
    folds: int | None = None,
    overrides: Overrides = (),
    smoke: bool = False,
    in_process: bool = False,
    force: bool = False,
    progress: bool = True,
) -> Study:
    """Run a hyperparameter search, train its finalists on all folds, and fit the ensemble. Call it again to resume.

    Args:
        space: a name of `hms-ray list spaces`, a YAML file, or what `load_space` returned; or several of them.
        data: the folder of the data, "kaggle" or the address of a repository. None: $HMS_RAY_DATA, or what the dataset
            finds; with `smoke`, simulated recordings.
        study: the study's folder. None: runs/<space>.
        trials: configurations to try. None: the space's budget.
        folds: cross-validation folds. None: the space's.
        overrides: as in `load_space`.
        smoke: a tiny run, for a first look.
        in_process: train in this process, one fold at a time, without Ray.
        force: go on with a study that other code has made.
        progress: show log lines, or a live table in a terminal.

    Raises:
        UserError: before anything starts: what is wrong with a space, the data or the study.
        SearchAborted: no trial could be trained, all fail alike, or the disk is full.
        KeyboardInterrupt: everything finished is kept.
    """
    return _run("search", space, data, study, trials, folds, overrides, smoke, in_process, force, progress)


def train(
    space: SpaceLike | Sequence[SpaceLike],
    data: PathLike | None = None,
    *,
    study: PathLike | None = None,
    folds: int | None = None,
    overrides: Overrides = (),
    smoke: bool = False,
    in_process: bool = False,
    force: bool = False,
    progress: bool = True,
) -> Study:
    """Train the base run of each space on all folds, without a search, and fit the ensemble; as `search` otherwise."""
    return _run("train", space, data, study, None, folds, overrides, smoke, in_process, force, progress)


def prepare(
    space: SpaceLike | Sequence[SpaceLike],
    data: PathLike | None = None,
    *,
    in_process: bool = False,
    progress: bool = True,
) -> list[Path]:
    """Read the data once and keep the features that the spaces' runs need; return the folders they are kept in.

    Arguments and errors as in `search`, which does this by itself.
    """
    names = _listed(space)
    _check_data(names, data)
    with _shown(progress), ExitStack() as stack:
        from hms_ray.execution.prepare_tasks import RayTasks
        from hms_ray.execution.session import session
        from hms_ray.search.prepare import prepare as prepare_stores

        spaces = _loaded(names, (), smoke=False)
        workers = None if in_process else RayTasks(lambda: stack.enter_context(session()))
        return prepare_stores(spaces, _located(data, spaces[0].run.data.name), workers)


def predict(study: PathLike | Study, data: PathLike | None = None, *, out: PathLike, progress: bool = True) -> int:
    """Write the ensemble's predictions for the test part of the data as a submission; return the number of rows.

    Errors as in `hms_ray.inference.predict`.
    """
    folder = _folder(study)
    folder.read_study()
    with _shown(progress):
        from hms_ray.inference.predict import predict as predict_study

        return predict_study(folder, _named(data), Path(out))


def report(study: PathLike | Study, out: PathLike | None = None) -> Path:
    """Write the page of a study, index.html, into the folder `out` (default: reports/<study>) and return its path.

    Errors as in `hms_ray.report.page.write_report`.
    """
    folder = _folder(study)
    folder.read_study()
    from hms_ray.report.page import write_report
    from hms_ray.study.trials_table import trials_table

    return write_report(folder, trials_table(folder), None if out is None else Path(out))


def import_oof(
    files: Iterable[PathLike],
    study: PathLike,
    *,
    labels: PathLike | None = None,
    columns: Mapping[str, str] | None = None,
    ids: Sequence[str] = (),
    min_votes: int | None = None,
    allow_missing: bool = False,
) -> Study:
    """Bring out-of-fold predictions of other pipelines into a study; arguments and errors as in `import_foreign`."""
    from hms_ray.oof_import import import_foreign

    folder = StudyFolder(Path(study))
    import_foreign(
        [Path(file) for file in files],
        folder,
        min_votes,
        labels=None if labels is None else Path(labels),
        columns=columns,
        ids=list(ids),
        allow_missing=allow_missing,
    )
    return Study(folder.root)


def _check_data(
    spaces: Sequence[SpaceLike], data: PathLike | None, overrides: Overrides = (), *, smoke: bool = False
) -> None:
    """Refuse spaces and data that are not there before torch is imported, which takes seconds.

    smoke: the data will be simulated where none is named
    """
    from hms_ray.search.space import locate

    words = _words(overrides)
    for word in words:
        if "=" not in word:
            raise ConfigError(f"--set {word!r}: must be key=value, e.g. stages.0.epochs=2")
    paths = [locate.find(os.fspath(name)) for name in spaces if isinstance(name, str | os.PathLike)]
    if not paths:
        return
    named, dataset = _named(data), locate.dataset(paths[0])
    is_remote = named is not None and (named == "kaggle" or any(mark in named for mark in REMOTE))
    is_known = dataset in registry.names("datasets") and not any(word.startswith("data") for word in words)
    if is_remote or not is_known or (smoke and not data):
        return
    module = registry.load("datasets", str(dataset))
    if named and not Path(named).is_dir():
        module.load(Path(named), module.Params())  # which raises the dataset's own sentence
    if not named and hasattr(module, "NO_DATA"):
        raise ConfigError(module.NO_DATA)


def _run(
    verb: str,
    space: SpaceLike | Sequence[SpaceLike],
    data: PathLike | None,
    study: PathLike | None,
    trials: int | None,
    folds: int | None,
    overrides: Overrides,
    smoke: bool,
    in_process: bool,
    force: bool,
    progress: bool,
) -> Study:
    """Train, then fit the ensemble over everything that the study holds."""
    for option, number, least, key in (("trials", trials, 1, "budget.trials"), ("folds", folds, 2, "base.folds")):
        if number is not None and number < least:
            raise ConfigError(f"{key}: --{option} must be {least} or more, but got {number}")
    names, words = _listed(space), _words(overrides)
    _check_data(names, data, words, smoke=smoke)
    words += [f"folds={folds}"] if folds is not None else []
    words += [f"budget.trials={trials}"] if trials is not None else []
    with _shown(progress):
        from hms_ray.search import driver

        spaces = _loaded(names, words, smoke)
        default = "+".join(item.name for item in spaces) + ("-smoke" if smoke else "")
        folder = StudyFolder(Path(study) if study else Path("runs") / default)
        dataset = spaces[0].run.data.name
        root = _simulated(dataset) if smoke and not data else _located(data, dataset)
        work = driver.search if verb == "search" else driver.train
        work(folder, spaces, root, in_process, force)
    return Study(folder.root).fit_ensemble(progress=progress)


def _loaded(names: Sequence[SpaceLike], words: Sequence[str], smoke: bool) -> list[Space]:
    spaces: list[Space] = []
    for name in names:
        if isinstance(name, str | os.PathLike):
            spaces.append(load_space(name, words, smoke=smoke))
        elif words or smoke:
            raise ConfigError(
                f"space {name.name} is loaded already: give trials, folds, overrides and smoke to load_space"
            )
        else:
            spaces.append(name)
    return spaces


def _listed(space: SpaceLike | Sequence[SpaceLike]) -> list[SpaceLike]:
    listed: list[SpaceLike] = list(space) if isinstance(space, list | tuple) else [cast(SpaceLike, space)]
    if not listed:
        raise ConfigError("space: none is named; `hms-ray list spaces` shows what there is")
    return listed


def _words(overrides: Overrides) -> list[str]:
    """Return overrides as the command line spells them; JSON is YAML, so values keep their types."""
    if isinstance(overrides, Mapping):
        return [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
    return list(overrides)


def _folder(study: PathLike | Study) -> StudyFolder:
    return study.folder if isinstance(study, Study) else StudyFolder(Path(study))


def _named(data: PathLike | None) -> str | None:
    """Return what is said of where the data is."""
    return (os.fspath(data) if data else None) or os.environ.get("HMS_RAY_DATA") or None


def _located(data: PathLike | None, dataset: str) -> Path:
    """Return the folder of the data, fetched where the dataset knows how."""
    from hms_ray.store.share import cache_root

    return Path(registry.load("datasets", dataset).locate(_named(data), cache_root()))


def _simulated(dataset: str) -> Path:
    """Simulate a set once that is small, but large enough to learn from, and keep it in the cache."""
    from hms_ray.core.progress import Progress
    from hms_ray.store.share import cache_root

    out = cache_root() / "simulated" / f"{__version__}-{dataset}-{SMOKE_PATIENTS}-{SMOKE_SEED}"
    if not (out / "train.csv").is_file():
        registry.simulator(dataset)(out, SMOKE_PATIENTS, SMOKE_SEED, Progress("simulate"))
    return out


@contextmanager
def _shown(progress: bool) -> Iterator[None]:
    """Show log lines meanwhile, where nobody has set up logging: in a notebook or a plain script."""
    logger = logging.getLogger("hms_ray")
    if not progress or logging.root.handlers or logger.handlers:
        yield
        return
    handler, level = logging.StreamHandler(), logger.level
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
