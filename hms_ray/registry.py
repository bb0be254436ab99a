"""Find a component by name: a file of this package, a module of an installed package, or a file that a space names.

`load("models", "basic_cnn")` imports `hms_ray/models/basic_cnn.py`: the file name is the key. A file whose name starts
with `_` is a helper that siblings share, not an entry. An installed package adds entries as entry points of the groups
in GROUPS: `my_net = "my_package.net"` in the group `hms_ray.models` is the model `my_net`. A component in a file that a
space names (`hms_ray.core.source_files`) has the name "STEM@FINGERPRINT".

Nothing is registered at run time, so a worker process finds what the driver found, if it has the same packages.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Literal, overload

from hms_ray import contracts
from hms_ray.core import files, source_files
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
GROUPS = {  # of entry points
    "models": "hms_ray.models",
    "features": "hms_ray.features",
    "augment": "hms_ray.augment",
    "datasets": "hms_ray.datasets",
    "pools": "hms_ray.ensemble",
    "spaces": "hms_ray.search_spaces",
}


def package_of(kind: str) -> str:
    """Return the package of a kind's entries, by its name below `hms_ray`."""
    return PACKAGES.get(kind, kind)


def names(kind: str) -> list[str]:
    """Return the entries of a kind ("models", "augment", ...) in alphabetical order, those of other packages too."""
    return sorted({*_own(kind), *plugins(kind)})


def plugins(kind: str) -> Mapping[str, tuple[EntryPoint, ...]]:
    """Return the entry points of installed packages by name; two of one name are both there, for `load` to refuse."""
    return _entry_points(tuple(sys.path)).get(GROUPS.get(kind, ""), {})


@cache
def _entry_points(path: tuple[str, ...]) -> Mapping[str, Mapping[str, tuple[EntryPoint, ...]]]:
    """Return the entry points of each group by name; all packages are read, once for each `sys.path`."""
    every = entry_points()
    groups: dict[str, dict[str, tuple[EntryPoint, ...]]] = {group: {} for group in GROUPS.values()}
    for group, by_name in groups.items():
        for entry in every.select(group=group):
            by_name[entry.name] = (*by_name.get(entry.name, ()), entry)
    return groups


def _own(kind: str) -> tuple[str, ...]:
    package = importlib.import_module(f"hms_ray.{package_of(kind)}")
    return _listed(tuple((folder, _changed(folder)) for folder in package.__path__))


def _changed(folder: str) -> int | None:
    """Return when files of a folder came or went last; None: it is no folder."""
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return None


@cache
def _listed(folders: tuple[tuple[str, int | None], ...]) -> tuple[str, ...]:
    """Return the entries in those folders, which are listed once as long as nothing comes or goes."""
    modules = pkgutil.iter_modules([folder for folder, _ in folders])
    return tuple(sorted(module.name for module in modules if not module.name.startswith("_")))


@overload
def load(kind: Literal["models"], name: str) -> contracts.Model: ...
@overload
def load(kind: Literal["features"], name: str) -> contracts.Feature: ...
@overload
def load(kind: Literal["augment"], name: str) -> contracts.Augmentation: ...
@overload
def load(kind: Literal["datasets"], name: str) -> contracts.Dataset: ...
@overload
def load(kind: Literal["pools"], name: str) -> contracts.Pool: ...
@overload
def load(kind: Literal["tasks"], name: str) -> ModuleType: ...
def load(kind: str, name: str) -> object:
    """Import the entry `name` of `kind`, typed by the contract of the kind; errors as in `module`."""
    return module(kind, name)


def module(kind: str, name: str) -> ModuleType:
    """Import the entry `name` of `kind` and compare it with the contract of its kind.

    Raises:
        ConfigError: no such entry, the message lists those that exist; two of that name; it cannot be imported; or it
            breaks its contract.
    """
    if source := source_files.find(name):
        return _plugin(kind, f"{CALLED[kind]} {source.path}", source.module)
    entries = plugins(kind).get(name, ()) if isinstance(name, str) else ()
    if name not in _own(kind) and not entries:
        raise ConfigError(unknown(CALLED.get(kind, f"{kind} entry"), name, names(kind)))
    if len(origins := places(kind, name)) > 1:
        raise ConfigError(f"two {CALLED[kind]}s are named {name!r}: {' and '.join(origins)}; uninstall one")
    if not entries:
        component = importlib.import_module(f"hms_ray.{package_of(kind)}.{name}")
        _check(kind, f"{CALLED.get(kind, kind)} {name}", component)
        return component
    [entry] = entries
    where = f"{CALLED[kind]} {name} of {distribution(entry)}"
    if entry.attr:
        raise ConfigError(f"{where}: its entry point must name a module, but is {entry.value!r}")
    return _plugin(kind, where, entry.module)


