"""One dimension of a search: a dotted path of the run and the values it may take."""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import optuna

from hms_ray.core import hints
from hms_ray.core.errors import shown

FORMS = {
    "uniform": "[low, high]",
    "log_uniform": "[low, high]",
    "int": "[low, high]",
    "choice": "[value, ...]",
}


@dataclass(frozen=True)
class Range(ABC):
    """Values of the run at `path`; `when`: it is only searched where these paths have one of these values."""

    path: str
    when: Mapping[str, tuple[Any, ...]]

    @abstractmethod
    def suggest(self, trial: optuna.trial.BaseTrial) -> Any:
        """Ask Optuna for a value."""

    @property
    @abstractmethod
    def ends(self) -> tuple[Any, ...]:
        """The values that must be valid for the whole range to be: both ends, or every choice."""

    @abstractmethod
    def encode(self, value: Any) -> Any:
        """Return Optuna's form of a value; ValueError where the value lies outside the range."""

    def decode(self, value: Any) -> Any:
        """Return the run's value of Optuna's form."""
        return value

    def has(self, value: Any) -> bool:
        """Whether the value lies inside the range."""
        try:
            self.encode(value)
        except ValueError:
            return False
        return True


@dataclass(frozen=True)
class FloatRange(Range):
    """A number between two ends, uniformly or on a log scale."""

    low: float
    high: float
    log: bool

    def suggest(self, trial: optuna.trial.BaseTrial) -> float:
        return trial.suggest_float(self.path, self.low, self.high, log=self.log)

    @property
    def ends(self) -> tuple[float, float]:
        return self.low, self.high

    def encode(self, value: Any) -> float:
        return float(_inside(self, value, _is_number(value) and self.low <= value <= self.high))


@dataclass(frozen=True)
class IntRange(Range):
    """A whole number between two ends."""

    low: int
    high: int

    def suggest(self, trial: optuna.trial.BaseTrial) -> int:
        return trial.suggest_int(self.path, self.low, self.high)

    @property
    def ends(self) -> tuple[int, int]:
        return self.low, self.high

    def encode(self, value: Any) -> int:
        return _inside(self, value, _is_whole(value) and self.low <= value <= self.high)


@dataclass(frozen=True)
class Choice(Range):
    """One of several values; a value may be a whole section of the run."""

    options: tuple[Any, ...]

    def suggest(self, trial: optuna.trial.BaseTrial) -> Any:
        return self.decode(trial.suggest_categorical(self.path, [_scalar(option) for option in self.options]))

    @property
    def ends(self) -> tuple[Any, ...]:
        return self.options

    def encode(self, value: Any) -> Any:
        return _scalar(_inside(self, value, value in self.options))

    def decode(self, value: Any) -> Any:
        return next(option for option in self.options if _scalar(option) == value)


def parse_range(path: str, content: Any) -> tuple[Range | None, list[str]]:
    """Return the range that a space describes under `search.<path>`, or None and its faults."""
    if not isinstance(path, str):
        return None, [f"search.{path}: must be a dotted path of the run, but is {path!r}"]
    if not isinstance(content, Mapping):
        return None, [f"search.{path}: must be a mapping such as {{uniform: [0, 1]}}, but got {shown(content)}"]
    forms = [key for key in content if key in FORMS]
    strange = [key for key in content if key not in FORMS and key != "when"]
    if len(forms) != 1 or strange:
        known = ", ".join(f"{form}: {shape}" for form, shape in FORMS.items())
        has = ", ".join(map(str, content)) or "none"
        hint = next(filter(None, (hints.hint(key, [*FORMS, "when"]) for key in strange)), "")
        return None, [f"search.{path}: needs exactly one of {known}, and optionally when; it has {has}{hint}"]
    when, fault = _parse_when(path, content.get("when", {}))
    fault = fault or _range_fault(forms[0], content[forms[0]])
    if fault:
        return None, [f"search.{path}: {fault}"]
    return _make(path, when, forms[0], content[forms[0]]), []


def _make(path: str, when: dict[str, tuple[Any, ...]], form: str, values: list[Any]) -> Range:
    if form == "choice":
        return Choice(path, when, tuple(values))
    low, high = values
    return (
        IntRange(path, when, low, high) if form == "int" else FloatRange(path, when, low, high, form == "log_uniform")
    )


def _range_fault(form: str, values: Any) -> str | None:
    if not isinstance(values, list) or not values:
        return f"{form} must be {FORMS[form]}, but got {shown(values)}"
    if form == "choice":
        if others := [key for key in _keys(values) if not isinstance(key, str)]:
            return f"choice: keys must be words, but got {shown(others[0])} in {shown(values)}"
        return (
            None if len({_scalar(v) for v in values}) == len(values) else f"choice names a value twice: {shown(values)}"
        )
    if len(values) != 2 or not all(map(_is_whole if form == "int" else _is_number, values)):
        numbers = "whole numbers" if form == "int" else "numbers"
        return f"{form} must be {FORMS[form]} of {numbers}, but got {shown(values)}"
    if not all(map(math.isfinite, values)):
        return f"{form}: both ends must be finite, but got {shown(values)}"
    if not values[0] < values[1]:
        return f"{form}: the low end must be below the high end, but got {shown(values)}"
    return "log_uniform: the low end must be above 0" if form == "log_uniform" and values[0] <= 0 else None


def _parse_when(path: str, when: Any) -> tuple[dict[str, tuple[Any, ...]], str | None]:
    if not isinstance(when, Mapping) or not all(isinstance(key, str) for key in when):
        return {}, f"when must be a mapping of path to value or values, but got {shown(when)}"
    return {key: tuple(value) if isinstance(value, list) else (value,) for key, value in when.items()}, None


def _inside(item: Range, value: Any, inside: bool) -> Any:
    if not inside:
        raise ValueError(f"{value!r} lies outside the range of {item.path}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _keys(value: Any) -> Iterator[Any]:
    """Yield the keys of all mappings in a value."""
    if isinstance(value, dict):
        yield from value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _keys(part)


def _scalar(option: Any) -> Any:
    """Return what Optuna can store as a category: the value itself, or a section as JSON."""
    return json.dumps(option, sort_keys=True) if isinstance(option, list | dict) else option
