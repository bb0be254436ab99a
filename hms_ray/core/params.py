"""The base of every component's parameters: strict, frozen, and bounded, so that a typing error never passes.

YAML and JSON know lists only: a field that is a tuple takes a list, and `model_dump` gives one back.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
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
from pydantic_core import ErrorDetails

from hms_ray.core import hints
from hms_ray.core.errors import ConfigError, raise_all, shown

UNKNOWN = ": unknown key"
SHOWN = 60  # characters of a value that a message repeats


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
        found = with_hints(faults(error, where), lambda: places(kind, where))
        raise_all(found, ConfigError, "configuration")
        raise AssertionError("a ValidationError has at least one fault") from error


def faults(error: ValidationError, where: str = "") -> list[str]:
    """Word each fault as path, rule and value."""
    return [_fault(item, where) for item in error.errors(include_url=False)]


def places(kind: type[BaseModel], where: str = "") -> Iterator[str]:
    """Yield the dotted path below `where` of each parameter, those of nested parameters included."""
    for name, field in kind.model_fields.items():
        path = f"{where}.{name}" if where else name
        yield path
        for suffix, inner in nested(field.annotation):
            yield from places(inner, path + suffix)


def with_hints(found: Iterable[str], known: Callable[[], Iterable[str]]) -> list[str]:
    """Add to each fault about an unknown key what was probably meant; known: gives the paths that exist."""
    found = list(found)
    unknown = [fault for fault in found if UNKNOWN in fault]
    paths = list(known()) if unknown else []
    return [f + hints.path_hint(f.partition(UNKNOWN)[0], paths) if f in unknown else f for f in found]


def nested(kind: Any, suffix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield the parameters that a type holds: those of a list lie below the number of its first item."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield suffix, kind
    elif get_origin(kind) is not dict:
        below = f"{suffix}.0" if get_origin(kind) in (list, tuple) else suffix
        for part in get_args(kind):
            yield from nested(part, below)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _lists(value: Any) -> Any:
    return list(map(_lists, value)) if isinstance(value, tuple) else value


def _fault(item: ErrorDetails, where: str) -> str:
    path = ".".join(map(str, ((where,) if where else ()) + tuple(item["loc"]))) or "top level"
    if item["type"] == "missing":
        return f"{path}: missing"
    if item["type"] == "extra_forbidden":
        value = repr(item["input"])
        return f"{path}{UNKNOWN}" + (f" (value {value})" if len(value) <= SHOWN else "")
    if item["type"] == "dict_type":
        return f"{path}: must be a mapping of keys to values, but got {shown(item['input'])}"
    rule = item["msg"].removeprefix("Value error, ")
    return f"{path}: {rule}" if rule.endswith("?") else f"{path}: {rule}, but got {shown(item['input'])}"
