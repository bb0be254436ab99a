"""The base class of all parameters: strict and frozen, so that a wrong key or type is always an error.

YAML and JSON have only lists: a field that is a tuple accepts a list, and `model_dump` returns lists.
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

from hms_ray.core import hints, source_files
from hms_ray.core.errors import ConfigError, raise_all, shown

UNKNOWN = ": unknown key"
SHOWN = 60  # characters of a value in a message about an unknown key


class Params(BaseModel):
    """Parameters of one component; unknown keys, wrong types and infinite numbers are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    def __reduce__(self) -> tuple[object, ...]:
        # a class of a file that a space names travels with the file
        return source_files.rebuilt, (source_files.sources_of(type(self)), type(self), self.__getstate__())

    @field_validator("*", mode="before")
    @classmethod
    def _lists_are_taken(cls, value: Any, info: ValidationInfo) -> Any:
        """Convert a list to a tuple where the field is a tuple."""
        kind = cls.model_fields[info.field_name or ""].annotation
        return _tuples(value) if any(get_origin(k) is tuple for k in (kind, *get_args(kind))) else value

    @model_serializer(mode="wrap")
    def _lists_are_given(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Convert tuples to lists, so that dumped values equal those read back from a file."""
        return {key: _lists(value) for key, value in dump(self).items()}


P = TypeVar("P", bound=Params)


def parse(kind: type[P], values: Mapping[str, object], where: str) -> P:
    """Return the parameters, or raise one ConfigError with every fault and its dotted path below `where`."""
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        texts = with_hints(faults(error, where), lambda: places(kind, where))
        raise_all(texts, ConfigError, "configuration")
        raise AssertionError("a ValidationError has at least one fault") from error


def faults(error: ValidationError, where: str = "") -> list[str]:
    """Return a sentence for each fault: path, rule and value."""
    texts = []
    for item in error.errors(include_url=False):
        path = ".".join(map(str, ((where,) if where else ()) + tuple(item["loc"]))) or "top level"
        value = shown(item["input"])
        rule = item["msg"].removeprefix("Value error, ")
        if item["type"] == "missing":
            text = f"{path}: missing"
        elif item["type"] == "extra_forbidden":
            short = f" (value {value})" if len(value) <= SHOWN else ""
            text = f"{path}{UNKNOWN}{short}"
        elif item["type"] == "dict_type":
            text = f"{path}: must be a mapping of keys to values, but got {value}"
        else:
            text = f"{path}: {rule}" if rule.endswith("?") else f"{path}: {rule}, but got {value}"
        texts.append(text)
    return texts


def places(kind: type[BaseModel], where: str = "") -> Iterator[str]:
    """Yield the dotted path below `where` of each parameter, including nested parameters."""
    for name, field in kind.model_fields.items():
        path = f"{where}.{name}" if where else name
        yield path
        for suffix, inner in nested(field.annotation):
            yield from places(inner, path + suffix)


def with_hints(texts: Iterable[str], known: Callable[[], Iterable[str]]) -> list[str]:
    """Add a suggestion to each fault about an unknown key; known: returns the paths that exist."""
    texts = list(texts)
    paths = list(known()) if any(UNKNOWN in text for text in texts) else []
    return [text + hints.path_hint(text.partition(UNKNOWN)[0], paths) if UNKNOWN in text else text for text in texts]


def nested(kind: object, suffix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield the nested parameters of a type; those of a list lie below the number of its first item."""
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
