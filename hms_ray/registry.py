"""Find a component by name: the file name is the registry key.

`load("models", "basic_cnn")` imports `hms_ray/models/basic_cnn.py`. A file whose name starts with `_` is a helper
that siblings share, not an entry. Nothing is registered at run time, so a worker process finds what the driver found.
"""

import importlib
import os
import pkgutil
from functools import cache
from types import ModuleType

from hms_ray.core.errors import ConfigError
from hms_ray.core.hints import unknown

CALLED = {
    "models": "model",
    "features": "feature",
    "augment": "augmentation",
    "datasets": "dataset",
    "pools": "pool",
}
PACKAGES = {"pools": "ensemble.pools"}  # a kind that is no package of its own


def package_of(kind: str) -> str:
    """Return the package of a kind's entries, by its name below `hms_ray`."""
    return PACKAGES.get(kind, kind)


def names(kind: str) -> list[str]:
    """Return the entries of a kind ("models", "augment", ...) in alphabetical order."""
    package = importlib.import_module(f"hms_ray.{package_of(kind)}")
    return list(_listed(tuple((folder, _changed(folder)) for folder in package.__path__)))


def _changed(folder: str) -> int | None:
    """Return when files of a folder came or went last; None: it is no folder."""
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return None


@cache
def _listed(folders: tuple[tuple[str, int | None], ...]) -> tuple[str, ...]:
    """Return the entries in those folders, which are listed once as long as nothing comes or goes."""
    found = pkgutil.iter_modules([folder for folder, _ in folders])
    return tuple(sorted(module.name for module in found if not module.name.startswith("_")))


def load(kind: str, name: str) -> ModuleType:
    """Import the entry `name` of `kind`.

    Raises:
        ConfigError: no such entry; the message lists those that exist.
    """
    if name not in names(kind):
        raise ConfigError(unknown(CALLED.get(kind, f"{kind} entry"), name, names(kind)))
    return importlib.import_module(f"hms_ray.{package_of(kind)}.{name}")
