"""A study folder as plain data: the study, its out-of-fold tables with their scores, and learning curves."""

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

QUALITY = {
    "unit_id": study_tables.Column("text"),
    "kind": study_tables.Column("text", among=tuple(KINDS)),
    **dict.fromkeys(MEASURES, study_tables.Column("number", 0, 1)),
}
RUN = ("data", "feature", "model", "input", "quality", "optim")  # the sections of a run that are mappings
INPUTS = ("input.compute", "input.window", "test_time")  # settings of the network's input; always shown


@dataclass(frozen=True)
class Population:
    """The rows over which a score is the mean; printed with every score."""

    units: int
    groups: int
    min_votes: int

    @property
    def rule(self) -> str:
        """The rule that selects the rows."""
        return rule(self.min_votes)

    @property
    def those(self) -> str:
        """The rows, in words within a sentence."""
        return those("rows", self.min_votes)

    @property
    def size(self) -> str:
        """The numbers of units and patients."""
        return f"{count(self.units, 'unit')} · {count(self.groups, 'patient')}"

    def __str__(self) -> str:
        """Rule and size; only the size if all units count."""
        return f"{self.rule} · {self.size}" if self.min_votes > 1 else self.size


@dataclass(frozen=True)
class Study:
    """The content of study.json, folds.parquet, and ensemble.json (None without an ensemble).

    epoch: the rule that chooses the epoch of a fold; units: unit_id, group_id, fold
    quality: unit_id, kind and the measures of each unit's recordings; None if they were not measured
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
        """The least votes of a scored unit: the ensemble's number, so that tables compare with it, or the study's."""
        return self.ensemble.population.min_votes if self.ensemble else self.search_min_votes

    @property
    def fold_numbers(self) -> list[int]:
        """The folds that have units; imported folds may not start at 0."""
        return sorted(map(int, self.units["fold"].unique()))

    @property
    def rule(self) -> str:
        """The rows on which the tables and the ensemble are scored."""
        return rule(self.min_votes)

    @property
    def search_rule(self) -> str:
        """The rows on which trials and learning curves were scored."""
        return rule(self.search_min_votes)

    @property
    def those(self) -> str:
        """The rows on which the tables and the ensemble are scored, within a sentence."""
        return those("rows", self.min_votes)

    @property
    def search_those(self) -> str:
        """The rows on which trials and learning curves were scored, within a sentence."""
        return those("rows", self.search_min_votes)


@dataclass(frozen=True)
class Scored:
    """One out-of-fold table, scored on the study's population.

    rows: unit_id, group_id, fold, score of each unit of the population
    config: the full run; {} for an imported table, whose training is unknown
    params: its searched values and those of INPUTS, dotted path -> value
    origin: fingerprints of its data and folds
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
        """The reason why its scores are optimistic; "" if its epochs were not chosen by them."""
        return optimism(self.epoch_rule)

    @property
    def score(self) -> float:
        """Mean over the population; NaN if it is empty."""
        return float(self.rows["score"].mean())

    @property
    def by_fold(self) -> dict[int, float]:
        """Mean score of each fold with rows of the population."""
        return {int(str(fold)): float(score) for fold, score in self.rows.groupby("fold")["score"].mean().items()}

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
    """Return in words which rows are scored."""
    return f"≥ {min_votes} votes" if min_votes > 1 else "all units"


def those(noun: str, min_votes: int) -> str:
    """Return which things are scored, within a sentence: "rows with ≥ 10 votes", or "all rows"."""
    return f"{noun} with {rule(min_votes)}" if min_votes > 1 else f"all {noun}"


def count(n: int, noun: str) -> str:
    """Return a number of things in words: "1 unit", or "2 units"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def read_study(folder: StudyFolder) -> Study:
    """Read study.json, folds.parquet, and, if they exist, ensemble.json and quality.parquet.

    Raises:
        ConfigError: the folder is not a study, or its ensemble was written by an earlier version.
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
        quality=study_tables.read(folder.quality, QUALITY, key=()) if folder.quality.is_file() else None,
    )


def population(rows: pd.DataFrame, min_votes: int) -> Population:
    """Return the population of rows that were already selected."""
    return Population(len(rows), int(rows["group_id"].nunique()), min_votes)


def in_population(table: OofTable, min_votes: int) -> np.ndarray:
    """Return the mask (N,) of the rows with enough votes; unlike `OofTable.rows`, it may select none."""
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
    """Score every out-of-fold table; the best is first, those without a score are last."""
    finalists = [_read_finalist(folder, study, trial) for trial in folder.oof_ids()]
    return sorted(finalists, key=lambda f: (np.isnan(f.score), f.score, f.trial))


def searched_params(config: Mapping[str, object], search: Iterable[str]) -> dict[str, object]:
    """Return a full run's values at the searched dotted paths; missing paths are left out."""
    values: dict[str, object] = {}
    for path in search:
        value: object = config
        for key in path.split("."):
            if isinstance(value, list) and key.isdigit() and int(key) < len(value):
                value = value[int(key)]
            elif isinstance(value, Mapping) and key in value:
                value = value[key]
            else:
                break
        else:
            values[path] = value
    return values


def searched_paths(search: Mapping[str, Any]) -> list[str]:
    """Return the run's paths that a space searches, without the prefixes that a union of spaces adds."""
    members = search["space"]["choice"] if "space" in search else []
    prefixes = {path: next((f"{name}." for name in members if path.startswith(f"{name}.")), "") for path in search}
    return list(dict.fromkeys(path.removeprefix(prefix) for path, prefix in prefixes.items()))


def read_curves(folder: StudyFolder) -> list[Curve]:
    """Read the learning curves of every trial that has started, in the order of trial ids."""
    paths = sorted((folder.root / "trials").glob("*/epochs.parquet"))
    return [Curve(path.parent.name, study_tables.read_epochs(path)) for path in paths]


def fold_sizes(study: Study, finalists: list[Scored]) -> pd.DataFrame:
    """Return fold, units, groups, scored_units, scored_groups; the last two are NaN until there is a table."""
    sizes = _sizes(study.units).reindex(study.fold_numbers, fill_value=0)
    if finalists:
        scored = _sizes(finalists[0].rows).reindex(study.fold_numbers, fill_value=0)
    else:
        scored = pd.DataFrame(float("nan"), index=sizes.index, columns=sizes.columns)
    return sizes.join(scored.add_prefix("scored_")).rename_axis("fold").reset_index()


def objective(space: dict[str, Any] | None) -> str:
    """Return the objective of a resolved space's trials: "own", their score, or "gain"; "own" without a space."""
    return space["base"].get("score", {}).get("objective", "own") if space else "own"


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


def _sizes(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.groupby("fold").agg(units=("unit_id", "size"), groups=("group_id", "nunique"))
