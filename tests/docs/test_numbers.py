"""Results are quoted as docs/benchmarks.md has them, which names the command that computes each."""

import re
from pathlib import Path

import pytest

QUOTING = ("README.md", "docs/race.md", "docs/ensemble.md", "docs/training.md")
RESULT = re.compile(r"(?<!\w)\.\d{3,}")


@pytest.mark.parametrize("page", QUOTING)
def test_a_result_is_that_of_the_benchmarks(repository: Path, page: str) -> None:
    known = set(RESULT.findall((repository / "docs" / "benchmarks.md").read_text(encoding="utf-8")))
    quoted = RESULT.findall((repository / page).read_text(encoding="utf-8"))
    assert quoted
    assert [number for number in quoted if number not in known] == []
