"""What can be named in a space or on the command line, and its parameters: `hms-ray list`, `hms-ray describe`.

A list imports no entry: it takes the first line of each file's docstring. A description imports what it describes.
"""

import ast
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from hms_ray import registry
from hms_ray.core import hints
from hms_ray.core.errors import ConfigError
from hms_ray.search.space import locate

PACKAGE = Path(__file__).parent
CALLED = {"augmentations": "augment"}  # a kind, where the registry calls it otherwise
SECTIONS = {
    "stages": "a stage of training: which units, for how long, at which rate; a run has a list of them",
    "optim": "optimiser, batch size and averaging of weights, the same in all stages",
    "input": "what a model is given: prepared or computed while training, which window, numbers beside it",
    "quality": "which recordings are too bad to train on",
    "epoch_candidates": "the epochs of a fold whose weights may be chosen",
    "score": "the population that everything is scored on, and a trial's value",
    "budget": "how much a search may spend",
    "race": "which trials are stopped early",
    "sampler": "who proposes configurations",
    "resources": "what one worker takes",
    "log": "where else the curves go",
}
KINDS = ("spaces", "models", "features", "augmentations", "pools", "datasets", "sections")
OF_KIND = {kind: "data set" if kind == "datasets" else kind.removesuffix("s") for kind in KINDS}
USED = {
    "models": "model: {{name: {}}}",
    "features": "feature: {{name: {}}}",
    "augmentations": "augment: {{{}: {{}}}}",
    "datasets": "data: {{name: {}}}",
}
REQUIRED = "required"


@dataclass(frozen=True)
class Entry:
    """Something that can be named, with one line on what it is, and the packages that it comes from, if not this."""

    kind: str
    name: str
    line: str

    @property
    def origin(self) -> str:
        """Where it comes from, in brackets; "" for what this package has."""
        kind = CALLED.get(self.kind, self.kind)
        places = registry.places(kind, self.name) if self.name in registry.plugins(kind) else []
        return f"  [{' and '.join(places)}]" if places else ""


def entries(kind: str) -> list[Entry]:
    """Return the entries of a kind, in alphabetical order."""
    return [Entry(kind, name, _line(kind, name)) for name in names(kind)]


def names(kind: str) -> list[str]:
    """Return the names of a kind's entries, in alphabetical order."""
    if kind == "spaces":
        return sorted(locate.known())
    if kind == "sections":
        return sorted(SECTIONS)
    if kind == "pools":
        return ["auto", *_components(kind)]
    return _components(CALLED.get(kind, kind))


def listing(kinds: typing.Sequence[str] = KINDS) -> Iterator[str]:
    """Yield the lines of `hms-ray list`: the entries of these kinds with one line each."""
    for kind in kinds:
        found = entries(kind)
        width = max(len(entry.name) for entry in found)
        yield f"{kind}:"
        yield from (f"  {entry.name:{width}}  {entry.line}{entry.origin}" for entry in found)


def description(name: str) -> Iterator[str]:
    """Yield the lines of `hms-ray describe NAME`, of every kind that has an entry of that name.

    Raises:
        ConfigError: nothing has that name, or the space is faulty.
    """
    found = [Entry(kind, name, _line(kind, name)) for kind in KINDS if name in names(kind)]
    if not found:
        hint = hints.hint(name, [other for kind in KINDS for other in names(kind)])
        raise ConfigError(f"nothing is named {name!r}; `hms-ray list` shows what there is{hint}")
    for number, entry in enumerate(found):
        yield from [""] * (number > 0)
        yield f"{OF_KIND[entry.kind]} {entry.name}: {entry.line}{entry.origin}"
        yield from _details(entry)


def parameters(kind: type[Any], where: str = "") -> Iterator[tuple[str, str, str, str, str]]:
    """Yield path, type, default, bounds and description of each parameter, those of nested parameters included."""
    for name, field in kind.model_fields.items():
        path = f"{where}{name}"
        inner = _params_of(field.annotation)
        bounds = ", ".join(filter(None, map(_bound, field.metadata)))
        default = REQUIRED if field.is_required() else _spelled(field.get_default(call_default_factory=True))
        default = "its defaults" if inner and not field.is_required() and default != "null" else default
        yield path, _type(field.annotation), default, bounds, field.description or ""
        if inner:
            yield from parameters(inner, f"{path}.")


def _details(entry: Entry) -> Iterator[str]:
    if entry.kind == "spaces":
        yield from _space(entry.name)
    elif entry.kind == "pools":
        yield from _pool(entry.name)
    elif entry.kind == "sections":
        kind = _section(entry.name)
        yield from _table(parameters(kind, f"{entry.name}.{'0.' * (entry.name == 'stages')}"))
    else:
        module = registry.module(CALLED.get(entry.kind, entry.kind), entry.name)
        yield from _more(module)
        yield f"  in a space: {USED[entry.kind].format(entry.name)}"
        yield from _table(parameters(module.Params))


def _space(name: str) -> Iterator[str]:
    from hms_ray.search.space import space  # imports the network libraries

    found = space.load(name)
    yield f"  file: {locate.known()[name]}"
    if isinstance(found, space.Union):
        yield "  a union; a trial is of one of these spaces and has its ranges (`hms-ray describe SPACE`):"
        yield from (f"    {member.name}: {len(member.ranges)} ranges" for member in found.members)
    else:
        yield "  base:"
        yield from _indented({key: value for key, value in found.base.items() if value not in ({}, [])})
        yield "  search:" if found.search else "  search: nothing"
        yield from (f"    {path}: {_flow(content)}" for path, content in found.search.items())
    for section in ("budget", "race", "sampler", "resources"):
        yield f"  {section}: {_flow(getattr(found, section).model_dump())}"


