"""Opens a study: data, folds and spaces are checked against each other before anything starts."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hms_ray import registry
from hms_ray.core import files
from hms_ray.core.errors import ConfigError, TrialFailed, raise_all
from hms_ray.datasets import Dataset, checked
from hms_ray.encoders import pretrained
from hms_ray.execution import loggers
from hms_ray.search.optuna import samplers, warm_start
from hms_ray.search.space.paths import put
from hms_ray.search.space.ranges import Choice
from hms_ray.search.space.space import Space, unshared
from hms_ray.store import quality
from hms_ray.store.inputs import read_quality
from hms_ray.store.share import StoreRef
from hms_ray.store.workers import Workers
from hms_ray.study import folds, oof
from hms_ray.study.epoch_selection import Candidates, Rule
from hms_ray.study.folder import StudyFolder
from hms_ray.study.trial_store import TrialStore
from hms_ray.training import early_stopping, pseudo_labels
from hms_ray.training.build import build_model, fold_seed
from hms_ray.training.dry_run import Rehearsals
from hms_ray.training.inputs import check_inputs, prepare_inputs, prepare_runs
from hms_ray.training.jobs import FoldJob, PredictionJob
from hms_ray.training.labels import TrainingLabels
from hms_ray.training.published_weights import begin_from
from hms_ray.training.published_weights import fetch as fetch_weights
from hms_ray.training.run_config import Component, RunConfig, Score, parse_run, try_run

log = logging.getLogger(__name__)
CHOSEN_ON = "warm_start_chosen_on"


@dataclass(frozen=True)
class OpenStudy:
    """An open study: its folder, its data, and the labels that every trial shares."""

    folder: StudyFolder
    dataset: Dataset
    labels: TrainingLabels
    score: Score
    epoch: Rule
    candidates: Candidates
    identity: Mapping[str, Any]
    rehearsals: Rehearsals
    force: bool = False
    prepared: dict[str, tuple[StoreRef, ...]] = field(default_factory=dict)
    fetched: dict[str, StoreRef | None] = field(default_factory=dict)

    def trial_store(self, selected_on: Sequence[int] = (), rounds_on: Sequence[int] = ()) -> TrialStore:
        """Return what reads and writes its trials; arguments as there."""
        rule, candidates, min_votes = self.epoch, self.candidates, self.score.min_votes
        return TrialStore(self.folder, self.labels, rule, candidates, min_votes, selected_on, rounds_on)

    def begin(self, spaces: Sequence[Space]) -> None:
        """Write the study's identity, folds and spaces, or refuse what differs from what is written."""
        self.folder.claim(self.identity, self.force)
        files.sweep(self.folder.root / "trials")
        if not self.folder.folds.is_file():
            ids = {"unit_id": self.labels.unit_ids, "group_id": self.labels.group_ids, "fold": self.labels.folds}
            files.write_table(self.folder.folds, pd.DataFrame(ids))
        for space in spaces:
            self.folder.add_space(space.name, space.resolved() | {CHOSEN_ON: self.chosen_on(space)}, self.force)

    def write_baseline(self) -> None:
        """Keep what the dataset's plain model predicts of each fold from the others, if it has such a model."""
        if not self.dataset.BASELINE or self.folder.baseline.is_file():
            return
        log.info("plain baseline: %s", self.dataset.BASELINE)
        if (probs := self.dataset.baseline(self.labels.folds)) is not None:
            self.labels.table(probs, "baseline", "baseline").write(self.folder.baseline)

    def prepare(self, spaces: Sequence[Space], workers: Workers | None = None) -> None:
        """Prepare what the base runs read and each choice of a feature, and keep the quality of the recordings.

        Raises:
            DataError: a recording is missing or broken.
            ConfigError: hardly a recording is as good as a run demands.
        """
        runs, tables = [(space, run) for space in spaces for run in variants(space)], []
        stores = prepare_runs(self.dataset, [run for _, run in runs], workers)
        for (space, run), mine in zip(runs, stores, strict=True):
            self.prepared[_input_key(run)] = mine
            tables.append(read_quality(mine))
            self._check_quality(space, run, tables[-1])
        found = pd.concat(tables).drop_duplicates(["kind", "name"])
        measured = [
            self._measures(mine).assign(kind=kind, unit_id=self.labels.unit_ids) for kind, mine in found.groupby("kind")
        ]
        if self.folder.study.is_file() and self.folder.quality.is_file():  # its other spaces may read other recordings
            known = files.read_table(self.folder.quality)
            measured.append(known[~known["kind"].isin(found["kind"])])
        files.write_table(self.folder.quality, pd.concat(measured, ignore_index=True))

    def _measures(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the measures of each unit, of those of its recordings."""
        return quality.of_units(self.labels.examples, quality.of_examples(table, self.dataset.windows))

    def _check_quality(self, space: Space, run: RunConfig, table: pd.DataFrame) -> None:
        """Raise ConfigError where a stage of a fold has nothing left to train on."""
        trust = quality.trust(quality.of_examples(table, self.dataset.windows), run.quality)
        good = np.bincount(self.labels.examples.unit, trust > 0)
        trusted = good > 0
        try:
            for k in range(self.labels.n_folds):
                train = np.flatnonzero(trusted & (self.labels.folds != k))
                _check_stages(run, k, self.dataset, train, good)
        except TrialFailed as error:
            kept = f"{trusted.sum()} of {len(trusted)} units are good enough"
            raise ConfigError(f"space {space.name}: quality: {kept}: {error}") from error

    def stores(self, run: RunConfig, workers: Workers | None = None) -> tuple[StoreRef, ...]:
        """Return what a run reads, prepared unless that is done."""
        key = _input_key(run)
        if key not in self.prepared:
            self.prepared[key] = prepare_inputs(self.dataset, run, workers)
        return self.prepared[key]

    def weights(self, run: RunConfig) -> StoreRef | None:
        """Return the published weights from which a run begins, fetched unless that is done; None: random ones."""
        return self._fetched(run.model)

    def _fetched(self, part: Component) -> StoreRef | None:
        key = files.fingerprint(part.kind, part.dump())
        if key not in self.fetched:
            self.fetched[key] = fetch_weights(part)
        return self.fetched[key]

    def fetch(self, spaces: Sequence[Space]) -> None:
        """Fetch the weights of the base runs and of each choice, and see that a model's fit.

        Raises:
            ConfigError: lists those that cannot be had, or are another network's.
        """
        faults, cause = [], ""
        lacking: dict[str, list[str]] = {}
        for space in members(spaces):
            for run in variants(space):
                try:
                    self._fetched(run.feature)
                    if (weights := self.weights(run)) is not None:
                        build_model(run, self.labels.task, weights)
                except pretrained.Unreachable as error:
                    lacking.setdefault(error.name, []).append(f"space {space.name}")
                    cause, single = error.cause, f"space {space.name}: {error}"
                except ConfigError as error:
                    faults.append(f"space {space.name}: {error}")
        if lacking:
            faults.insert(0, single if len(lacking) == 1 else pretrained.all_unreachable(lacking, cause))
        raise_all(dict.fromkeys(faults), ConfigError, "weights")

    def fault(self, content: Mapping[str, Any]) -> str | None:
        """Return why a proposed run cannot be trained, found without its recordings and weights; None: it can."""
        run, faults = try_run(content)
        if run is None:
            return "; ".join(faults)
        try:
            self.rehearsals.check(run)
            _check_folds(run, self.dataset, self.labels.folds)
        except (ConfigError, TrialFailed) as error:
            return str(error)
        return None

    def chosen_on(self, space: Space) -> list[int]:
        """Return the folds on whose scores the space's warm start was chosen; the other study may be gone since."""
        known = self.folder.read_study()["spaces"] if self.folder.study.is_file() else {}
        if CHOSEN_ON in known.get(space.name, {}):
            return known[space.name][CHOSEN_ON]
        return list(warm_start.selected_on(space, self.labels.group_ids, self.labels.folds))

    def job(self, trial: str, run: RunConfig, fold: int, prune_thresholds: tuple[float, ...] = ()) -> FoldJob:
        """Return the job of one fold, and keep the trial's run in its folder."""
        folder = self.folder.trial(trial)
        if not folder.config.is_file():
            files.write_yaml(folder.config, run.content)
        saved, weights = folder.fold(fold).checkpoint.absolute(), self.weights(run)
        begin_from(folder, {"model": weights, "feature": self._fetched(run.feature)})
        return FoldJob(trial, run.without_weights(), fold, self.stores(run), saved, weights, prune_thresholds)

    def prediction_job(self, trial: str, run: RunConfig, fold: int, epoch: int) -> PredictionJob:
        """Return the job that predicts the units of a finished fold that are not scored, after an epoch."""
        weights = self.folder.trial(trial).fold(fold).weights(epoch).read_bytes()
        return PredictionJob(trial, run.without_weights(), fold, self.stores(run), epoch, weights)


def _input_key(run: RunConfig) -> str:
    """Return what two runs share that read the same stores."""
    return files.fingerprint(run.feature.dump(), run.input.model_dump())


def load_dataset(root: Path, run: RunConfig) -> Dataset:
    """Read the run's dataset."""
    return checked(registry.load("datasets", run.data.name).load(root, run.data.params), run.data.name)


def open_study(folder: StudyFolder, spaces: Sequence[Space], root: Path, force: bool = False) -> OpenStudy:
    """Check everything that can be checked without reading recordings; `OpenStudy.begin` then writes a new study.

    Raises:
        ConfigError: spaces that do not go together, a run that cannot work, a study of other data or folds.
        DataError: a file of the data is missing or broken.
    """
    run = _common(spaces)
    known = folder.read_study()["spaces"] if folder.study.is_file() else {}
    for space in spaces:
        samplers.check(space)
        loggers.check(space.log.mlflow, space.log.wandb)
        if space.name not in known:  # what a warm start offers is in the journal from then on
            warm_start.check(space)
    dataset = load_dataset(root, run)
    oof.population(dataset.units["votes"].to_numpy(), run.score.min_votes)
    identity = {
        "task": dataset.task.to_dict(),
        "data": dataset.identity() | {"params": run.data.params.model_dump()},
        "folds": {"k": run.folds, "seed": run.seed},  # and a fingerprint, once they are dealt
        "score": {"min_votes": run.score.min_votes},
        "epoch": run.epoch,
        "epoch_candidates": run.epoch_candidates.model_dump(),
    }
    if folder.study.is_file():  # a study of something else is refused before hours of preparation
        folder.check(identity)
    table = _folds(folder, dataset, run)
    rehearsals = Rehearsals(dataset.task)
    _check_runs(spaces, dataset, table["fold"].to_numpy(), rehearsals)
    identity["folds"] |= {"fingerprint": folds.fingerprint(table)}
    labels = TrainingLabels.of(dataset, table)
    study = OpenStudy(folder, dataset, labels, run.score, run.epoch, run.epoch_candidates, identity, rehearsals, force)
    if folder.study.is_file():
        study.begin(spaces)
    return study


def _folds(folder: StudyFolder, dataset: Dataset, run: RunConfig) -> pd.DataFrame:
    """Return the study's own folds where it has such folds; else deal them out."""
    if folder.folds.is_file():
        known = folder.read_study()["folds"]
        if (known["k"], known["seed"]) == (run.folds, run.seed):
            return folds.load(folder.folds, dataset.units)
    return folds.assign(dataset.units, run.folds, run.seed)


def _common(spaces: Sequence[Space]) -> RunConfig:
    """Return the first space's run after checking that the others share what belongs to the study."""
    faults = unshared(spaces)
    faults += [
        f"{name} is given twice" for name in {s.name for s in spaces if [t.name for t in spaces].count(s.name) > 1}
    ]
    raise_all(faults, ConfigError, "the spaces of one study must share data, folds, score and seed")
    return spaces[0].run


def _check_runs(spaces: Sequence[Space], dataset: Dataset, fold: np.ndarray, rehearsals: Rehearsals) -> None:
    """Rehearse the base run of every space and each of its choices of a model or a feature."""
    faults = []
    for space in members(spaces):
        for run in variants(space):
            try:
                check_inputs(dataset, run)
                rehearsals.check(run)
                _check_folds(run, dataset, fold)
            except (ConfigError, TrialFailed) as error:
                faults.append(f"space {space.name}: {error}")
    raise_all(dict.fromkeys(faults), ConfigError, "a run that cannot work")


def _check_folds(run: RunConfig, dataset: Dataset, fold: np.ndarray) -> None:
    """Raise what a fold of the run would raise when it comes to a stage; fold: (N,) of each unit."""
    examples = np.bincount(dataset.examples.unit)
    for k in range(run.folds):
        _check_stages(run, k, dataset, np.flatnonzero(fold != k), examples)


def _check_stages(run: RunConfig, fold: int, dataset: Dataset, train: np.ndarray, examples: np.ndarray) -> None:
    """Raise what a fold would raise when it comes to the stage, hours later.

    train: the units that it may train on; examples: (N,) how many each unit has for it
    """
    votes, groups = (dataset.units[name].to_numpy() for name in ("votes", "group_id"))
    for number, stage in enumerate(run.stages):
        rows = stage.select_units(votes, train)
        if stage.early_stopping:
            early_stopping.check(stage.early_stopping, groups[rows])
            rows = rows[~early_stopping.set_aside(stage.early_stopping, groups[rows], fold_seed(run, fold), number)]
        stage.steps(int(examples[rows].sum()), run.optim.batch)
        for epoch in (0, stage.epochs - 1):  # the weights between lie between theirs
            stage.weights(votes, rows, epoch)
        if stage.pseudo:
            pseudo_labels.check(stage.pseudo, groups[train], votes, rows)


def members(spaces: Sequence[Space]) -> list[Space]:
    """Return the spaces that these are made of: what is wrong is said of the one that has it."""
    return [member for space in spaces for member in space.members]


def variants(space: Space) -> Iterator[RunConfig]:
    """Yield the base run, and the base run with each choice of a model, of a feature or of its inputs."""
    for member in space.members:
        yield member.run
        for item in member.ranges:
            if isinstance(item, Choice) and item.path.split(".")[0] in ("model", "feature", "input"):
                yield from _with_options(member, item)


def _with_options(space: Space, item: Choice) -> Iterator[RunConfig]:
    for option in item.options:
        content = parse_run(space.base).content
        put(content, item.path, option)
        run, _ = try_run(content)
        if run:
            yield run
