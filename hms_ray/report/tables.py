"""A study folder as plain data: what was scored, on which rows, and by whom. Nothing is drawn here."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hms_ray import tasks
from hms_ray.core.errors import ConfigError, DataError
from hms_ray.core.plain_yaml import load_yaml
from hms_ray.core.recordings import KINDS
from hms_ray.ensemble.result import EnsembleResult
from hms_ray.store.quality import MEASURES
from hms_ray.study import tables as study_tables
from hms_ray.study.folder import StudyFolder
from hms_ray.study.oof import OofTable, optimism

QUALITY = {"unit_id": study_tables.Column("text"), "kind": study_tables.Column("text", among=tuple(KINDS))}
RUN = ("data", "feature", "model", "input", "quality", "optim")  # the sections of a run that are mappings
INPUTS = ("input.compute", "input.window", "test_time")  # what the network is given; shown whether searched or not


@dataclass(frozen=True)
class Population:
    """The rows that a score is the mean of; printed beside every score."""

    units: int
    groups: int
    min_votes: int

    @property
    def rule(self) -> str:
        """Which rows belong to it."""
        return rule(self.min_votes)

    @property
    def those(self) -> str:
        """Which rows belong to it, within a sentence."""
        return those("rows", self.min_votes)

    @property
    def size(self) -> str:
        """How many there are."""
        return f"{count(self.units, 'unit')} · {count(self.groups, 'patient')}"

    def __str__(self) -> str:
        """Rule and size; that all units count needs no saying beside their number."""
        return f"{self.rule} · {self.size}" if self.min_votes > 1 else self.size


@dataclass(frozen=True)
class Study:
    """study.json with its task rebuilt, folds.parquet, and ensemble.json (None while there is none).

    epoch: the rule by which a fold's epoch is chosen; units: unit_id, group_id, fold
    quality: unit_id, kind and the measures of each unit's recordings; None where they were not measured
    """

    name: str
    task: tasks.Task
    data: dict[str, Any]
    folds: dict[str, Any]
    search_min_votes: int
    epoch: str
    spaces: dict[str, Any]
    versions: dict[str, str]
    units: pd.DataFrame
    ensemble: EnsembleResult | None
    quality: pd.DataFrame | None

    @property
    def min_votes(self) -> int:
        """The votes a scored unit has: the ensemble's choice, so that tables compare with it; else the study's."""
        return self.ensemble.population.min_votes if self.ensemble else self.search_min_votes

    @property
    def fold_numbers(self) -> list[int]:
        """The folds that hold units; imported ones need not begin at 0."""
        return sorted(map(int, self.units["fold"].unique()))

    @property
    def rule(self) -> str:
        """Which rows the tables and the ensemble are scored on."""
        return rule(self.min_votes)

    @property
    def search_rule(self) -> str:
        """Which rows trials and learning curves were scored on."""
        return rule(self.search_min_votes)

    @property
    def those(self) -> str:
        """Which rows the tables and the ensemble are scored on, within a sentence."""
        return those("rows", self.min_votes)

    @property
    def search_those(self) -> str:
        """Which rows trials and learning curves were scored on, within a sentence."""
        return those("rows", self.search_min_votes)


@dataclass(frozen=True)
class Scored:
    """One out-of-fold table, scored on the study's population.

    rows: unit_id, group_id, fold, score of each unit of the population
    config: the full run; {} for a foreign table: nobody here knows how it was trained
    params: its searched values and those of INPUTS, dotted path -> value
    origin: fingerprints of the data and the folds it was made from
    epoch_rule, epochs: as in OofTable
    """

    trial: str
    space: str
    origin: tuple[str, str]
    selected_on: tuple[int, ...]
    epoch_rule: str
    epochs: tuple[int, ...]
    rows: pd.DataFrame
    config: dict[str, Any]
    params: dict[str, Any]

    @property
    def optimism(self) -> str:
        """What flatters its scores, beside which it stands; nothing where its epochs were not chosen by them."""
        return optimism(self.epoch_rule)

    @property
    def score(self) -> float:
        """Mean over the population; NaN where it is empty."""
        return float(self.rows["score"].mean())

    @property
    def by_fold(self) -> dict[int, float]:
        """Mean score of each fold that holds rows of the population."""
        return {int(fold): float(score) for fold, score in self.rows.groupby("fold")["score"].mean().items()}

    @property
    def spread(self) -> float:
        """Standard deviation over folds (n - 1); NaN for fewer than two folds."""
        return float(np.std(list(self.by_fold.values()), ddof=1)) if len(self.by_fold) > 1 else float("nan")


@dataclass(frozen=True)
class Curve:
    """The learning curves of one trial; epochs: fold, stage, epoch, train_loss, score, lr, seconds."""

    trial: str
    epochs: pd.DataFrame


def rule(min_votes: int) -> str:
    """Word which rows are scored."""
    return f"≥ {min_votes} votes" if min_votes > 1 else "all units"


def those(noun: str, min_votes: int) -> str:
    """Word which of some things are scored, within a sentence: "rows with ≥ 10 votes", or "all rows"."""
    return f"{noun} with {rule(min_votes)}" if min_votes > 1 else f"all {noun}"


def count(n: int, noun: str) -> str:
    """Word a number of things."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def read_study(folder: StudyFolder) -> Study:
    """Read study.json, folds.parquet, and ensemble.json and quality.parquet if there are such.

    Raises:
        ConfigError: the folder is no study, or its ensemble was written by an earlier version.
        DataError: a file is missing or broken.
    """
    content = folder.read_study()
    return Study(
        name=folder.name,
        task=tasks.from_dict(content["task"]),
        data=content["data"],
        folds=content["folds"],
        search_min_votes=content["score"]["min_votes"],
        epoch=content["epoch"],
        spaces=content["spaces"],
        versions=content["versions"],
        units=study_tables.read_folds(folder.folds),
        ensemble=EnsembleResult.load(folder.ensemble) if folder.ensemble.is_file() else None,
        quality=_read_quality(folder) if folder.quality.is_file() else None,
    )


