"""The base of every component's parameters: strict, frozen, and bounded, so that a typing error never passes."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from hms_ray.errors import ConfigError, raise_all


class Params(BaseModel):
    """Parameters of one component; unknown keys, wrong types and infinite numbers are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


P = TypeVar("P", bound=Params)


def parse(kind: type[P], values: Mapping[str, Any], where: str) -> P:
    """Build the parameters, or raise one ConfigError with every fault and its dotted path below `where`."""
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise_all(faults(error, where), ConfigError, "configuration")
        raise AssertionError("a ValidationError has at least one fault") from error


def faults(error: ValidationError, where: str = "") -> list[str]:
    """Word each fault as path, rule and value."""
    return [_fault(item, where) for item in error.errors(include_url=False)]


def _fault(item: dict[str, Any], where: str) -> str:
    path = ".".join(map(str, ((where,) if where else ()) + tuple(item["loc"]))) or "top level"
    if item["type"] == "missing":
        return f"{path}: missing"
    if item["type"] == "extra_forbidden":
        return f"{path}: unknown key (value {item['input']!r})"
    return f"{path}: {item['msg'].removeprefix('Value error, ')}, but got {item['input']!r}"
