"""The Python examples of the pages work as shown."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import hms_ray as hr
from hms_ray.ensemble import Ensemble

Blocks = Callable[[Path, str], list[str]]


def test_the_examples_name_what_there_is(repository: Path, fenced_blocks: Blocks) -> None:
    for page in (repository / "README.md", *sorted((repository / "docs").glob("*.md"))):
        for example in fenced_blocks(page, "python"):
            compile(example, page.name, "exec")
            assert set(re.findall(r"\bhr\.(\w+)", example)) <= set(hr.__all__), page.name
            assert set(re.findall(r"\bstudy\.(\w+)", example)) <= set(dir(hr.Study)), page.name


def test_the_functions_and_members_of_the_tables_exist(repository: Path) -> None:
    text = (repository / "docs" / "python.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`hr\.(\w+)", text)) <= set(hr.__all__)
    assert set(re.findall(r"^\| `\.(\w+)", text, re.MULTILINE)) <= set(dir(hr.Study))


def test_the_ensemble_example_runs_in_fifteen_lines(
    repository: Path, fenced_blocks: Blocks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = fenced_blocks(repository / "docs" / "python.md", "python")
    [example] = [block for block in examples if "import Ensemble, fit" in block]
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(example, names)
    pooled, ensemble = names["pooled"], names["ensemble"]
    assert isinstance(pooled, np.ndarray) and isinstance(ensemble, Ensemble)
    assert pooled.shape == (10, 6)
    assert ensemble.interval_ is not None and ensemble.gap_ is not None
    assert ensemble.interval_[0] < ensemble.score_cross_fitted_ < ensemble.interval_[1]
    assert ensemble.gap_ < 1e-9