def _pool(name: str) -> Iterator[str]:
    yield f"  hms-ray ensemble --study DIR --pool {name}"
    if name == "auto":
        return
    module = registry.module("pools", name)
    yield from _more(module)
    options = [
        (option.name, "number", _spelled(option.default), "", "of `fit`")
        for option in inspect.signature(module.fit).parameters.values()
        if option.kind is inspect.Parameter.KEYWORD_ONLY and isinstance(option.default, int | float)
    ]
    yield from _table(options)


def _section(name: str) -> type[Any]:
    from hms_ray.core.params import nested
    from hms_ray.search.space.settings import SETTINGS
    from hms_ray.training.run_config import Sections

    return (
        SETTINGS[name] if name in SETTINGS else next(kind for _, kind in nested(Sections.model_fields[name].annotation))
    )


def _line(kind: str, name: str) -> str:
    """Return what is said of an entry in one line."""
    if kind == "spaces":
        path = locate.known()[name]
        return _first_sentence(path) if path.is_file() else "(its package does not hold the file)"
    if kind == "sections":
        return SECTIONS[name]
    if (kind, name) == ("pools", "auto"):
        return "Several of these, combined by their nested score."
    kind = CALLED.get(kind, kind)
    entry_points = registry.plugins(kind).get(name)
    module = registry.module_file(entry_points[0]) if entry_points else _folder(kind) / f"{name}.py"
    try:
        return _first_line(module) if module else "(its package does not hold the module)"
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        return f"(cannot be read: {error})"


def _folder(kind: str) -> Path:
    return PACKAGE.joinpath(*registry.package_of(kind).split("."))


def _components(kind: str) -> list[str]:
    """Return the names of a kind as the registry has them, without importing anything."""
    own = {path.stem for path in _folder(kind).glob("*.py") if not path.name.startswith("_")}
    return sorted({*own, *registry.plugins(kind)})


def _first_line(path: Path) -> str:
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    return (doc or "").partition("\n")[0]


def _first_sentence(path: Path) -> str:
    """Return how a space's description begins; what is wrong with a file, its use says."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, ValueError):
        return "(not valid YAML)"
    text = str(content.get("description", "")) if isinstance(content, Mapping) else ""
    end = text.find(". ")
    return " ".join((text if end < 0 else text[: end + 1]).split())


def _more(module: types.ModuleType) -> Iterator[str]:
    """Yield the docstring of a file below its first line."""
    rest = inspect.cleandoc(module.__doc__ or "").partition("\n")[2].strip()
    yield from (f"  {line}".rstrip() for line in rest.splitlines())


def _table(rows: typing.Iterable[tuple[str, ...]]) -> Iterator[str]:
    rows = list(rows)
    if not rows:
        yield "  no parameters"
        return
    head = ("parameter", "type", "default", "bounds", "")
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(4)]
    for row in (head, *rows):
        cells = [f"{cell:{width}}" for cell, width in zip(row[:4], widths, strict=True)]
        yield f"  {'  '.join(cells)}  {row[4]}".rstrip()


def _indented(content: Mapping[str, Any]) -> Iterator[str]:
    for key, value in content.items():
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            yield f"    {key}:"
            yield from (f"      - {_flow(item)}" for item in value)
        else:
            yield f"    {key}: {_flow(value)}"


def _flow(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000).removesuffix("...\n").strip()


def _spelled(value: Any) -> str:
    if hasattr(value, "model_dump"):
        return "its defaults"
    if isinstance(value, tuple):
        value = [item.model_dump() if hasattr(item, "model_dump") else item for item in value]
    return _flow(value)


def _params_of(kind: Any) -> type[Any] | None:
    """Return the nested parameters that a type is, or holds one of."""
    if isinstance(kind, type) and hasattr(kind, "model_fields"):
        return kind
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return next(filter(None, map(_params_of, typing.get_args(kind))), None)
    return None


def _type(kind: Any) -> str:
    """Return a type as a space's author reads it."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if kind in NAMED:
        return NAMED[kind]
    if origin is Literal:
        return " | ".join(_flow(part) for part in parts)
    if origin in (types.UnionType, typing.Union):
        return " | ".join(_type(part) for part in parts)
    if origin in (list, tuple):
        parts = [part for part in parts if part is not Ellipsis]
        return f"[{', '.join(map(_type, parts))}{', ...' if origin is list or len(parts) == 1 else ''}]"
    if origin is dict or (isinstance(kind, type) and hasattr(kind, "model_fields")):
        return "mapping"
    if origin is typing.Annotated:
        return _type(parts[0])
    return getattr(kind, "__name__", str(kind))


NAMED: dict[Any, str] = {
    int: "whole number",
    float: "number",
    bool: "true | false",
    str: "text",
    type(None): "null",
    Any: "any",
}


def _bound(item: Any) -> str:
    """Word one bound of a field."""
    words: dict[str, Callable[[Any], str]] = {
        "ge": lambda value: f">= {value:g}",
        "gt": lambda value: f"> {value:g}",
        "le": lambda value: f"<= {value:g}",
        "lt": lambda value: f"< {value:g}",
        "multiple_of": lambda value: f"a multiple of {value:g}",
        "min_length": lambda value: f"at least {value}",
        "max_length": lambda value: f"at most {value}",
    }
    found = [word(getattr(item, name)) for name, word in words.items() if getattr(item, name, None) is not None]
    return ", ".join(found)
