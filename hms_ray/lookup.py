"""Find a component by name: the file name is the registry key.

`load("models", "basic_cnn")` imports `hms_ray/models/basic_cnn.py`. A file whose name starts with `_` is a helper
that siblings share, not an entry. Nothing is registered at run time, so a worker process finds what the driver found.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Iterable
from types import ModuleType

from hms_ray.errors import ConfigError


def names(kind: str) -> list[str]:
    """Return the entries of a kind ("models", "augment", ...) in alphabetical order."""
    package = importlib.import_module(f"hms_ray.{kind}")
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))


def load(kind: str, name: str) -> ModuleType:
    """Import the entry `name` of `kind`.

    Raises:
        ConfigError: no such entry; the message lists those that exist.
    """
    if name not in names(kind):
        raise ConfigError(unknown(f"{kind} entry", name, names(kind)))
    return importlib.import_module(f"hms_ray.{kind}.{name}")


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Word the sentence for a name that is not among the known ones, with the nearest as a suggestion."""
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"no {what} named {name!r}; there are: {', '.join(known) or 'none'}.{hint}"
