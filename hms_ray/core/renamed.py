"""Keys of spaces and studies that have a new name: the old one is still read, and a log line names the new one."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

log = logging.getLogger(__name__)

UNTIL = "0.3"  # the version that no longer reads the old names
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
    """Return a dotted path of a run as this version spells it."""
    for pattern, last, new in PATTERNS:
        if found := pattern.match(old):
            head = found[0].removesuffix(last)
            _warn(f"{head}{last}", f"{head}{new}")
            return f"{head}{new}{old[found.end() :]}"
    return old


def values(content: Any, below: str = "") -> Any:
    """Return plain values of a run, or of its part at the path `below`, with the keys of this version.

    What gives both names of one key is left as it is, so that the old one is refused as unknown.
    """
    if isinstance(content, list):
        return [values(item, _joined(below, number)) for number, item in enumerate(content)]
    if not isinstance(content, Mapping):
        return content
    named = {key: _joined(below, key) for key in content}
    new = {key: path(old).rpartition(".")[2] if isinstance(key, str) else key for key, old in named.items()}
    new = {key: key if name != key and name in content else name for key, name in new.items()}
    return {new[key]: values(item, named[key]) for key, item in content.items()}


def space(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a space's content with the keys of this version: in its base, its ranges and their conditions."""
    found = dict(content)
    if "base" in found:
        found["base"] = values(found["base"])
    if isinstance(search := found.get("search"), Mapping):
        found["search"] = {_named(key): _range(str(key), item) for key, item in search.items()}
    if isinstance(smoke := found.get("smoke"), Mapping):
        found["smoke"] = {_named(key): values(item, str(key)) for key, item in smoke.items()}
    if isinstance(members := found.get("members"), Mapping):  # of a union, as study.json keeps it
        found["members"] = {name: values(base) for name, base in members.items()}
    return found


def _range(key: str, content: Any) -> Any:
    if not isinstance(content, Mapping):
        return content
    found = dict(content)
    if isinstance(options := found.get("choice"), list):
        found["choice"] = [values(option, key) for option in options]
    if isinstance(when := found.get("when"), Mapping):
        found["when"] = {_named(key): values(value, str(key)) for key, value in when.items()}
    return found


def _named(key: object) -> object:
    """Return a key of a mapping from a file; what is no text is left for its reader to refuse."""
    return path(key) if isinstance(key, str) else key


def _joined(below: str, key: object) -> str:
    return f"{below}.{key}" if below else str(key)


@cache
def _warn(old: str, new: str) -> None:
    log.warning("%s is now called %s; the old name works until version %s", old, new, UNTIL)
