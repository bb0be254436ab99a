"""Write the reference part of docs/spaces.md from the code: `python docs/generate_spaces.py`.

What stands above the marker is written by hand. Below it, each parameter has the type, default, bounds and description
that `hms-ray describe` shows. tests/docs/test_spaces.py fails when the page is stale.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hms_ray import catalogue, registry
from hms_ray.core.params import nested
from hms_ray.search.space.settings import SETTINGS
from hms_ray.training.run_config import Sections

PAGE = Path(__file__).with_name("spaces.md")
MARKER = "<!-- What follows is written by docs/generate_spaces.py from the code: change the descriptions there. -->"
COMPONENTS = {  # heading -> the kind of the catalogue, the kind of the registry
    "Data sets": ("datasets", "datasets"),
    "Features": ("features", "features"),
    "Models": ("models", "models"),
    "Augmentations": ("augmentations", "augment"),
}
HEAD = ("parameter", "type", "default", "bounds", "meaning")


def page(current: str) -> str:
    """Return the page with its reference part written anew."""
    by_hand, marker, _ = current.partition(MARKER)
    if not marker:
        raise SystemExit(f"{PAGE.name} lacks the line {MARKER!r}")
    return "\n".join([by_hand + MARKER, "", *_reference()])


def _reference() -> Iterator[str]:
    yield from ("## A run", "")
    yield "These are the keys of `base`. The sections `data`, `feature`, `model` and `augment` name components."
    yield ""
    yield from _table(row for row in catalogue.parameters(Sections) if "." not in row[0])
    fields = Sections.model_fields
    parts = {name: [kind for _, kind in nested(field.annotation)] for name, field in fields.items()}
    for name, kinds in parts.items():
        if kinds:
            yield from _section(name, kinds[0])
    for heading, (kind, entries) in COMPONENTS.items():
        yield from (f"## {heading}", "")
        for entry in catalogue.entries(kind):
            if entry.origin:  # it comes from another package
                continue
            yield from (f"### {entry.name}", "", _plain(entry.line), "")
            yield from _table(catalogue.parameters(registry.load(entries, entry.name).Params))
    yield from ("## Beside the run", "", "These sections stand beside `base`, at the top level of a space.", "")
    for name, params in SETTINGS.items():
        yield from _section(name, params)


def _section(name: str, kind: type[Any]) -> Iterator[str]:
    yield from (f"### {name}", "", _plain(f"{catalogue.SECTIONS[name].capitalize()}."), "")
    yield from _table(catalogue.parameters(kind))


def _table(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    lines = [f"| `{path}` | {' | '.join(map(_plain, cells))} |" for path, *cells in rows]
    if not lines:
        yield from ("No parameters.", "")
        return
    yield f"| {' | '.join(HEAD)} |"
    yield "|" + "---|" * len(HEAD)
    yield from (*lines, "")


def _plain(text: str) -> str:
    """Return a text whose characters mean nothing in a table of Markdown."""
    for character in "\\|<*[]{}":
        text = text.replace(character, {"<": "&lt;"}.get(character, f"\\{character}"))
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
