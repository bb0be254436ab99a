"""The code blocks of docs/extending.md: a small package of plug-ins, which tests install and run."""

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "extending.md"
PROJECT = "pyproject.toml"


def blocks() -> dict[str, str]:
    """Return the blocks that have a title, which is a file's name, by title."""
    return dict(re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```$', PAGE.read_text(encoding="utf-8"), re.M | re.S))


def write_files(folder: Path) -> Path:
    """Write every block into one folder, as for files without a package; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for title, text in blocks().items():
        (folder / title).write_text(text, encoding="utf-8")
    return folder


def write_package(folder: Path) -> Path:
    """Write the project of the package `hms_toy`; return its folder."""
    write_files(folder / "hms_toy")
    (folder / "hms_toy" / PROJECT).rename(folder / PROJECT)
    (folder / "hms_toy" / "__init__.py").write_text('"""Toy components."""\n')
    return folder
