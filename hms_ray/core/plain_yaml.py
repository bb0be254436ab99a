"""Read the YAML of spaces, trials and `--set`: null, true, numbers, text, lists and mappings, within bounds.

Reading runs no code and takes bounded time: size, depth and the number of values, aliases written out, are limited.
"""

import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

import yaml

from hms_ray.core.errors import ConfigError, shown

T = TypeVar("T")
MAX_BYTES = 100_000  # the largest shipped space has 3,300
MAX_VALUES = 10_000  # with every alias written out
MAX_DEPTH = 40
MAX_DIGITS = 100
TAG = "tag:yaml.org,2002:"
UNREADABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")  # in no file name, no UTF-8


def load_yaml(path: Path) -> Any:
    """Read a YAML file in UTF-8; 1e-3 is a number, a date is text.

    Raises:
        ConfigError: it is not YAML, has other than plain values, repeats a key, or exceeds a limit; the message
            names file and line.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ConfigError(f"{path}: {size:,} bytes; a YAML file may have {MAX_BYTES:,}")
    try:
        return yaml.load(path.read_bytes().decode("utf-8"), _Loader)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not valid YAML: not UTF-8 text (byte {error.start})") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {_worded(error)}") from error


def parse_value(text: str) -> Any:
    """Read the value of `--set key=value` as YAML; bounds and errors as in `load_yaml`."""
    if len(text) > MAX_BYTES:
        raise ConfigError(f"--set: a value of {len(text):,} characters; it may have {MAX_BYTES:,}")
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set: {shown(text)} is not a YAML value: {_worded(error)}") from error


class _Loader(yaml.SafeLoader):
    """A loader that checks the limits while nodes are composed, before values are built from them."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own name and kind
        first: [(tag, pattern) for tag, pattern in resolvers if tag != f"{TAG}timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {}  # noqa: RUF012

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.level = 0
        self.extent: dict[yaml.Node, tuple[int, int]] = {}  # values and levels of each node, aliases written out

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        event = self.peek_event()
        mark = cast(yaml.Mark, event.start_mark)  # a loader in Python marks every event
        if isinstance(event, yaml.AliasEvent):
            node = cast(yaml.Node, super().compose_node(parent, index))
            if node not in self.extent:
                _refuse(f"the alias *{event.anchor} lies inside what it repeats", mark)
        else:
            self._check_depth(1, mark)
            self.level += 1
            node = cast(yaml.Node, super().compose_node(parent, index))
            self.level -= 1
            children = node.value if isinstance(node, yaml.SequenceNode) else []
            if isinstance(node, yaml.MappingNode):
                children = [part for pair in node.value for part in pair]
                keys = Counter((key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode))
                if twice := [key for (_, key), count in keys.items() if count > 1]:  # only the last value would count
                    _refuse(f"key {shown(twice[0])} is given twice; keep one", node.start_mark)
            extents = [self.extent[child] for child in children]
            depth = 1 + max((levels for _, levels in extents), default=0)
            self.extent[node] = 1 + sum(values for values, _ in extents), depth
        values, levels = self.extent[node]
        self._check_depth(levels, mark)
        if values > MAX_VALUES:
            _refuse(f"{values:,} values, aliases written out; at most {MAX_VALUES:,} are read", mark)
        return node

    def _check_depth(self, more: int, mark: yaml.Mark) -> None:
        if self.level + more > MAX_DEPTH:
            _refuse(f"lists and mappings inside each other more than {MAX_DEPTH} deep", mark)


_Loader.add_implicit_resolver(  # in YAML 1.1, 1e-3 is text, because it has no dot
    f"{TAG}float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _text(loader: _Loader, node: yaml.ScalarNode) -> str:
    text = loader.construct_scalar(node)
    if match := UNREADABLE.search(text):
        _refuse(f"the text {shown(text)} holds the character {match[0]!r}, which no text may", node.start_mark)
    return text


def _whole(loader: _Loader, node: yaml.ScalarNode) -> int:
    number = _number(loader, node, loader.construct_yaml_int, "a whole number")
    if abs(number) >= 2**63:
        _refuse(f"{shown(node.value)} is too large a whole number; it must lie between -2^63 and 2^63", node.start_mark)
    return number


def _real(loader: _Loader, node: yaml.ScalarNode) -> float:
    number = _number(loader, node, loader.construct_yaml_float, "a number")
    if not math.isfinite(number):
        _refuse(f"{shown(node.value)} is no finite number; quote it if it is text", node.start_mark)
    return number


def _truth(loader: _Loader, node: yaml.ScalarNode) -> bool:
    return _number(loader, node, loader.construct_yaml_bool, "true or false")


def _number(loader: _Loader, node: yaml.ScalarNode, construct: Callable[[yaml.ScalarNode], T], noun: str) -> T:
    """Return the value of a scalar; PyYAML raises errors of several types where the text is no such value."""
    try:
        if len(loader.construct_scalar(node)) <= MAX_DIGITS:
            return construct(node)
    except (ValueError, IndexError, KeyError, OverflowError):
        pass
    _refuse(f"{shown(node.value)} is not {noun}; quote it if it is text", node.start_mark)


def _other(_: _Loader, node: yaml.Node) -> NoReturn:
    tag = node.tag.replace(TAG, "!!")
    _refuse(f"{shown(tag)} is not read; write null, true, numbers, text, lists and mappings", node.start_mark)


for _tag, _constructor in {
    "null": yaml.SafeLoader.construct_yaml_null,
    "bool": _truth,
    "int": _whole,
    "float": _real,
    "str": _text,
    "seq": yaml.SafeLoader.construct_yaml_seq,
    "map": yaml.SafeLoader.construct_yaml_map,
}.items():
    _Loader.add_constructor(f"{TAG}{_tag}", _constructor)
_Loader.add_constructor(None, _other)


def _refuse(problem: str, mark: yaml.Mark | None) -> NoReturn:
    raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _worded(error: yaml.YAMLError) -> str:
    """Return the line number and the problem in one line."""
    if isinstance(error, yaml.reader.ReaderError):
        return f"the character {chr(error.character)!r} at position {error.position:,} may not stand in YAML"
    assert isinstance(error, yaml.MarkedYAMLError), "PyYAML has no others"
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}: " if mark else ""
    hint = "; indent with spaces" if "'\\t'" in str(error.problem) else ""
    text = " ".join(f"{error.context or ''} {error.problem or ''}".split())
    return where + (text if len(text) <= 300 else f"{text[:300]} ...") + hint
