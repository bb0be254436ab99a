"""What the README shows works as shown; the pages of docs/ are tested in tests/docs."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import hms_ray as hr


@pytest.fixture(scope="module")
def readme(repository: Path) -> str:
    return (repository / "README.md").read_text(encoding="utf-8")


def test_it_is_short(readme: str) -> None:
    assert len(readme.splitlines()) <= 250


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_the_files_it_links_exist(repository: Path, name: str) -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)", (repository / name).read_text(encoding="utf-8"))
    assert links and all((repository / link).exists() for link in links)


def test_it_links_every_page(readme: str, repository: Path) -> None:
    pages = {f"docs/{path.name}" for path in (repository / "docs").glob("*.md")} - {"docs/index.md"}
    assert pages <= set(re.findall(r"\]\(([^)]+)\)", readme))


def test_the_python_example_names_what_there_is(
    readme: str, repository: Path, fenced_blocks: Callable[[Path, str], list[str]]
) -> None:
    [example] = fenced_blocks(repository / "README.md", "python")
    compile(example, "README.md", "exec")
    assert set(re.findall(r"\bhr\.(\w+)", readme)) <= set(hr.__all__)
    assert set(re.findall(r"\bstudy\.(\w+)", example)) <= set(dir(hr.Study))


def test_contributing_names_every_room(repository: Path) -> None:
    table = (repository / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rooms = [path.parent.name for path in (repository / "hms_ray").glob("*/__init__.py")]
    assert [room for room in sorted(rooms) if f"| `hms_ray/{room}/` |" not in table] == []
