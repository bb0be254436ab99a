"""A dataset that is a git repository: cloned once, with its licence's name; a clear sentence where it cannot be."""

import logging
import shutil
import subprocess
from pathlib import Path

import pytest

from hms_ray.core.errors import ConfigError
from hms_ray.datasets import _cloned, bmd_hs, hms
from hms_ray.simulate import simulate_hearts

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def _git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "published"
    simulate_hearts(folder, 8, 0, seconds=2.0)
    _git(folder, "init")
    _git(folder, "add", ".")
    _git(folder, "commit", "-m", "data")
    return folder


def test_a_repository_is_cloned_once_and_its_licence_told(
    repository: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url, cache = f"file://{repository}", tmp_path / "cache"
    with caplog.at_level(logging.INFO):
        folder = bmd_hs.locate(url, cache)
    assert "licence CC BY-NC-ND 4.0" in caplog.text and url in caplog.text
    assert "clone: " in caplog.text, "progress"
    assert len(bmd_hs.load(folder, bmd_hs.Params()).units) == 8
    shutil.rmtree(repository)
    assert bmd_hs.locate(url, cache) == folder, "the second time it is there"
    assert [path.name for path in (cache / "cloned").iterdir()] == [folder.name], "nothing else is left"


def test_a_repository_that_cannot_be_had_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be cloned \(.*nowhere.*\); check address and network"):
        bmd_hs.locate(f"file://{tmp_path}/nowhere", tmp_path / "cache")
    assert list((tmp_path / "cache" / "cloned").iterdir()) == []


def test_without_git_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="git is not installed"):
        bmd_hs.locate("file:///anything", tmp_path / "cache")


def test_without_data_the_published_repository_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(_cloned, "clone", lambda url, *rest: asked.append(url) or tmp_path)
    assert bmd_hs.locate(None, tmp_path) == tmp_path and asked == [bmd_hs.REPOSITORY]


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://github.com/a/b", True),
        ("git@github.com:a/b.git", True),
        ("/data/b", False),
        ("b", False),
        ("./a:b", False),
    ],
)
def test_addresses_are_told_from_folders(text: str, url: bool) -> None:
    assert _cloned.is_url(text) == url


def test_names_and_tokens_of_an_address_are_not_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), pytest.raises(ConfigError) as error:
        bmd_hs.locate("http://user:secret@localhost:1/x.git?token=secret", tmp_path)
    assert "secret" not in caplog.text + str(error.value) and "localhost:1/x.git" in str(error.value)


def test_an_address_is_no_folder_of_the_competition_and_its_token_is_not_told(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"--data https://host/hms\?\.\.\.: dataset hms is fetched from no address"
    ) as error:
        hms.locate("https://user:secret@host/hms?token=secret", tmp_path)
    assert "secret" not in str(error.value)
