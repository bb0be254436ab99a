"""The files of components that a space names: `model: {file: my_net.py}`, read relative to the space's own file."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hms_ray.core import source_files
from hms_ray.core.errors import ConfigError, raise_all

FILE = re.compile(r"(model|feature|data|(stages\.\d+\.)?augment\.[^.]+)\.file")


def with_files(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return a space's content whose base carries the files that its base, ranges and smoke run name.

    path: the space's own file

    Raises:
        ConfigError: lists the files that are not there or cannot be read.
    """
    kept, faults = {}, []
    for where, file in dict.fromkeys(_named(content)):
        try:
            kept[file] = source_files.read(file, path.parent)
        except ConfigError as error:
            faults.append(f"{where}: {error}")
    raise_all(faults, ConfigError, f"space {path.stem}")
    base = {key: value for key, value in content["base"].items() if key != "files"}
    return {**content, "base": base | ({"files": source_files.dump(kept)} if kept else {})}


def _named(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield where each file is named, and its path."""
    yield from _below(content["base"], "", "base.")
    search, smoke = (content.get(key) or {} for key in ("search", "smoke"))
    for path, item in search.items() if isinstance(search, Mapping) else ():
        options = item.get("choice") if isinstance(item, Mapping) else None
        for option in options if isinstance(options, list) else ():
            yield from _below(option, str(path), "search.")
    for path, value in smoke.items() if isinstance(smoke, Mapping) else ():
        yield from _below(value, str(path), "smoke.")


def _below(value: object, path: str, prefix: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str) and FILE.fullmatch(path):
        yield f"{prefix}{path}", value
    parts = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from _below(part, f"{path}.{key}" if path else str(key), prefix)
