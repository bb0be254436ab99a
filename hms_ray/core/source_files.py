"""Python files that a space names: kept as text, imported from the text, and sent along with what they define.

`model: {file: my_net.py}` executes `my_net.py`, and only because the user's own space names it: no folder is searched.
The text travels in the run, under `files` beside its fingerprint: to the workers, which may lie on other nodes, and
into the study, which can then be copied, resumed and used for predictions without the file. So whoever resumes or
predicts with the study of somebody else executes the code that it holds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType
from typing import Any, TypeVar

from hms_ray.core import files
from hms_ray.core.errors import ConfigError, DataError, raise_all, shown

T = TypeVar("T")
PREFIX = "hms_ray_file_"  # of the names of modules that are made of such files


@dataclass(frozen=True)
class SourceFile:
    """A component in a file. path: as the space has it, relative to the space's own file."""

    path: str
    text: str

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with the text."""
        return files.fingerprint(self.text)

    @property
    def name(self) -> str:
        """The component's name, "STEM@FINGERPRINT": a changed file is another component."""
        return f"{Path(self.path).stem}@{self.fingerprint}"

    @property
    def module(self) -> str:
        """The name of its module."""
        return _module(self.name)

    def __reduce__(self) -> tuple[object, ...]:
        return keep, (self.path, self.text)  # the process that receives it can import it from then on


_KEPT: dict[str, SourceFile] = {}  # by the name of the module


def keep(path: str, text: str) -> SourceFile:
    """Make a file known to this process, without executing it.

    Raises:
        ConfigError: no module can have the name of the file.
    """
    if not path.endswith(".py") or not Path(path).stem.isidentifier():
        raise ConfigError(f"{shown(path)}: must be a Python file with a name such as my_net.py")
    source = SourceFile(path, text)
    return _KEPT.setdefault(source.module, source)


def read(path: str, folder: Path) -> SourceFile:
    """Read a file that a space names; folder: the folder of the space's own file.

    Raises:
        ConfigError: there is no such file, or it is no text.
    """
    try:
        return keep(path, (folder / path).read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{folder / path}: must be a Python file in UTF-8 ({error})") from error
    except OSError as error:
        raise ConfigError(f"{folder / path}: {error.strerror}; the path is relative to the space's file") from error


def find(name: object) -> SourceFile | None:
    """Return the kept file of a component's name, None where there is none."""
    return _KEPT.get(_module(name)) if isinstance(name, str) and "@" in name else None


def dump(kept: Mapping[str, SourceFile]) -> dict[str, dict[str, str]]:
    """Return files by their path as plain values, as `restore` reads them."""
    return {path: {"fingerprint": source.fingerprint, "source": source.text} for path, source in kept.items()}


def restore(content: object, where: str) -> dict[str, SourceFile]:
    """Make the files of a run known to this process and return them by their path; errors begin with `where`.

    Raises:
        DataError: they are not what `dump` returned.
    """
    if not isinstance(content, Mapping):
        raise DataError(f"{where}: must be a mapping of paths, but is {shown(content)}")
    kept, faults = {}, []
    for path, item in content.items():
        if not isinstance(item, Mapping) or not all(
            isinstance(item.get(key), str) for key in ("fingerprint", "source")
        ):
            faults.append(f"{path}: must hold fingerprint and source, but is {shown(item)}")
            continue
        kept[str(path)] = keep(str(path), item["source"])
        if (fingerprint := kept[str(path)].fingerprint) != item["fingerprint"]:
            faults.append(f"{path}: its source was edited: its fingerprint is {fingerprint}, not {item['fingerprint']}")
    raise_all(faults, DataError, where)
    return kept


def sources_of(*classes: type) -> tuple[SourceFile, ...]:
    """Return the kept files that define these classes."""
    return tuple(_KEPT[kind.__module__] for kind in classes if kind.__module__ in _KEPT)


def rebuilt(sources: tuple[SourceFile, ...], kind: type[T], state: object) -> T:
    """Return an object that was pickled with the files of its class; these come first, so that it can be imported."""
    instance = kind.__new__(kind)
    restore_state: Callable[[Any], None] = getattr(instance, "__setstate__", instance.__dict__.update)
    restore_state(state)
    return instance


def _module(name: str) -> str:
    return f"{PREFIX}{name.replace('@', '_')}"


class _Importer(MetaPathFinder, InspectLoader):
    """Imports the modules of kept files."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self, origin=_KEPT[fullname].path) if fullname in _KEPT else None

    def get_source(self, fullname: str) -> str:
        return _KEPT[fullname].text

    def get_code(self, fullname: str) -> CodeType:
        source = _KEPT[fullname]
        return compile(source.text, source.path, "exec", dont_inherit=True)

    def is_package(self, fullname: str) -> bool:
        return False


sys.meta_path.append(_Importer())
