"""The pages of docs/ build as a site without a warning, and without a network."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def site(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly: a warning, such as a link to nowhere, is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout + done.stderr == ""
    return folder


def test_every_page_is_built(repository: Path, site: Path) -> None:
    pages = {path.stem for path in (repository / "docs").glob("*.md")} - {"index"}
    assert pages == {path.parent.name for path in site.glob("*/index.html")}
    assert (site / "images" / "report.png").is_file()
    assert list(site.rglob("*.py")) == []


def test_a_page_loads_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img)[^>]*\ssrc=\"?([^\"\s>]+)", text)
        loaded += re.findall(r"<link[^>]*rel=\"?stylesheet\"?[^>]*href=\"?([^\"\s>]+)", text)
        assert [address for address in loaded if "//" in address] == [], page


def test_pages_that_other_pages_name_exist(repository: Path) -> None:
    for page in (repository / "docs").glob("*.md"):
        links = re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8"))
        assert [link for link in links if not (repository / "docs" / link).exists()] == [], page.name


def test_the_picture_is_small(repository: Path) -> None:
    assert (repository / "docs" / "images" / "report.png").stat().st_size < 200_000
