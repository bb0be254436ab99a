"""Commands, programs, variables and files that a page names exist."""

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.__main__ import names as bench_names
from hms_ray import catalogue, cli

Blocks = Callable[[Path, str], list[str]]


def pages(repository: Path) -> list[Path]:
    """Return every page that a reader is sent to."""
    return [repository / "README.md", repository / "CONTRIBUTING.md", *sorted((repository / "docs").glob("*.md"))]


@pytest.fixture(scope="module")
def commands(repository: Path, fenced_blocks: Blocks) -> list[list[str]]:
    """The words of each line of a shell block, without comments and variables before the command."""
    lines = [line for page in pages(repository) for block in fenced_blocks(page, "bash") for line in block.splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [[*_without_variables(line)] for line in words if line]


def _without_variables(words: list[str]) -> Iterator[str]:
    begun = False
    for word in words:
        begun = begun or not re.fullmatch(r"[A-Z_]+=\S*", word)
        if begun:
            yield word


def test_commands_parse(commands: list[list[str]]) -> None:
    shown = [words for words in commands if words[0] == "hms-ray"]
    assert len(shown) > 10
    for verb, *words in (line[1:] for line in shown):
        parser, _ = cli._parser()
        arguments = parser.parse_args([verb, *words])
        assert set(getattr(arguments, "space", None) or ()) <= set(catalogue.names("spaces")), (verb, *words)


def test_make_targets_exist(repository: Path, commands: list[list[str]]) -> None:
    targets = re.findall(r"^([a-z]+):", (repository / "Makefile").read_text(), re.MULTILINE)
    shown = {word for words in commands if words[0] == "make" for word in words[1:] if "=" not in word}
    assert {"demo", "test"} <= shown <= set(targets)


def test_tests_that_a_command_runs_exist(repository: Path, commands: list[list[str]]) -> None:
    shown = {word for words in commands if "pytest" in words for word in words if word.startswith("tests")}
    assert shown
    assert [path for path in shown if not (repository / path).exists()] == []


def test_benches_exist(repository: Path) -> None:
    shown = {name for page in pages(repository) for name in re.findall(r"python -m bench ([a-z_]+)", page.read_text())}
    assert shown
    assert shown <= set(bench_names())
    table = (repository / "docs" / "benchmarks.md").read_text().partition("\nUnless")[0]
    assert set(bench_names()) == set(re.findall(r"`([a-z_]+)`", table))


def test_environment_variables_exist(repository: Path) -> None:
    folders = [repository / "hms_ray", repository / "tests"]
    code = "".join(path.read_text(encoding="utf-8") for folder in folders for path in folder.rglob("*.py"))
    shown = {name for page in pages(repository) for name in re.findall(r"\bHMS_RAY_[A-Z]+\b", page.read_text())}
    assert shown
    assert [name for name in sorted(shown) if f'"{name}"' not in code] == []


def test_files_in_code_font_exist(repository: Path) -> None:
    folders = "bench|cluster|docs|examples|hms_ray|search_spaces|tests"
    for page in pages(repository):
        shown = re.findall(rf"`((?:{folders})/[\w./-]+)`", page.read_text(encoding="utf-8"))
        shown = [path for path in shown if "NAME" not in path]
        assert [path for path in shown if not (repository / path).exists()] == [], page.name


def test_the_verbs_and_options_of_the_overview_exist(
    repository: Path, fenced_blocks: Blocks, capsys: pytest.CaptureFixture[str]
) -> None:
    [usage] = fenced_blocks(repository / "docs" / "commands.md", "text")
    assert "hms-ray simulate OUT" in usage
    for line in usage.strip().splitlines():
        verb = line.split()[1]
        with pytest.raises(SystemExit):
            cli.main([verb, "--help"])
        known = capsys.readouterr().out
        assert all(option in known for option in re.findall(r"--[a-z-]+", line)), line
