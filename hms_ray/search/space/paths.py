"""Values at dotted paths of nested dicts and lists: `stages.0.lr`."""

import copy
from typing import Any

from hms_ray.core import hints
from hms_ray.core.errors import shown


def get(content: Any, path: str) -> Any:
    """Return the value at a dotted path; list items go by number. KeyError where there is none."""
    for key in path.split("."):
        content = content[_key(content, key)]
    return content


def put(content: Any, path: str, value: Any) -> None:
    """Set the value at a dotted path; all but the last key must exist, KeyError where one does not."""
    *parents, last = path.split(".")
    for key in parents:
        content = content[_key(content, key)]
    content[_key(content, last, new=True)] = copy.deepcopy(value)


def replaced(content: Any, path: str, value: Any) -> Any:
    """Return a copy with another value at a dotted path; errors as in `put`."""
    content = copy.deepcopy(content)
    put(content, path, value)
    return content


def covers(above: str, path: str) -> bool:
    """Whether setting `above` also sets `path`."""
    return path == above or path.startswith(f"{above}.")


def _key(content: Any, key: str, new: bool = False) -> Any:
    """Return the key as this container takes it, or raise KeyError with the whole story."""
    if isinstance(content, list) and key.isdecimal() and int(key) < len(content):
        return int(key)
    if isinstance(content, dict) and (new or key in content):
        return key
    if isinstance(content, dict):
        raise KeyError(f"no {key!r} in {list(content)}{hints.hint(key, content)}")
    if isinstance(content, list):
        raise KeyError(f"no {key!r} in a list of {len(content)}, numbered from 0")
    raise KeyError(f"no {key!r} in {shown(content)}")
