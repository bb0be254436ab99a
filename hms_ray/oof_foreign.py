"""Take in out-of-fold predictions that other pipelines made: CSV or parquet, rows in any order, joined on their ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hms_ray import files, tasks
from hms_ray.errors import ConfigError, DataError
from hms_ray.oof import OofTable, population
from hms_ray.study_folder import StudyFolder, check_id
from hms_ray.tasks import Task

GROUP = "patient_id"
VOTE = "_vote"
HMS_ORDER = ("seizure", "lpd", "gpd", "lrda", "grda", "other")
SPACE = "foreign"


@dataclass(frozen=True)
class _Source:
    """A file and the rows it holds, in its order."""

    path: Path
    frame: pd.DataFrame

    @property
    def vote_classes(self) -> list[str]:
        return [c.removesuffix(VOTE) for c in self.frame.columns if c.endswith(VOTE)]

    @property
    def is_labels(self) -> bool:
        """Labels have votes and folds; a prediction file may carry those along beside its own classes."""
        classes = self.vote_classes
        return bool(classes) and "fold" in self.frame and not set(classes) & set(self.frame.columns)

    def where(self, bad: np.ndarray) -> str:
        """Say which rows, by position below the header."""
        rows = np.flatnonzero(bad)
        return f"row{'s' * (len(rows) > 1)} {_few(rows)}"


def import_foreign(paths: Sequence[Path], folder: StudyFolder, min_votes: int | None = None) -> None:
    """Make a study of one file with targets and folds and of files with predictions; the file stem names a member.

    The labels file has `<class>_vote` columns (counts, or shares that sum to 1), `fold`, and if known `patient_id` (the
    group that no fold may split) and `votes` (how many a unit has; else the sum of counts, and 1 for shares). The
    others have a column for each class. All are joined on the id columns they share: `unit_id` or `<anything>_id`.
    min_votes: the score's default population in a new study; a study that exists keeps its own. None: 1.
    Nothing is written unless every file is sound. Importing the same files again changes nothing.

    Raises:
        ConfigError: no files, no or several labels files, names that collide, or a study of something else.
        DataError: a file whose rows cannot be; the message names the file and the rows.
    """
    sources = [_Source(Path(path), _read(Path(path))) for path in paths]
    labels, predictions = _sort_out(sources)
    ids = _shared_ids(labels, predictions)
    template = _template(labels, ids)
    tables = [_table(source, template, ids, labels) for source in predictions]
    scored = _default_min_votes(folder, min_votes)
    population(template.votes, scored)
    folder.claim(_identity(template, labels.path, scored))
    _write_folds(template, folder)
    for table in tables:
        table.write(folder.oof(table.trial))


def _read(path: Path) -> pd.DataFrame:
    """Read a CSV or parquet file, or say what is wrong with it."""
    if path.suffix not in (".csv", ".parquet"):
        raise DataError(f"{path}: out-of-fold files end in .csv or .parquet, not {path.suffix!r}")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.suffix == ".parquet":
        frame = files.read_table(path)
    else:
        try:
            frame = pd.read_csv(path)
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: not a readable CSV ({str(error).splitlines()[0]})") from error
    if frame.empty:
        raise DataError(f"{path}: it has no rows")
    return frame


def _sort_out(sources: Sequence[_Source]) -> tuple[_Source, list[_Source]]:
    """Return the labels file and the prediction files, names checked."""
    if not sources:
        raise ConfigError("no out-of-fold files were given, or the pattern matched none")
    labels = [source for source in sources if source.is_labels]
    predictions = [source for source in sources if not source.is_labels]
    if len(labels) != 1:
        found = ", ".join(str(source.path) for source in labels) or "none of " + _few([s.path for s in sources])
        raise ConfigError(f"exactly one file must hold the labels: `<class>{VOTE}` columns and `fold`; found: {found}")
    if not predictions:
        raise ConfigError(f"{labels[0].path} holds the labels, but no file with predictions was given")
    by_id: dict[str, Path] = {}
    for source in predictions:
        first = by_id.setdefault(check_id(source.path.stem), source.path)
        if first is not source.path:
            raise ConfigError(f"{first} and {source.path} would both be the member {source.path.stem!r}; rename one")
    return labels[0], predictions


def _shared_ids(labels: _Source, predictions: Sequence[_Source]) -> list[str]:
    ids = [c for c in labels.frame.columns if c.endswith("_id") and c != GROUP]
    shared = [c for c in ids if all(c in source.frame for source in predictions)]
    if not shared:
        lacking = next(source.path for source in predictions if not set(ids) & set(source.frame.columns))
        raise DataError(f"{lacking}: no id column to join on; {labels.path} has {', '.join(ids) or 'none'}")
    return shared


def _template(labels: _Source, ids: list[str]) -> OofTable:
    """Build everything of a table but its predictions, sorted by unit_id."""
    unit_ids = _unit_ids(labels, ids)
    classes = labels.vote_classes
    classes = HMS_ORDER if set(classes) == set(HMS_ORDER) else tuple(classes)
    task = tasks.from_dict({"kind": "votes", "classes": list(classes)})
    votes, shares = _votes_and_shares(labels, task)
    groups = _strings(labels, GROUP) if GROUP in labels.frame else unit_ids
    folds = _whole_numbers(labels, "fold", least=0)
    _check_groups(labels, groups, folds)
    order = np.argsort(unit_ids)
    unit_ids, groups, folds, votes, shares = (a[order] for a in (unit_ids, groups, folds, votes, shares))
    assignment = [unit_ids.tolist(), groups.tolist()]
    return OofTable(
        unit_ids=unit_ids,
        group_ids=groups,
        folds=folds,
        votes=votes,
        targets=shares,
        probs=np.empty_like(shares),
        task=task,
        trial="",
        space=SPACE,
        data_fingerprint=files.fingerprint(task.to_dict(), *assignment, votes.tolist(), shares.tolist()),
        folds_fingerprint=files.fingerprint(*assignment, folds.tolist()),
    )


def _votes_and_shares(labels: _Source, task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Return how many votes each unit has (N,) and their shares (N, K)."""
    values = _numbers(labels, [c + VOTE for c in task.classes])
    total = values.sum(1, keepdims=True)
    if (values >= 0).all() and (values == np.round(values)).all():
        counted = total[:, 0].astype(np.int64)
        _refuse(labels, counted == 0, "without any vote")
        shares = values / total
    else:
        task.check_targets(values, str(labels.path))
        counted, shares = np.ones(len(values), dtype=np.int64), values / total
    votes = _whole_numbers(labels, "votes", least=1) if "votes" in labels.frame else counted
    return votes, shares


