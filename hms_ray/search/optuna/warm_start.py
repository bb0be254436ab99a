"""Warm starts: the best configurations of another study are tried first, and what that does to honest numbers."""

import copy
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from hms_ray.core import files
from hms_ray.core.errors import ConfigError
from hms_ray.search.optuna.journal_file import own_score, read_trials
from hms_ray.search.space.paths import get, put
from hms_ray.search.space.space import Space
from hms_ray.study.folder import StudyFolder
from hms_ray.study.journal_records import MEMBER, own_params, spelled


def check(space: Space) -> None:
    """Refuse a warm start that has nothing to offer, before anything starts; errors as in `configurations`."""
    configurations(space)


def configurations(space: Space) -> list[dict[str, Any]]:
    """Return the parameters that the space takes over, in Optuna's form, the best first; [] without a warm start.

    They are those of the other study's best complete trials, of all its spaces, that lie inside this space's ranges.
    What that study did not search is taken from its base run; what this space does not search is left out; what is
    missing then is for the sampler to fill in. Into a union, a trial goes only to those spaces whose model is its own.

    Raises:
        ConfigError: there is no such study, it has no complete trial, or none that fits into this space.
        DataError: a file of it is broken.
    """
    if space.sampler.warm_start is None:
        return []
    other = _study(space)
    bases = _bases(other.read_study()["spaces"])
    complete = [(bases[its], trial) for name, trial in _complete(other) if (its := _origin(name, trial)) in bases]
    found: list[dict[str, Any]] = []
    for base, trial in complete:
        for member in space.members:
            params = _translated(member, base, trial, any_model=len(space.members) == 1)
            if params is not None and (own := space.named(member, params)) not in found:
                found.append(own)
    if not found:
        have = f"none of its {len(complete)} complete trials fits" if complete else "it has no complete trial to fit"
        model = ", or has a model of one of its spaces" if complete and len(space.members) > 1 else ""
        raise ConfigError(f"{_where(space)}: {have} into the ranges of space {space.name}{model}")
    return found[: space.sampler.warm_trials]


def selected_on(space: Space, groups: np.ndarray, folds: np.ndarray) -> tuple[int, ...]:
    """Return the folds of this study on whose scores the warm start was chosen: there, a score is optimistic.

    groups, folds (N,): the patient and the fold of each of this study's units. Folds that hold a patient on whom the
    other study chose its configurations: with the same folds the same ones, dealt out otherwise nearly all, with other
    patients none; whatever a unit is in either. Errors as in `configurations`.
    """
    if space.sampler.warm_start is None:
        return ()
    other = _study(space)
    table = files.read_table(other.folds, ["group_id", "fold"])
    chosen = _chosen_on(other)
    inside = table["fold"].isin(chosen) if chosen else np.full(len(table), True)  # no table is left to say: the worst
    return tuple(map(int, np.unique(folds[np.isin(groups, table["group_id"][inside].to_numpy(dtype=str))])))


def _chosen_on(study: StudyFolder) -> set[int]:
    """Return the folds that the tables of a study's complete trials name: those on which the best of them are best."""
    trials = [f"{name}-{trial.number:04d}" for name, trial in _complete(study)]
    return {fold for trial in trials for path in _tables(study, trial) for fold in _selected_on(path)}


def _tables(study: StudyFolder, trial: str) -> list[Path]:
    """Return the tables of a trial's folds; where they are gone that of all folds, which names folds of rounds too."""
    whole, folds = study.oof(trial), sorted(study.trial(trial).root.glob("folds/*/oof.parquet"))
    return folds or ([whole] if whole.is_file() else [])


def _selected_on(table: Path) -> list[int]:
    return files.read_metadata(table)["selected_on"]


def _study(space: Space) -> StudyFolder:
    folder = StudyFolder(Path(str(space.sampler.warm_start)))
    if not folder.root.is_dir():
        raise ConfigError(f"{_where(space)}: no such folder")
    return folder


def _where(space: Space) -> str:
    return f"space {space.name}: sampler.warm_start: {space.sampler.warm_start}"


def _complete(study: StudyFolder) -> list[tuple[str, FrozenTrial]]:
    """Return space and trial of every complete trial, the best first; equals by space and number."""
    found = [item for item in read_trials(study.journal) if item[1].state == TrialState.COMPLETE]
    return sorted(found, key=lambda item: (own_score(item[1]), item[0], item[1].number))


def _bases(spaces: Mapping[str, Any]) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Return the base run of each space of a study, by its name and that of each space that it is made of."""
    return {
        (name, member): base
        for name, content in spaces.items()
        for member, base in content.get("members", {name: content["base"]}).items()
    }


def _origin(space: str, trial: FrozenTrial) -> tuple[str, str]:
    """Return a trial's space, and which of its spaces that was: the same, unless it is a union."""
    return space, trial.params.get(MEMBER, space)


def _translated(space: Space, base: Mapping[str, Any], trial: FrozenTrial, any_model: bool) -> dict[str, Any] | None:
    """Return a trial's parameters as this space's, or None where they do not fit or have nothing in common.

    any_model: those of a trial of another model are taken as well
    """
    searched = {path: spelled(value) for path, value in own_params(trial.params).items() if path != MEMBER}
    if not any(item.path in searched for item in space.ranges):
        return None
    run, params = _with(base, searched), {}
    for item in space.ranges:
        if item.path in searched and not item.has(searched[item.path]):
            return None
        with suppress(KeyError, ValueError):
            params[item.path] = item.encode(searched[item.path] if item.path in searched else get(run, item.path))
    here = _with(space.base, {path: spelled(value) for path, value in params.items()})
    return params if any_model or _model(here) == _model(run) else None


def _model(run: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the name of a run's model, or its file."""
    return run["model"].get("name"), run["model"].get("file")


def _with(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run with other values, of which those at a place that it lacks are left out."""
    run = copy.deepcopy(dict(base))
    for path, value in values.items():
        with suppress(KeyError):
            put(run, path, value)
    return run
