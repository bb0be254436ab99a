"""Collect the user's mistakes in many files, to report all of them in one error."""

from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

from hms_ray.core.errors import ConfigError, DataError, UserError, raise_all

P = ParamSpec("P")
T = TypeVar("T")


class Faults:
    """The mistakes so far; `len` counts them."""

    def __init__(self) -> None:
        self._errors: list[UserError] = []

    def __len__(self) -> int:
        return len(self._errors)

    def add(self, error: UserError) -> None:
        """Add one mistake."""
        self._errors.append(error)

    def attempt(self, call: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T | None:
        """Return the result of the call, or None where it raises a mistake, which is added."""
        try:
            return call(*arguments, **options)
        except UserError as error:
            self.add(error)
            return None

    def raise_any(self) -> None:
        """Raise all mistakes as one error, if there are any.

        Raises:
            ConfigError: only options and names are wrong.
            DataError: a file is wrong.
        """
        if len(self) == 1:
            raise self._errors[0]
        kind = DataError if any(isinstance(error, DataError) for error in self._errors) else ConfigError
        raise_all(map(str, self._errors), kind, "out-of-fold files")


def few(items: Iterable[object], limit: int = 5) -> str:
    """List the first items, and their number if there are more."""
    texts = [str(item) for item in items]
    return ", ".join(texts[:limit]) + (f" ... ({len(texts)} in all)" if len(texts) > limit else "")
