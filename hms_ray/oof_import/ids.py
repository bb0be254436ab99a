"""On which columns the files are joined."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import pandas as pd

from hms_ray.core.errors import DataError
from hms_ray.oof_import.faults import Faults, few
from hms_ray.oof_import.read import UNNAMED_ID
from hms_ray.oof_import.source import Source, key

GROUP = "patient_id"


def id_columns(source: Source) -> list[str]:
    """Return the columns that look like ids: `id` and `<anything>_id`, but for the group."""
    return [name for name in source.keys if (name == "id" or name.endswith("_id")) and name != GROUP]


def name_id(source: Source, labels: Source, named: Sequence[str]) -> Source:
    """Give an id that came without a name that of the labels' only one.

    Raises:
        DataError: the labels have neither `unit_id` nor a single id, and none was named.
    """
    ids = [key(name) for name in named] or id_columns(labels)
    if not source.id_unnamed or UNNAMED_ID in ids:
        return source
    if len(ids) != 1:
        rule = "its ids are one array without a name, which can stand for one id column"
        raise DataError(f"{source.path}: {rule}, but {labels.path} has {few(ids) or 'none'}; name them in a table")
    return replace(source, frame=source.frame.rename(columns={UNNAMED_ID: ids[0]}), id_unnamed=False)


def join_columns(labels: Source, predictions: Sequence[Source], named: Sequence[str], faults: Faults) -> list[str]:
    """Return the columns to join on: those named, else all ids that every file has. Empty where a fault forbids it."""
    before = len(faults)
    ids = [key(name) for name in named] or _shared(labels, predictions, faults)
    for source in (labels, *predictions):
        if named:
            faults.attempt(source.require, ids)
    if len(faults) == before:
        faults.attempt(_check_unique, labels, predictions, ids)
    return ids if len(faults) == before else []


def _shared(labels: Source, predictions: Sequence[Source], faults: Faults) -> list[str]:
    ids = id_columns(labels)
    without = [source for source in predictions if not any(name in source for name in ids)]
    for source in without:
        faults.add(DataError(f"{source.path}: no id column to join on; {labels.path} has {few(ids) or 'none'}"))
    shared = [name for name in ids if all(name in source for source in predictions)]
    if not shared and not without:
        have = "; ".join(f"{s.path} has {few(name for name in ids if name in s)}" for s in predictions[:5])
        faults.add(DataError(f"no id column of {labels.path} is in every file: {have}"))
    return shared


def _check_unique(labels: Source, predictions: Sequence[Source], ids: Sequence[str]) -> None:
    """Refuse ids that name several rows of the labels where other columns would tell them apart."""
    twice = _keys(labels, ids).duplicated(keep=False).to_numpy()
    better = sorted(_telling(labels), key=lambda names: len(_lacking(predictions, names))) if twice.any() else []
    if not better:
        return
    advice = few(_lacking(predictions, better[0])) or f"--ids {','.join(better[0])}"
    ways = " or ".join("-".join(names) for names in better)
    rule = labels.fault(twice, f"that share their {'-'.join(ids)}, all that the files are joined on")
    raise DataError(f"{rule}; {ways} would tell them apart: {advice}")


def _telling(labels: Source) -> Iterator[tuple[str, ...]]:
    """Yield the smallest sets of up to three id columns that no two rows share."""
    found: list[tuple[str, ...]] = []
    ids = [name for name in id_columns(labels) if not labels.column(name).isna().any()]
    for size in (1, 2, 3):
        for names in combinations(ids, size):
            smaller = any(set(other) <= set(names) for other in found)
            if not smaller and not _keys(labels, names).duplicated().any():
                found.append(names)
                yield names


def _lacking(predictions: Sequence[Source], names: Sequence[str]) -> list[str]:
    lacks = [(source.path, [name for name in names if name not in source]) for source in predictions]
    return [f"{path} lacks {few(missing)}" for path, missing in lacks if missing]


def _keys(labels: Source, ids: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame({name: labels.column(name).astype(str) for name in ids})