def _plugin(kind: str, where: str, dotted: str) -> ModuleType:
    """Import a module of somebody else; whatever goes wrong becomes one sentence that begins with `where`."""
    try:
        component = importlib.import_module(dotted)
    except SyntaxError as error:
        raise ConfigError(f"{where}: {error.msg} ({error.filename}, line {error.lineno})") from error
    except Exception as error:
        raise ConfigError(f"{where}: importing it raised {type(error).__name__}: {error}{_raised_at(error)}") from error
    _check(kind, where, component)
    return component


def _raised_at(error: Exception) -> str:
    """Return the innermost place that an error comes from, "" where that is Python's own import."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        place, trace = f" ({trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno})", trace.tb_next
    return "" if "importlib" in place else place


@cache
def _check(kind: str, where: str, module: ModuleType) -> None:
    """Check a module once; one that breaks its contract is checked each time, since an error is not cached."""
    path = f" ({module.__file__})" if getattr(module, "__file__", None) else ""
    contracts.check(kind, module, f"{where}{path}")


def simulator(name: str) -> Callable[..., None]:
    """Return the function that writes simulated recordings of a dataset.

    Raises:
        ConfigError: the dataset has no simulation.
    """
    dataset = load("datasets", name)
    if not isinstance(dataset, contracts.Simulated):
        raise ConfigError(f"dataset {name} has no simulated recordings; name a folder with --data")
    return dataset.simulated


def is_added(kind: str, name: str) -> bool:
    """Whether an installed package or a file adds the component."""
    return source_files.find(name) is not None or name in plugins(kind)


def places(kind: str, name: str) -> list[str]:
    """Return where an entry is registered, in words: this package, or other packages."""
    own = ["hms_ray itself"] if kind != "spaces" and name in _own(kind) else []
    return own + [f"{distribution(entry)} ({entry.value})" for entry in plugins(kind).get(name, ())]


def distribution(entry: EntryPoint) -> str:
    """Return the installed package that has an entry point, with its version."""
    return f"package {entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown package"


def name_of(kind: str, module: str) -> str:
    """Return the name under which a component is registered, by the dotted name of its module."""
    registered = (name for name, entries in plugins(kind).items() for entry in entries if entry.module == module)
    return next(registered, module.rpartition(".")[2])


def space_files() -> dict[str, Path]:
    """Return the file of each space that an installed package has, there or not, by name.

    The entry point of a space names a package, whose folder holds NAME.yaml.
    """
    paths: dict[str, Path] = {}
    for name, entries in plugins("spaces").items():
        for folder in _folders(entries[0].module):
            paths.setdefault(name, folder / f"{name}.yaml")
    return paths


def module_file(entry: EntryPoint) -> Path | None:
    """Return the file of an entry point's module, found without importing anything; None where there is none."""
    above, _, last = entry.module.rpartition(".")
    folders = list(_folders(above)) if above else []
    candidates = [path for folder in folders for path in (folder / f"{last}.py", folder / last / "__init__.py")]
    if not above and (spec := _top_level(last)) and spec.origin:
        candidates = [Path(spec.origin)]
    return next((path for path in candidates if path.is_file()), None)


def _folders(package: str) -> Iterator[Path]:
    """Yield the folders of a package, found without importing it."""
    top, *below = package.split(".")
    spec = _top_level(top)
    for folder in (spec and spec.submodule_search_locations) or ():
        yield Path(folder, *below)


def _top_level(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None


@cache
def code(kind: str, name: str) -> Mapping[str, str]:
    """Return the fingerprint of each file of an entry that an installed package has; {} for any other.

    These are the files of the package that holds the module, or its one file. `core.provenance` has the files of this
    package, and the name of a component in a file holds its fingerprint.
    """
    entries = plugins(kind).get(name, ())
    path = module_file(entries[0]) if entries else None
    if path is None:
        return {}
    is_package = "." in entries[0].module or path.name == "__init__.py"
    paths = sorted(path.parent.rglob("*.py")) if is_package else [path]
    return {
        f"{entries[0].module}: {each.relative_to(path.parent)}": files.fingerprint(each.read_bytes()) for each in paths
    }
