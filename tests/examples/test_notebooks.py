"""The notebooks run as they are committed, offline, and hold no trace of where they ran."""

import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.ipynb"))
NUMBER = re.compile(r"-?\d+\.?\d*(?:e-?\d+)?")

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


@pytest.fixture(scope="module")
def tool(repository: Path) -> dict[str, Callable[..., Any]]:
    """The functions of the script that executes the notebooks."""
    return runpy.run_path(str(repository / "examples" / "execute.py"))


def outputs(notebook: nbformat.NotebookNode) -> list[list[str]]:
    """Return the kinds of outputs of each code cell."""
    return [[output.output_type for output in cell.outputs] for cell in notebook.cells if cell.cell_type == "code"]


def text(notebook: nbformat.NotebookNode) -> str:
    """Return all text of a notebook: sources, and outputs as text."""
    found = [cell.source for cell in notebook.cells]
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            found += [str(output.get("text", "")), str(output.get("data", {}).get("text/plain", ""))]
            found.append(str(output.get("data", {}).get("text/html", "")))
    return "\n".join(found)


@each
def test_a_notebook_runs_and_gives_the_outputs_it_shows(
    path: Path, tool: dict[str, Callable[..., Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(path.parents[1]), prepend=":")
    committed = nbformat.read(path, as_version=4)
    done = tool["execute"](nbformat.read(path, as_version=4), tmp_path)
    assert outputs(done) == outputs(committed), "run `python examples/execute.py` and look at what changed"
    # numbers may differ in their last digits between processors; words and tables may not
    assert [NUMBER.sub("#", line) for line in printed(done)] == [NUMBER.sub("#", line) for line in printed(committed)]


def printed(notebook: nbformat.NotebookNode) -> list[str]:
    """Return the lines that the cells print."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [line for cell in cells for output in cell.outputs for line in output.get("text", "").splitlines()]


@each
def test_a_notebook_is_committed_with_outputs_and_without_traces(
    path: Path, tool: dict[str, Callable[..., Any]]
) -> None:
    committed = nbformat.read(path, as_version=4)
    assert committed == tool["stripped"](nbformat.read(path, as_version=4))
    assert sum(map(len, outputs(committed))) >= 5
    shown = text(committed)
    assert re.findall(r"(?<![\w.])/(?:home|root|tmp|work|Users|usr|opt|var)\b", shown) == []
    assert re.findall(r"\b20\d\d-\d\d-\d\d\b", shown) == []
    assert path.stat().st_size < 200_000


@each
def test_a_notebook_links_pages_that_exist(path: Path) -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)", text(nbformat.read(path, as_version=4)))
    assert [link for link in links if not (path.parent / link).exists()] == []
