"""ensemble.json is checked as a whole: a broken file is refused in words, one of the version before is still read."""

import json

import pytest

from hms_ray.core import files
from hms_ray.core.errors import ConfigError, DataError
from hms_ray.ensemble import fit_study
from hms_ray.ensemble.result import RENAMED, EnsembleResult


@pytest.fixture(scope="module")
def content(make_study, tmp_path_factory):
    """What the fit of a small study writes."""
    return fit_study(make_study(tmp_path_factory.mktemp("result")), pool="linear").model_dump(mode="json")


@pytest.fixture
def load(tmp_path):
    """Write JSON as a study's ensemble.json and load it."""

    def write_and_load(content):
        path = tmp_path / "ensemble" / "ensemble.json"
        files.write_text(path, json.dumps(content))
        return EnsembleResult.load(path)

    return write_and_load


def with_old_names(content):
    old = {new: key for key, new in RENAMED.items() if key != "kl"}
    if isinstance(content, list):
        return [with_old_names(item) for item in content]
    if isinstance(content, dict):
        return {old.get(key, key): with_old_names(item) for key, item in content.items() if key != "version"}
    return content


def test_what_is_written_is_read_back(content, load):
    assert load(content).model_dump(mode="json") == content


def test_old_names_are_read(content, load):
    assert load(with_old_names(content)).model_dump(mode="json") == content


def test_the_leading_score_is_moved_with_its_interval_by_the_correction(content, load):
    selection = {"configurations": 4, "kept": 2, "folds": [0], "units": 9, "groups": 3, "optimism": 0.2, "share": 0.5}
    score = content["score_cross_fitted"]
    result = load(content | {"selection": selection, "score_selection_corrected": score + 0.1})
    assert result.leading.value == pytest.approx(score + 0.1)
    assert result.leading.low == pytest.approx(content["interval"]["low"] + 0.1)
    lower = load(content | {"selection": selection, "score_selection_corrected": score - 0.1})
    assert lower.leading.value == score, "as version 1 could write it"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"members": 3}, "members: "),
        ({"members": []}, r"fitted must have 0 weights, one a member, but has \d"),
        ({"fitted": {"kind": "linear", "weights": [0.5, float("nan")], "gap": 0}}, r"fitted\.weights\.1.* finite"),
        ({"fitted": {"kind": "linear"}}, "fitted: a pool of kind 'linear' needs weights"),
        ({"fitted": {"kind": "none"}}, "fitted: .*none"),
        ({"score_in_sample": "0.5"}, "score_in_sample: .*'0.5'"),
        ({"interval": {"value": 0.5, "error": 0.1, "low": 0.4, "high": None}}, "low and high must both be numbers"),
        ({"candidates": 0}, "candidates: .* greater than or equal to 1"),
        ({"methods": []}, "methods: "),
        ({"extra": 1}, "extra: unknown key"),
        ({"population": None}, "population: "),
    ],
)
def test_a_broken_file_is_refused_with_key_and_command(content, load, change, sentence):
    with pytest.raises(
        DataError, match=rf"ensemble\.json \(run `hms-ray ensemble --study .*` again\): (?s:.*){sentence}"
    ):
        load(content | change)


def test_a_file_of_another_version_says_so(content, load):
    with pytest.raises(ConfigError, match="is of version 9, but this hms-ray reads version 2; run `hms-ray ensemble"):
        load(content | {"version": 9})
    with pytest.raises(ConfigError, match=r"earlier version; run `hms-ray ensemble .* again: it lacks pool, fitted"):
        load({"members": []})
    with pytest.raises(DataError, match="must be a JSON object, but is list"):
        load([])
