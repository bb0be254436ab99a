"""One reader for each table of a study, which refuses what is not as it was written."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hms_ray.core import files
from hms_ray.core.errors import DataError
from hms_ray.study import tables

FOLDS = pd.DataFrame({"unit_id": ["a", "b", "c"], "group_id": ["p", "p", "q"], "fold": [0, 0, 1]})
EPOCHS = pd.DataFrame(
    {
        "fold": [1, 0, 0],
        "stage": 0,
        "epoch": [1, 2, 1],
        "train_loss": [0.5, np.nan, np.inf],
        "score": [0.5, np.nan, 0.7],
        "lr": [0.1, None, 0.1],
        "seconds": 1.0,
        "memory_gb": 0.0,
    }
)


def written(folder: Path, table: pd.DataFrame) -> Path:
    files.write_table(folder / "table.parquet", table)
    return folder / "table.parquet"


def test_sound_tables_are_read_whole(tmp_path: Path) -> None:
    pd.testing.assert_frame_equal(tables.read_folds(written(tmp_path, FOLDS.assign(more=1))), FOLDS.assign(more=1))
    found = tables.read_epochs(written(tmp_path, EPOCHS))
    assert found[["fold", "epoch"]].to_numpy().tolist() == [[0, 1], [0, 2], [1, 1]]
    assert np.isinf(found["train_loss"][0]) and "memory_gb" in found


@pytest.mark.parametrize(
    ("column", "value", "sentence"),
    [
        ("unit_id", 1, "column 'unit_id' must hold text, but row 0 does not"),
        ("unit_id", None, "column 'unit_id' has an empty cell in row 0"),
        ("unit_id", "a", "unit_id a stands more than once"),
        ("fold", 0.5, "column 'fold' must hold whole numbers, but holds float64"),
        ("fold", "x", "column 'fold' must hold whole numbers"),
        ("fold", -1, "column 'fold' must lie from 0 to 1e\\+100, but is -1 in row 0"),
    ],
)
def test_a_column_that_is_not_as_its_schema_says_is_named(
    tmp_path: Path, column: str, value: Any, sentence: str
) -> None:
    with pytest.raises(DataError, match=rf"^\S*table\.parquet: {sentence}"):
        tables.read_folds(written(tmp_path, FOLDS.assign(**{column: value})))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.drop(columns=["score", "lr"]), "missing column 'score', 'lr'; it has 'fold', "),
        (lambda t: t.iloc[:0], "it has no rows"),
        (lambda t: pd.concat([t, t]), "fold 0 epoch 1 stands more than once|fold 1, epoch 1 stands more than once"),
        (lambda t: t.iloc[:2], r"fold 0 has the epochs \[2\]; it must have 1 to 1"),
        (lambda t: t.assign(score=1e308), r"column 'score' must lie from -1e\+100 to 1e\+100, but is 1e\+308 in row 0"),
        (lambda t: t.assign(score=np.inf), "column 'score' must lie"),
        (lambda t: t.assign(score="x"), "column 'score' must hold numbers"),
    ],
)
def test_curves_that_cannot_be_are_named(tmp_path: Path, change: Any, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        tables.read_epochs(written(tmp_path, change(EPOCHS)))


def test_columns_of_later_versions_may_be_missing_but_not_wrong(tmp_path: Path) -> None:
    later = EPOCHS.drop(columns="memory_gb").assign(skipped_steps=0)
    assert tables.read_epochs(written(tmp_path, later))["skipped_steps"].tolist() == [0, 0, 0]
    with pytest.raises(DataError, match="column 'skipped_steps' must hold whole numbers"):
        tables.read_epochs(written(tmp_path, later.assign(skipped_steps="x")))


def test_a_column_without_any_value_is_of_numbers(tmp_path: Path) -> None:
    assert tables.read_epochs(written(tmp_path, EPOCHS.assign(score=None)))["score"].isna().all()


def test_text_is_one_of_the_values_that_there_are(tmp_path: Path) -> None:
    schema = {"unit_id": tables.Column("text", among=("a", "b"))}
    with pytest.raises(DataError, match="column 'unit_id' must hold a, b, but holds 'c'"):
        tables.read(written(tmp_path, FOLDS), schema, key=())
