"""Choose the id columns on which the files are joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import pandas as pd

from hms_ray.core.errors import DataError
from hms_ray.oof_import.faults import Faults, few
from hms_ray.oof_import.read import UNNAMED_ID
from hms_ray.oof_import.source import Source, key

GROUP = "patient_id"


def id_columns(source: Source) -> list[str]:
    """Return the id columns, `id` and `<anything>_id`, except the group."""
    return [name for name in source.keys if (name == "id" or name.endswith("_id")) and name != GROUP]


def name_id(source: Source, labels: Source, named: Sequence[str]) -> Source:
    """Give an id without a name the name of the labels' only id.

    Raises:
        DataError: the labels have neither `unit_id` nor exactly one id, and no id was named.
    """
    ids = [key(name) for name in named] or id_columns(labels)
    if not source.id_unnamed or UNNAMED_ID in ids:
        return source
    if len(ids) != 1:
        rule = "its ids are one array without a name, which can stand for one id column"
        raise DataError(f"{source.path}: {rule}, but {labels.path} has {few(ids) or 'none'}; name them in a table")
    return replace(source, frame=source.frame.rename(columns={UNNAMED_ID: ids[0]}), id_unnamed=False)


def join_columns(labels: Source, predictions: Sequence[Source], named: Sequence[str], faults: Faults) -> list[str]:
    """Return the columns to join on: those named, else all ids that every file has; empty and noted faults if none."""
    before = len(faults)
    ids = [key(name) for name in named]
    if named:
        for source in (labels, *predictions):
            faults.attempt(source.require, ids)
    else:
        known = id_columns(labels)
        without = [source for source in predictions if not any(name in source for name in known)]
        for source in without:
            faults.add(DataError(f"{source.path}: no id column to join on; {labels.path} has {few(known) or 'none'}"))
        ids = [name for name in known if all(name in source for source in predictions)]
        if not ids and not without:
            have = "; ".join(f"{s.path} has {few(name for name in known if name in s)}" for s in predictions[:5])
            faults.add(DataError(f"no id column of {labels.path} is in every file: {have}"))
    if len(faults) == before:
        faults.attempt(_check_unique, labels, predictions, ids)
    return ids if len(faults) == before else []


def _check_unique(labels: Source, predictions: Sequence[Source], ids: Sequence[str]) -> None:
    """Refuse ids that several rows of the labels share, where other columns would distinguish these rows."""
    twice = _keys(labels, ids).duplicated(keep=False).to_numpy()
    if not twice.any():
        return
    # The smallest sets of up to three id columns that no two rows share.
    complete = [name for name in id_columns(labels) if not labels.column(name).isna().any()]
    better: list[tuple[str, ...]] = []
    for names in (names for size in (1, 2, 3) for names in combinations(complete, size)):
        smaller = any(set(other) <= set(names) for other in better)
        if not smaller and not _keys(labels, names).duplicated().any():
            better.append(names)
    if not better:
        return
    better.sort(key=lambda names: len(_lacking(predictions, names)))
    advice = few(_lacking(predictions, better[0])) or f"--ids {','.join(better[0])}"
    ways = " or ".join("-".join(names) for names in better)
    rule = labels.fault(twice, f"that share their {'-'.join(ids)}, all that the files are joined on")
    raise DataError(f"{rule}; {ways} would distinguish them: {advice}")


def _lacking(predictions: Sequence[Source], names: Sequence[str]) -> list[str]:
    lacks = [(source.path, [name for name in names if name not in source]) for source in predictions]
    return [f"{path} lacks {few(missing)}" for path, missing in lacks if missing]


def _keys(labels: Source, ids: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame({name: labels.column(name).astype(str) for name in ids})