def _check_groups(labels: _Source, groups: np.ndarray, folds: np.ndarray) -> None:
    """Refuse folds that split a patient: the model would have seen the patient it is tested on."""
    split = pd.Series(folds).groupby(groups).nunique().loc[lambda n: n > 1].index
    if len(split):
        raise DataError(f"{labels.path}: folds split {len(split)} {GROUP}s over several folds: {_few(split)}")


def _table(source: _Source, template: OofTable, ids: list[str], labels: _Source) -> OofTable:
    """Check one prediction file and bring it into the template's order."""
    unit_ids = _unit_ids(source, ids)
    classes = template.task.classes
    probs = _numbers(source, list(classes))
    template.task.check_probs(probs, str(source.path))
    extra = ~np.isin(unit_ids, template.unit_ids)
    _refuse(source, extra, f"whose {'-'.join(ids)} {labels.path} does not have")
    missing = np.setdiff1d(template.unit_ids, unit_ids)
    if len(missing):
        what = f"{'-'.join(ids)} of {labels.path}"
        raise DataError(f"{source.path}: missing {len(missing)} rows, for {what}: {_few(missing)}")
    order = np.argsort(unit_ids)
    if "fold" in source.frame:
        other = _whole_numbers(source, "fold", least=0)[order] != template.folds
        _refuse(source, np.isin(unit_ids, template.unit_ids[other]), f"in another fold than in {labels.path}")
    return replace(template, probs=probs[order], trial=source.path.stem)


def _identity(template: OofTable, labels: Path, min_votes: int) -> dict[str, Any]:
    groups = np.unique(template.group_ids)
    return {
        "task": template.task.to_dict(),
        "data": {"name": SPACE, "root": str(labels), "params": {}, "fingerprint": template.data_fingerprint}
        | {"units": len(template.unit_ids), "groups": len(groups)},
        "folds": {"k": len(np.unique(template.folds)), "seed": None, "fingerprint": template.folds_fingerprint},
        "score": {"min_votes": min_votes},
    }


def _default_min_votes(folder: StudyFolder, min_votes: int | None) -> int:
    """A study keeps the population it began with; other ones are a matter of each ensemble."""
    if folder.study.is_file():
        return folder.read_study()["score"]["min_votes"]
    return 1 if min_votes is None else min_votes


def _write_folds(template: OofTable, folder: StudyFolder) -> None:
    columns = {"unit_id": template.unit_ids, "group_id": template.group_ids, "fold": template.folds}
    files.write_table(folder.folds, pd.DataFrame(columns))


def _unit_ids(source: _Source, ids: list[str]) -> np.ndarray:
    """Join the id columns to one string a row; refuse rows that come twice."""
    parts = [_strings(source, c) for c in ids]
    joined = np.array(["-".join(row) for row in zip(*parts, strict=True)])
    _refuse(source, pd.Series(joined).duplicated(keep=False).to_numpy(), f"that share their {'-'.join(ids)}")
    return joined


def _strings(source: _Source, column: str) -> np.ndarray:
    """Return ids as strings; whole numbers that were read as floats lose their '.0'."""
    values = source.frame[column]
    _refuse(source, values.isna().to_numpy(), f"without {column}")
    if values.dtype.kind == "f" and (values == values.round()).all():
        values = values.astype(np.int64)
    return values.astype(str).to_numpy(dtype=str)


def _numbers(source: _Source, columns: list[str]) -> np.ndarray:
    """Return columns as finite float64 (N, len(columns))."""
    missing = [c for c in columns if c not in source.frame]
    if missing:
        raise DataError(f"{source.path}: missing column {_few(missing)}; it has {_few(source.frame.columns)}")
    values = source.frame[columns].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    _refuse(source, ~np.isfinite(values).all(1), f"where {_few(columns)} are not all numbers")
    return values


def _whole_numbers(source: _Source, column: str, least: int) -> np.ndarray:
    values = _numbers(source, [column])[:, 0]
    _refuse(source, (values < least) | (values != np.round(values)), f"whose {column} is not a whole number >= {least}")
    return values.astype(np.int64)


def _refuse(source: _Source, bad: np.ndarray, which: str) -> None:
    if bad.any():
        raise DataError(f"{source.path}: {int(bad.sum())} rows {which}: {source.where(bad)}")


def _few(things: Any, limit: int = 5) -> str:
    """List the first things, and how many there are if that is more."""
    things = [str(thing) for thing in things]
    return ", ".join(things[:limit]) + (f" ... ({len(things)} in all)" if len(things) > limit else "")
