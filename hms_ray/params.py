"""The base of every component's parameters: strict, frozen, and bounded, so that a typing error never passes.

YAML and JSON know lists only: a field that is a tuple takes a list, and `model_dump` gives one back.
"""

from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
)

from hms_ray.errors import ConfigError, raise_all


class Params(BaseModel):
    """Parameters of one component; unknown keys, wrong types and infinite numbers are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    @field_validator("*", mode="before")
    @classmethod
    def _lists_are_taken(cls, value: Any, info: ValidationInfo) -> Any:
        """Make a tuple of a list where the field is a tuple."""
        wanted = cls.model_fields[info.field_name or ""].annotation
        return _tuples(value) if any(get_origin(kind) is tuple for kind in (wanted, *get_args(wanted))) else value

    @model_serializer(mode="wrap")
    def _lists_are_given(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Make lists of tuples: what is dumped equals what is read back from a file."""
        return {key: _lists(value) for key, value in dump(self).items()}


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


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _lists(value: Any) -> Any:
    return list(map(_lists, value)) if isinstance(value, tuple) else value


def _fault(item: dict[str, Any], where: str) -> str:
    path = ".".join(map(str, ((where,) if where else ()) + tuple(item["loc"]))) or "top level"
    if item["type"] == "missing":
        return f"{path}: missing"
    if item["type"] == "extra_forbidden":
        return f"{path}: unknown key (value {item['input']!r})"
    return f"{path}: {item['msg'].removeprefix('Value error, ')}, but got {item['input']!r}"
