"""docs/spaces.md describes the spaces of this version."""

import runpy
from collections.abc import Callable
from pathlib import Path

from hms_ray import catalogue
from hms_ray.search.space import space


def test_the_reference_is_that_of_the_code(repository: Path) -> None:
    written = (repository / "docs" / "spaces.md").read_text(encoding="utf-8")
    generated = runpy.run_path(str(repository / "docs" / "generate_spaces.py"))["page"](written)
    assert written == generated, "docs/spaces.md is stale: run `python docs/generate_spaces.py`"


def test_every_space_is_named(repository: Path) -> None:
    by_hand = (repository / "docs" / "spaces.md").read_text(encoding="utf-8").partition("<!--")[0]
    assert [name for name in catalogue.names("spaces") if name not in by_hand] == []


def test_the_space_it_shows_is_valid(
    repository: Path, fenced_blocks: Callable[[Path, str], list[str]], tmp_path: Path
) -> None:
    [content] = fenced_blocks(repository / "docs" / "spaces.md", "yaml")
    (tmp_path / "shown.yaml").write_text(content)
    shown = space.load(str(tmp_path / "shown.yaml"))
    assert [stage.min_votes for stage in shown.run.stages] == [1, 10]
    assert len(shown.ranges) == 3
