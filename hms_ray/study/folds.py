"""Folds that no patient crosses, balanced by stratum, with a fingerprint by which predictions are matched."""

from pathlib import Path

import numpy as np
import pandas as pd

from hms_ray.core import files, seeds
from hms_ray.core.errors import ConfigError, DataError
from hms_ray.study.tables import read_folds

COLUMNS = ["unit_id", "group_id", "fold"]


def assign(units: pd.DataFrame, k: int, seed: int) -> pd.DataFrame:
    """Return unit_id, group_id and fold (0 ... k - 1) in the order of the units.

    Raises:
        ConfigError: fewer groups than folds, or k below 2.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # slow to import, and no worker assigns folds

    groups = units["group_id"].nunique()
    if not 2 <= k <= groups:
        raise ConfigError(f"folds must be from 2 to the number of patients, {groups}, but got {k}")
    splitter = StratifiedGroupKFold(k, shuffle=True, random_state=seeds.derive(seed, "folds"))
    table = units[["unit_id", "group_id"]].assign(fold=-1)
    for fold, (_, held_out) in enumerate(splitter.split(units, _common(units["stratum"], k), units["group_id"])):
        table.iloc[held_out, 2] = fold
    return table if table["fold"].nunique() == k else _spread(table, k)


def fingerprint(table: pd.DataFrame) -> str:
    """Return 16 hex digits that depend on which unit is in which fold, not on the order of rows."""
    rows = table.sort_values("unit_id")
    return files.fingerprint(rows["unit_id"].tolist(), rows["fold"].tolist())


def load(path: Path, units: pd.DataFrame) -> pd.DataFrame:
    """Read folds.parquet in the order of the units; folds of other units are refused."""
    table = read_folds(path)[COLUMNS].set_index("unit_id", drop=False)
    per_group = table.groupby("group_id")["fold"].nunique()
    if (per_group > 1).any():
        raise DataError(f"{path}: group_id {per_group.index[per_group > 1][0]} is in more than one fold")
    if set(table.index) != set(units["unit_id"]):
        raise ConfigError(
            f"{path}: folds of {len(table)} other units; the data has {len(units)}. Choose another --study"
        )
    return table.loc[units["unit_id"]].reset_index(drop=True)


def _common(strata: pd.Series, k: int) -> pd.Series:
    """Merge strata with fewer than k units, which the splitter cannot balance.

    First with each other, and what is still too few with the most common one.
    """
    for merged in ("rare", strata.mode()[0]):
        strata = strata.where(strata.map(strata.value_counts()) >= k, merged)
    return strata


def _spread(table: pd.DataFrame, k: int) -> pd.DataFrame:
    """Deal the groups out by size, largest first: with few patients the splitter leaves folds empty."""
    sizes = table["group_id"].value_counts(sort=True)
    load_of_fold = np.zeros(k)
    fold_of = {}
    for group, size in sizes.items():
        fold_of[group] = int(load_of_fold.argmin())
        load_of_fold[fold_of[group]] += size
    return table.assign(fold=table["group_id"].map(fold_of))
