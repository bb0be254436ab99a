"""Renamed keys of spaces and studies: old names are still read, and a log line gives the new name."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

log = logging.getLogger(__name__)

UNTIL = "0.3"  # the first version that does not read the old names
RENAMED = {  # old path of a run -> new last key; * is any number
    "optim.head_lr": "head_lr_multiplier",
    "input.side": "covariates",
    "stages.*.watch": "early_stopping",
}
PATTERNS = [
    (re.compile(re.escape(old).replace(r"\*", r"\d+") + r"(?=\.|$)"), old.rpartition(".")[2], new)
    for old, new in RENAMED.items()
]


def path(old: str) -> str:
    """Return a dotted path of a run with the names of this version."""
    for pattern, last, new in PATTERNS:
        if match := pattern.match(old):
            head = match[0].removesuffix(last)
            _warn(f"{head}{last}", f"{head}{new}")
            return f"{head}{new}{old[match.end() :]}"
    return old


def values(content: Any, below: str = "") -> Any:
    """Return plain values of a run, or of its part at the path `below`, with the keys of this version.

    A mapping with both names of a key is unchanged, so that the old one is refused as unknown.
    """
    if isinstance(content, list):
        return [values(item, _joined(below, number)) for number, item in enumerate(content)]
    if not isinstance(content, Mapping):
        return content
    named = {key: _joined(below, key) for key in content}
    new = {key: _last(key, path(old)) if isinstance(key, str) else key for key, old in named.items()}
    new = {key: key if name != key and name in content else name for key, name in new.items()}
    return {new[key]: values(item, named[key]) for key, item in content.items()}


def _last(key: str, path: str) -> str:
    """Return the last key of a path, which is `key` unless it was renamed; a key may itself have dots."""
    return key if path.endswith(key) else path.rpartition(".")[2]


def space(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a space's content with the keys of this version: in its base, its ranges and their conditions."""
    new = dict(content)
    if "base" in new:
        new["base"] = values(new["base"])
    if isinstance(search := new.get("search"), Mapping):
        new["search"] = {_named(key): _range(str(key), item) for key, item in search.items()}
    if isinstance(smoke := new.get("smoke"), Mapping):
        new["smoke"] = {_named(key): values(item, str(key)) for key, item in smoke.items()}
    if isinstance(members := new.get("members"), Mapping):  # of a union, in study.json
        new["members"] = {name: values(base) for name, base in members.items()}
    return new


def _range(key: str, content: Any) -> Any:
    if not isinstance(content, Mapping):
        return content
    new = dict(content)
    if isinstance(options := new.get("choice"), list):
        new["choice"] = [values(option, key) for option in options]
    if isinstance(when := new.get("when"), Mapping):
        new["when"] = {_named(key): values(value, str(key)) for key, value in when.items()}
    return new


def _named(key: object) -> object:
    """Return a key of a mapping from a file; a key that is not text is unchanged, and its reader refuses it."""
    return path(key) if isinstance(key, str) else key


def _joined(below: str, key: object) -> str:
    return f"{below}.{key}" if below else str(key)


@cache
def _warn(old: str, new: str) -> None:
    log.warning("%s is now called %s; the old name works until version %s", old, new, UNTIL)
