"""The user's mistakes in many files, gathered so that all of them are said at once."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from hms_ray.core.errors import ConfigError, DataError, UserError, raise_all

P = ParamSpec("P")
T = TypeVar("T")


class Faults:
    """What was wrong so far; `len` counts it."""

    def __init__(self) -> None:
        self._errors: list[UserError] = []

    def __len__(self) -> int:
        return len(self._errors)

    def add(self, error: UserError) -> None:
        """Note one mistake."""
        self._errors.append(error)

    def attempt(self, call: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T | None:
        """Return what the call returns, or None and note the mistake that it raised."""
        try:
            return call(*arguments, **options)
        except UserError as error:
            self.add(error)
            return None

    def raise_any(self) -> None:
        """Raise what was noted as one error; do nothing where nothing was.

        Raises:
            ConfigError: nothing but options and names is wrong.
            DataError: a file is wrong as well.
        """
        if len(self) == 1:
            raise self._errors[0]
        kind = DataError if any(isinstance(error, DataError) for error in self._errors) else ConfigError
        raise_all(map(str, self._errors), kind, "out-of-fold files")


def few(things: Any, limit: int = 5) -> str:
    """List the first things, and how many there are if that is more."""
    things = [str(thing) for thing in things]
    return ", ".join(things[:limit]) + (f" ... ({len(things)} in all)" if len(things) > limit else "")