def population(rows: pd.DataFrame, min_votes: int) -> Population:
    """Count units and groups of rows that already are the population."""
    return Population(len(rows), int(rows["group_id"].nunique()), min_votes)


def in_population(table: OofTable, min_votes: int) -> np.ndarray:
    """Return a mask (N,) of the rows with enough votes; unlike that of `OofTable.rows` it may be empty."""
    return table.votes >= min_votes


def score_rows(table: OofTable, min_votes: int) -> pd.DataFrame:
    """Return unit_id, group_id, fold, score of the population's rows, sorted by unit."""
    keep = in_population(table, min_votes)
    rows = pd.DataFrame(
        {
            "unit_id": table.unit_ids[keep],
            "group_id": table.group_ids[keep],
            "fold": table.folds[keep],
            "score": table.task.row_scores(table.targets[keep], table.probs[keep]),
        }
    )
    return rows.sort_values("unit_id", ignore_index=True)


def read_finalists(folder: StudyFolder, study: Study) -> list[Scored]:
    """Score every out-of-fold table, the best first, those without a score last."""
    finalists = [_read_finalist(folder, study, trial) for trial in folder.oof_ids()]
    return sorted(finalists, key=lambda f: (np.isnan(f.score), f.score, f.trial))


def searched_params(config: dict[str, Any], search: Iterable[str]) -> dict[str, Any]:
    """Return the values that a full run has at the searched dotted paths; paths it lacks are left out."""
    found = {path: _dig(config, path) for path in search}
    return {path: value for path, value in found.items() if value is not _ABSENT}


def searched_paths(search: Mapping[str, Any]) -> list[str]:
    """Return the run's paths that a space searches; in a union each begins with the name of the space that does."""
    members = search["space"]["choice"] if "space" in search else []
    prefixes = {path: next((f"{name}." for name in members if path.startswith(f"{name}.")), "") for path in search}
    return list(dict.fromkeys(path.removeprefix(prefix) for path, prefix in prefixes.items()))


def read_curves(folder: StudyFolder) -> list[Curve]:
    """Read the learning curves of every trial that has begun, in the order of trial ids."""
    paths = sorted((folder.root / "trials").glob("*/epochs.parquet"))
    return [Curve(path.parent.name, study_tables.read_epochs(path)) for path in paths]


def fold_sizes(study: Study, finalists: list[Scored]) -> pd.DataFrame:
    """Return fold, units, groups and, once a table tells the votes, scored_units and scored_groups (else NaN)."""
    sizes = _sizes(study.units).reindex(study.fold_numbers, fill_value=0)
    if finalists:
        scored = _sizes(finalists[0].rows).reindex(study.fold_numbers, fill_value=0)
    else:
        scored = pd.DataFrame(float("nan"), index=sizes.index, columns=sizes.columns)
    return sizes.join(scored.add_prefix("scored_")).rename_axis("fold").reset_index()


def objective(space: dict[str, Any] | None) -> str:
    """Return what the trials of a resolved space made small: "own", their score, or "gain"; imported ones none."""
    return space["base"].get("score", {}).get("objective", "own") if space else "own"


_ABSENT = object()


def _read_quality(folder: StudyFolder) -> pd.DataFrame:
    measures = dict.fromkeys(MEASURES, study_tables.Column("number", 0, 1))
    return study_tables.read(folder.quality, QUALITY | measures, key=())


def _read_finalist(folder: StudyFolder, study: Study, trial: str) -> Scored:
    table = OofTable.read(folder.oof(trial))
    config = _config_of(folder, study, trial, table.space)
    searched = searched_paths(study.spaces[table.space]["search"]) if config else ()
    return Scored(
        trial=trial,
        space=table.space,
        origin=(table.data_fingerprint, table.folds_fingerprint),
        selected_on=table.selected_on,
        epoch_rule=table.epoch_rule,
        epochs=table.epochs,
        rows=score_rows(table, study.min_votes),
        config=config,
        params=searched_params(config, dict.fromkeys([*searched, *INPUTS])),
    )


def _config_of(folder: StudyFolder, study: Study, trial: str, space: str) -> dict[str, Any]:
    config = folder.trial(trial).config
    if space not in study.spaces or not config.is_file():
        return {}
    try:
        content = load_yaml(config)
    except ConfigError as error:  # the study's file, not one that the user writes
        raise DataError(str(error)) from error
    if not isinstance(content, dict):
        raise DataError(f"{config}: must hold a run, but holds {content!r:.60}; put the file back from a copy")
    faulty = [key for key in RUN if not isinstance(content.get(key, {}), dict)]
    if faulty:
        raise DataError(f"{config}: {', '.join(faulty)} must be mappings; put the file back from a copy")
    return content


def _dig(content: Any, dotted: str) -> Any:
    for key in dotted.split("."):
        if isinstance(content, list) and key.isdigit() and int(key) < len(content):
            content = content[int(key)]
        elif isinstance(content, dict) and key in content:
            content = content[key]
        else:
            return _ABSENT
    return content


def _sizes(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.groupby("fold").agg(units=("unit_id", "size"), groups=("group_id", "nunique"))
