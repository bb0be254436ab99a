"""What an installed hms-ray consists of: code, search spaces, templates, one command, and a pin for everything."""

import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest


@pytest.fixture
def project(repository: Path) -> dict:
    return tomllib.loads((repository / "pyproject.toml").read_text())["project"]


def test_a_wheel_holds_the_search_spaces_and_the_templates(repository: Path, tmp_path: Path) -> None:
    build = ["egg_info", "--egg-base", str(tmp_path), "build_py", "--build-lib", str(tmp_path / "lib")]
    command = [sys.executable, "setup.py", "-q", *build]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    built = {path.relative_to(tmp_path / "lib") for path in (tmp_path / "lib").rglob("*") if path.is_file()}
    expected = {path.relative_to(repository) for path in (repository / "hms_ray").rglob("*.py")}
    expected |= {path.relative_to(repository) for path in (repository / "hms_ray" / "report").glob("*.j2")}
    expected.add(Path("hms_ray/py.typed"))
    expected |= {Path("hms_ray", "search_spaces", path.name) for path in (repository / "search_spaces").glob("*.yaml")}
    assert built == expected
    assert Path("hms_ray", "search_spaces", "demo.yaml") in built


def test_the_command_exists(project: dict) -> None:
    module, _, function = project["scripts"]["hms-ray"].partition(":")
    assert callable(getattr(import_module(module), function))


def test_every_dependency_is_pinned(project: dict, repository: Path) -> None:
    lines = (repository / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", pin) for pin in pins)
    names = {pin.partition("==")[0] for pin in pins}
    assert len(names) == len(pins)
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(requirement for extra in extras for requirement in extra)]
    assert {re.match(r"[a-z0-9-]+", requirement)[0] for requirement in wanted} <= names
