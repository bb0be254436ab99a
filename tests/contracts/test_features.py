"""What every feature keeps, for files that nobody has written yet as well."""

import inspect
import itertools
from pathlib import Path
from typing import Literal, get_args, get_origin

import numpy as np
import pytest

from hms_ray import lookup
from hms_ray.datasets import Dataset, hms
from hms_ray.errors import ConfigError
from hms_ray.params import Params, parse
from hms_ray.specs import InputSpec


@pytest.fixture(scope="module")
def dataset(hms_folder: Path) -> Dataset:
    """The tiny competition folder."""
    return hms.load(hms_folder, hms.Params(rows="eeg"))


def _each_choice(kind: type[Params]) -> list[Params]:
    """The parameters with every combination of the fields that are a choice."""
    fields = {key: field.annotation for key, field in kind.model_fields.items()}
    choices = {key: get_args(of) for key, of in fields.items() if get_origin(of) is Literal}
    return [kind(**dict(zip(choices, values, strict=True))) for values in itertools.product(*choices.values())]


NAMES = lookup.names("features")
EACH = [(name, params) for name in NAMES for params in _each_choice(lookup.load("features", name).Params)]
each_choice = pytest.mark.parametrize(("name", "params"), EACH, ids=[f"{name}-{params}" for name, params in EACH])
each = pytest.mark.parametrize("name", NAMES)


def _compute(name: str, dataset: Dataset, i: int, params: Params) -> np.ndarray:
    module = lookup.load("features", name)
    if module.KIND not in dataset.KINDS:
        pytest.skip(f"{name} is of {module.KIND}, which the tiny folder has not")
    return module.compute(dataset, i, params)


@each_choice
def test_examples_are_as_the_spec_says(name: str, params: Params, dataset: Dataset) -> None:
    spec = lookup.load("features", name).spec(params)
    assert isinstance(spec, InputSpec) and spec.rate_hz > 0
    if spec.panels is not None:
        assert spec.shape[spec.axis(spec.panels.axis)] % len(spec.panels.names) == 0
        assert sorted(spec.panels.mirrored()) == list(range(len(spec.panels.names)))
    for i in (0, len(dataset.units) - 1):  # the last one has a gap
        x = _compute(name, dataset, i, params)
        assert x.shape == spec.shape and x.dtype == np.float32
        assert np.isfinite(x).all() and np.abs(x).max() < np.finfo(np.float16).max, "it is kept in float16"


@each
def test_the_same_unit_gives_the_same_numbers_and_another_others(name: str, dataset: Dataset) -> None:
    params = lookup.load("features", name).Params()
    first, again, other = (_compute(name, dataset, i, params) for i in (0, 0, 5))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@each
def test_parameters_are_strict_and_told(name: str) -> None:
    kind = lookup.load("features", name).Params
    assert issubclass(kind, Params) and kind.model_config["extra"] == "forbid"
    with pytest.raises(ConfigError, match=r"feature\.no_such_key: unknown key"):
        parse(kind, {"no_such_key": 1}, "feature")
    assert all(field.description for field in kind.model_fields.values())


@each
def test_it_says_what_it_is(name: str) -> None:
    module = lookup.load("features", name)
    assert all(inspect.getdoc(thing) for thing in (module, module.Params, module.spec, module.compute))
    assert module.KIND and list(inspect.signature(module.compute).parameters) == ["dataset", "i", "params"]
