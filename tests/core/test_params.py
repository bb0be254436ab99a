"""Parameters are strict: what is not meant is refused, with path, rule and value."""

import json
from typing import Any, Literal

import pytest
import yaml
from pydantic import Field, ValidationError

from hms_ray.core.errors import ConfigError
from hms_ray.core.params import Params, parse


class Inner(Params):
    width: int = Field(16, ge=4, le=256)


class Outer(Params):
    rate: float = Field(0.1, ge=0, lt=1)
    pool: Literal[1, 2, 4] = 1
    on: bool = False
    inner: Inner = Inner()


def test_defaults_and_whole_numbers_for_floats_pass() -> None:
    assert parse(Outer, {}, "model") == Outer()
    assert parse(Outer, {"rate": 0}, "model").rate == 0.0


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"rat": 0.1}, "model.rat: unknown key (value 0.1); did you mean model.rate?"),
        ({"rate": "0.1"}, "model.rate: Input should be a valid number, but got '0.1'"),
        ({"rate": True}, "model.rate: Input should be a valid number, but got True"),
        ({"rate": float("nan")}, "model.rate: Input should be a finite number, but got nan"),
        ({"rate": float("inf")}, "model.rate: Input should be a finite number, but got inf"),
        ({"rate": 1}, "model.rate: Input should be less than 1, but got 1"),
        ({"pool": 3}, "model.pool: Input should be 1, 2 or 4, but got 3"),
        ({"on": 1}, "model.on: Input should be a valid boolean, but got 1"),
        ({"inner": {"width": 2}}, "model.inner.width: Input should be greater than or equal to 4, but got 2"),
        ({"inner": {"width": 8.0}}, "model.inner.width: Input should be a valid integer, but got 8.0"),
        ({1: 2}, "model.1: Keys should be strings, but got 1"),
    ],
)
def test_what_is_not_meant_is_refused(values: dict[Any, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Outer, values, "model")
    assert str(caught.value) == f"configuration: {sentence}"


def test_all_faults_come_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Outer, {"rate": -1, "inner": {"width": 0, "depth": 1}}, "model")
    assert str(caught.value).splitlines()[0] == "configuration: 3 faults"
    assert all(path in str(caught.value) for path in ("model.rate", "model.inner.width", "model.inner.depth"))


def test_parameters_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Outer().rate = 0.5


class Listed(Params):
    ends_s: tuple[float, float] = (1.0, 2.0)
    names: tuple[str, ...] | None = None
    pairs: tuple[tuple[str, int], ...] = ()
    inners: tuple[Inner, ...] = Field((Inner(),), max_length=2)
    tail: list[int] = Field(default_factory=list)


def test_a_tuple_is_written_as_a_list() -> None:
    values = {"ends_s": [0, 3.5], "names": ["a"], "pairs": [["a", 1]], "inners": [{"width": 4}, {}], "tail": [1]}
    params = parse(Listed, values, "feature")
    assert (params.ends_s, params.names, params.pairs, params.tail) == ((0.0, 3.5), ("a",), (("a", 1),), [1])
    assert params.inners == (Inner(width=4), Inner())


@pytest.mark.parametrize("values", [{}, {"names": ["a", "b"], "pairs": [["a", 1], ["b", 2]], "inners": []}])
def test_what_is_dumped_can_be_written_and_read_back(values: dict[str, Any]) -> None:
    params = parse(Listed, values, "feature")
    dumped = params.model_dump()
    for again in (dumped, yaml.safe_load(yaml.safe_dump(dumped)), json.loads(json.dumps(dumped))):
        assert again == dumped and parse(Listed, again, "feature") == params


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"ends_s": [1]}, "ends_s.1: missing"),
        ({"ends_s": "12"}, "ends_s: Input should be a valid tuple, but got '12'"),
        ({"ends_s": [1, "2"]}, "ends_s.1: Input should be a valid number, but got '2'"),
        ({"inners": [{}, {"width": 1}]}, "inners.1.width: Input should be greater than or equal to 4, but got 1"),
        ({"tail": (1,)}, "tail: Input should be a valid list, but got (1,)"),
    ],
)
def test_lists_are_as_strict_as_the_rest(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Listed, values, "feature")
    assert str(caught.value) == f"configuration: feature.{sentence}"
