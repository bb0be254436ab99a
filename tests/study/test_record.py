"""The schema of study.json and of the metadata of out-of-fold tables."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from hms_ray.core.errors import ConfigError, DataError
from hms_ray.study import record

STUDY: dict[str, Any] = {
    "versions": {"hms_ray": "0.1.0"},
    "task": {"kind": "votes", "classes": ["seizure", "other"]},
    "data": {"name": "hms", "root": "data", "fingerprint": "ab", "units": 4, "groups": 2, "params": {}},
    "folds": {"k": 2, "seed": 0, "fingerprint": "cd"},
    "score": {"min_votes": 10},
    "epoch": "cross_fitted",
    "spaces": {
        "toy": {"base": {"model": {"name": "basic_cnn"}}, "search": {}, "budget": {"trials": 2}, "description": ""}
    },
}
TABLE: dict[str, Any] = {
    "trial": "toy-0000",
    "space": "toy",
    "task": STUDY["task"],
    "data_fingerprint": "ab",
    "folds_fingerprint": "cd",
    "selected_on": [0],
    "epoch_rule": "last",
    "epochs": [2, 2],
}
PATH = Path("study.json")


def changed(content: dict[str, Any], dotted: str, value: Any) -> dict[str, Any]:
    content = copy.deepcopy(content)
    *parents, last = dotted.split(".")
    place = content
    for key in parents:
        place = place[key]
    place[last] = value
    return content


def test_a_sound_record_is_read_with_keys_of_later_versions_and_without_those_of_this_one() -> None:
    found = record.check_record(PATH, STUDY | {"of_tomorrow": 1})
    assert (found.schema_version, found.folds.k, found.spaces["toy"].base.model) == (0, 2, {"name": "basic_cnn"})
    assert found.task.task().classes == ("seizure", "other")


@pytest.mark.parametrize(
    ("dotted", "value", "sentence"),
    [
        ("task", None, "task: "),
        ("task.kind", "vote", "task.kind: must be one of binary, multilabel, votes, but got 'vote'"),
        ("task.classes", "x", "task.classes: "),
        ("task.classes", ["a", "a"], "task.classes: a class must stand once"),
        ("task.classes", ["a"], "task: the number of classes of a votes task must be 2 or more; got 1: a"),
        ("data.fingerprint", 3, "data.fingerprint: "),
        ("data.units", 0, "data.units: "),
        ("folds.k", "2", "folds.k: "),
        ("folds.k", 0, "folds.k: "),
        ("score.min_votes", -1, "score.min_votes: "),
        ("score.min_votes", 1e308, "score.min_votes: "),
        ("epoch", "first", "epoch: "),
        ("spaces", [], "spaces: "),
        ("spaces.toy.base", "x", "spaces.toy.base: "),
        ("spaces.toy.base.stages", {}, "spaces.toy.base.stages: "),
        ("versions", {"ray": 2}, "versions.ray: "),
    ],
)
def test_a_fault_names_file_key_and_value(dotted: str, value: Any, sentence: str) -> None:
    with pytest.raises(DataError, match=rf"^study\.json[^\n]*{re.escape(sentence)}"):
        record.check_record(PATH, changed(STUDY, dotted, value))


def test_all_faults_are_said_at_once() -> None:
    with pytest.raises(DataError) as caught:
        record.check_record(PATH, changed(changed(STUDY, "epoch", 1), "folds.k", None))
    assert "2 faults" in str(caught.value) and "put the file back from a copy" in str(caught.value)


def test_a_study_of_a_later_version_says_so() -> None:
    with pytest.raises(ConfigError, match=r"study\.json: its schema_version is 2, this hms-ray reads up to 1"):
        record.check_record(PATH, STUDY | {"schema_version": 2})


@pytest.mark.parametrize(
    ("key", "value"),
    [("trial", 1), ("task", None), ("selected_on", "x"), ("epochs", [0]), ("epoch_rule", "best of all")],
)
def test_edited_metadata_of_a_table_are_named(key: str, value: Any) -> None:
    path = Path("toy-0000.parquet")
    assert record.check_provenance(path, TABLE | {"pandas": "x"}) == TABLE
    with pytest.raises(DataError, match=rf"^toy-0000\.parquet: metadata: {key}"):
        record.check_provenance(path, TABLE | {key: value})
    without = {name: value for name, value in TABLE.items() if name != key}
    with pytest.raises(DataError, match=f"its metadata lacks {key}$"):
        record.check_provenance(path, without)
