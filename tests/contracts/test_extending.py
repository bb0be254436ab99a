"""The examples of docs/extending.md: complete, checked by the linters, and each keeps its contract."""

import subprocess
import sys
from pathlib import Path

import pytest

from hms_ray import contracts, registry
from hms_ray.core import source_files
from tests.extending import PROJECT, blocks, write_files

KINDS = {
    "toy_net.py": "models",
    "toy_levels.py": "features",
    "toy_gain.py": "augment",
    "toy_sounds.py": "datasets",
    "toy_median.py": "pools",
}


def test_the_page_has_an_example_of_each_kind_and_a_package() -> None:
    assert set(blocks()) == {*KINDS, PROJECT, "toy.yaml", "toy_files.yaml"}
    assert set(KINDS.values()) == set(contracts.RULES) == set(registry.CALLED)
    groups = {line.split('"')[1] for line in blocks()[PROJECT].splitlines() if line.startswith("[project.entry")}
    assert groups == set(registry.GROUPS.values())


@pytest.mark.parametrize(("title", "kind"), KINDS.items())
def test_an_example_keeps_its_contract(title: str, kind: str) -> None:
    source = source_files.keep(title, blocks()[title])
    assert registry.module(kind, source.name).__doc__


@pytest.mark.parametrize(
    "command",
    [["ruff", "check"], ["ruff", "format", "--check"], ["mypy", "--strict", "--follow-imports=silent"]],
    ids=["lint", "format", "types"],
)
def test_the_examples_pass_the_checks_of_this_repository(tmp_path: Path, repository: Path, command: list[str]) -> None:
    files = [str(write_files(tmp_path) / title) for title in KINDS]
    config = {"ruff": "--config", "mypy": "--config-file"}[command[0]]
    argv = [sys.executable, "-m", *command, config, str(repository / "pyproject.toml"), *files]
    done = subprocess.run(argv, cwd=repository, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
