"""One dimension of a search: forms, faults, and values to Optuna and back."""

import optuna
import pytest

from hms_ray.search.space.ranges import Choice, FloatRange, IntRange, parse_range


def made(content, path="a.b"):
    item, faults = parse_range(path, content)
    assert faults == []
    return item


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"uniform": [0, 0.5]}, FloatRange("a.b", {}, 0, 0.5, False)),
        ({"log_uniform": [1e-5, 1]}, FloatRange("a.b", {}, 1e-5, 1, True)),
        ({"int": [-3, 7]}, IntRange("a.b", {}, -3, 7)),
        ({"choice": ["x", None, {"y": 1}]}, Choice("a.b", {}, ("x", None, {"y": 1}))),
        ({"choice": [1], "when": {"c": 2, "d": [3, None]}}, Choice("a.b", {"c": (2,), "d": (3, None)}, (1,))),
    ],
)
def test_each_form_is_read(content, expected):
    assert made(content) == expected


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (3, "must be a mapping"),
        (None, "must be a mapping"),
        ([0, 1], "must be a mapping"),
        ({}, "needs exactly one of"),
        ({"when": {}}, "needs exactly one of"),
        ({"uniform": [0, 1], "int": [0, 1]}, "needs exactly one of"),
        ({"uniform": [0, 1], "step": 1}, "needs exactly one of"),
        ({"normal": [0, 1]}, "needs exactly one of"),
        ({3: [0, 1]}, "needs exactly one of"),
        ({"uniform": [1, 0]}, "the low end must be below the high end"),
        ({"uniform": [1, 1]}, "the low end must be below the high end"),
        ({"uniform": [0]}, "must be [low, high]"),
        ({"uniform": [0, 1, 2]}, "must be [low, high]"),
        ({"uniform": 3}, "must be [low, high]"),
        ({"uniform": None}, "must be [low, high]"),
        ({"uniform": ["0", 1]}, "must be [low, high]"),
        ({"uniform": [True, 2]}, "must be [low, high]"),
        ({"uniform": [float("nan"), 2]}, "must be finite"),
        ({"uniform": [0.0, float("inf")]}, "must be finite"),
        ({"uniform": [float("-inf"), 1]}, "must be finite"),
        ({"int": [0.0, 3]}, "whole numbers"),
        ({"int": [0, True]}, "whole numbers"),
        ({"log_uniform": [0, 1]}, "must be above 0"),
        ({"log_uniform": [-1, 1]}, "must be above 0"),
        ({"choice": []}, "must be [value, ...]"),
        ({"choice": "abc"}, "must be [value, ...]"),
        ({"choice": [1, 1]}, "names a value twice"),
        ({"choice": [{"a": 1, "b": 2}, {"b": 2, "a": 1}]}, "names a value twice"),
        ({"choice": [1, {"a": {True: 1, "b": 2}}]}, "keys must be words, but got True"),
        ({"choice": [[{None: 1, "b": 2}], 1]}, "keys must be words, but got None"),
        ({"choice": [1], "when": 3}, "when must be a mapping"),
        ({"choice": [1], "when": None}, "when must be a mapping"),
        ({"choice": [1], "when": {3: 4}}, "when must be a mapping"),
    ],
)
def test_a_fault_names_the_path_and_the_rule(content, fault):
    item, faults = parse_range("a.b", content)
    assert item is None
    assert [f.startswith("search.a.b: ") and fault in f for f in faults] == [True], faults


def test_a_path_must_be_text():
    item, faults = parse_range(3, {"int": [0, 1]})
    assert item is None
    assert "must be a dotted path" in faults[0]


SECTIONS = [{"name": "basic_cnn", "width": 8}, {"name": "timm_image"}, [1, 2], "plain", 3, 2.5, True, None]


@pytest.mark.parametrize("option", SECTIONS)
def test_a_choice_goes_to_optuna_and_back(option):
    choice = made({"choice": SECTIONS})
    encoded = choice.encode(option)
    assert isinstance(encoded, str | int | float | bool | None)
    assert choice.decode(encoded) == option
    assert choice.suggest(optuna.trial.FixedTrial({"a.b": encoded})) == option


@pytest.mark.parametrize(
    ("content", "inside", "outside"),
    [
        ({"uniform": [0, 0.5]}, [0, 0.0, 0.25, 0.5], [-0.1, 0.6, "0.3", True, None]),
        ({"log_uniform": [1e-3, 1]}, [1e-3, 1], [0, 2]),
        ({"int": [1, 3]}, [1, 2, 3], [0, 4, 2.0, True, "2", None]),
        ({"choice": [1, "a", None, {"b": 1}]}, [1, "a", None, {"b": 1}], [2, "b", {"b": 2}]),
    ],
)
def test_values_inside_are_encoded_and_others_refused(content, inside, outside):
    item = made(content)
    for value in inside:
        assert item.decode(item.encode(value)) == value
    for value in outside:
        with pytest.raises(ValueError, match=r"a\.b"):
            item.encode(value)


@pytest.mark.parametrize("content", [{"uniform": [0.25, 0.5]}, {"log_uniform": [1e-3, 1e-2]}, {"int": [2, 4]}])
def test_suggestions_stay_within_both_ends(content):
    item = made(content)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    values = [item.suggest(study.ask()) for _ in range(60)]
    low, high = item.ends
    assert all(low <= value <= high for value in values)
    assert len(set(values)) > 2


def test_ends_are_what_must_be_valid():
    assert made({"uniform": [0, 0.5]}).ends == (0, 0.5)
    assert made({"choice": ["a", "b", "c"]}).ends == ("a", "b", "c")
