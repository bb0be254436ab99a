"""The pages name everything there is of a kind."""

from pathlib import Path

import pytest

from hms_ray import catalogue, cli
from hms_ray.report.page import SECTIONS


def missing(repository: Path, names: list[str], *pages: str) -> list[str]:
    """Return the names that stand on none of the pages."""
    text = "\n".join((repository / "docs" / page).read_text(encoding="utf-8") for page in pages)
    return [name for name in names if name not in text]


@pytest.mark.parametrize(
    ("kind", "pages"),
    [
        ("pools", ["ensemble.md"]),
        ("features", ["recordings.md", "heart-sounds.md"]),
        ("augmentations", ["training.md"]),
    ],
)
def test_a_page_names_all_of_a_kind(repository: Path, kind: str, pages: list[str]) -> None:
    assert missing(repository, catalogue.names(kind), *pages) == []


def test_the_commands_page_has_every_verb(repository: Path) -> None:
    _, verbs = cli._parser()
    assert missing(repository, [f"| `{verb}` |" for verb in verbs], "commands.md") == []


def test_the_report_page_has_every_section(repository: Path) -> None:
    assert missing(repository, [f"| {title} |" for title in SECTIONS.values()], "report.md") == []
