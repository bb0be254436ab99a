"""No patient crosses folds, every fold has its share, and the fingerprint knows who is where."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_ray.core import files
from hms_ray.core.errors import ConfigError, DataError
from hms_ray.study import folds


def _units(sizes: list[int], seed: int = 0) -> pd.DataFrame:
    """Units of patients with so many units each; a stratum is mostly the patient's own."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(len(sizes)), sizes)
    stratum = np.where(rng.random(len(group)) < 0.7, group % 4, rng.integers(0, 4, len(group)))
    return pd.DataFrame(
        {
            "unit_id": [f"u{i:04d}" for i in range(len(group))],
            "group_id": [f"p{g}" for g in group],
            "stratum": [f"class-{s}" for s in stratum],
        }
    )


MANY = _units(np.random.default_rng(0).integers(1, 12, 150).tolist())


def test_every_unit_has_a_fold_and_no_patient_two() -> None:
    table = folds.assign(MANY, 5, seed=0)
    assert table.columns.tolist() == ["unit_id", "group_id", "fold"]
    assert table["unit_id"].tolist() == MANY["unit_id"].tolist()
    assert sorted(table["fold"].unique()) == [0, 1, 2, 3, 4] and table["fold"].dtype == np.int64
    assert table.groupby("group_id")["fold"].nunique().max() == 1


def test_folds_are_balanced_in_size_and_stratum() -> None:
    table = folds.assign(MANY, 5, seed=0)
    shares = pd.crosstab(table["fold"], MANY["stratum"], normalize="columns")
    assert shares.to_numpy().min() > 0.15 and shares.to_numpy().max() < 0.25


def test_the_seed_decides() -> None:
    first = folds.assign(MANY, 5, seed=3)
    pd.testing.assert_frame_equal(folds.assign(MANY, 5, seed=3), first)
    assert (folds.assign(MANY, 5, seed=4)["fold"] != first["fold"]).any()
    assert folds.fingerprint(folds.assign(MANY, 5, seed=4)) != folds.fingerprint(first)


@pytest.mark.parametrize("sizes", [[4, 4, 4], [40, 1, 1], [1, 1, 1], [1, 30, 2]])
@pytest.mark.parametrize("seed", range(4))
def test_three_patients_in_three_folds_are_one_each(sizes: list[int], seed: int) -> None:
    table = folds.assign(_units(sizes), 3, seed)
    assert sorted(table.groupby("fold")["group_id"].unique().map(list).map(len)) == [1, 1, 1]


@pytest.mark.parametrize("seed", range(10))
def test_no_fold_is_empty_while_there_are_patients_enough(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 20, int(rng.integers(2, 9))).tolist()
    for k in range(2, len(sizes) + 1):
        table = folds.assign(_units(sizes, seed), k, seed)
        assert table["fold"].nunique() == k and table.groupby("group_id")["fold"].nunique().max() == 1


def test_the_folds_that_the_splitter_leaves_empty_are_filled() -> None:
    strata = [0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1, 0, 1, 1]  # found by search: the splitter fills 5 folds of 6
    units = _units([3, 2, 4, 4, 1, 2]).assign(stratum=[f"class-{s}" for s in strata])
    table = folds.assign(units, 6, seed=4)
    assert table.groupby("fold")["group_id"].nunique().tolist() == [1] * 6


def test_rare_strata_neither_fail_nor_warn() -> None:
    units = _units([5, 5, 5, 5, 5, 5]).assign(stratum=[f"rare-{i}" if i < 3 else "common" for i in range(30)])
    for strata in (units["stratum"], pd.Series([f"own-{i}" for i in range(30)])):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert folds.assign(units.assign(stratum=strata), 5, seed=0)["fold"].nunique() == 5


@pytest.mark.parametrize("k", [-1, 0, 1, 4])
def test_impossible_numbers_of_folds_are_refused(k: int) -> None:
    with pytest.raises(ConfigError, match=f"folds must be from 2 to the number of patients, 3, but got {k}"):
        folds.assign(_units([4, 4, 4]), k, seed=0)


def test_the_fingerprint_ignores_the_order_of_rows_but_not_the_folds() -> None:
    table = folds.assign(MANY, 5, seed=0)
    mark = folds.fingerprint(table)
    assert folds.fingerprint(table.sample(frac=1, random_state=0)) == mark
    moved = table.copy()
    moved.loc[0, "fold"] = (moved.loc[0, "fold"] + 1) % 5
    assert folds.fingerprint(moved) != mark
    assert folds.fingerprint(table.iloc[1:]) != mark


def test_saved_folds_come_back_in_the_order_of_the_units(tmp_path: Path) -> None:
    table = folds.assign(MANY, 5, seed=0)
    files.write_table(tmp_path / "folds.parquet", table.sample(frac=1, random_state=0))
    loaded = folds.load(tmp_path / "folds.parquet", MANY)
    pd.testing.assert_frame_equal(loaded[table.columns], table)
    assert folds.fingerprint(loaded) == folds.fingerprint(table)


def test_folds_of_other_units_are_refused(tmp_path: Path) -> None:
    files.write_table(tmp_path / "folds.parquet", folds.assign(MANY, 5, seed=0))
    with pytest.raises(ConfigError, match=f"folds of {len(MANY)} other units; the data has {len(MANY) - 1}"):
        folds.load(tmp_path / "folds.parquet", MANY.iloc[1:])


def test_broken_folds_are_named(tmp_path: Path) -> None:
    files.write_table(tmp_path / "folds.parquet", MANY[["unit_id", "group_id"]])
    with pytest.raises(DataError, match=r"folds\.parquet: missing column 'fold'"):
        folds.load(tmp_path / "folds.parquet", MANY)
    table = folds.assign(MANY, 5, seed=0)
    files.write_table(tmp_path / "folds.parquet", pd.concat([table, table.iloc[:1]]))
    with pytest.raises(DataError, match=r"folds\.parquet: unit_id u0000 stands more than once"):
        folds.load(tmp_path / "folds.parquet", MANY)
