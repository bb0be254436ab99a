"""Fetching the competition's folder: each way in which it fails has one sentence that says what to do."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import requests

from hms_ray.core.errors import ConfigError
from hms_ray.datasets import _kaggle


class UnauthenticatedError(Exception):
    """As kagglehub.exceptions has it."""


class KaggleApiHTTPError(requests.HTTPError):
    """As kagglehub.exceptions has it."""

    def __init__(self, status: int) -> None:
        super().__init__(f"{status} Client Error.\n\nYou ...", response=SimpleNamespace(status_code=status))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A kagglehub in place of the real one."""
    module = ModuleType("kagglehub")
    monkeypatch.setitem(sys.modules, "kagglehub", module)
    return module


def test_the_folder_is_that_of_the_competition(hub: ModuleType, tmp_path: Path) -> None:
    folders = {"hms-harmful-brain-activity-classification": str(tmp_path)}
    hub.competition_download = folders.__getitem__
    assert _kaggle.fetch() == tmp_path


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (UnauthenticatedError("User is not authenticated"), r"no credentials; make a token at .* KAGGLE_USERNAME and"),
        (KaggleApiHTTPError(401), r"Kaggle refuses the credentials \(401\); check KAGGLE_API_TOKEN, .*kaggle.json$"),
        (KaggleApiHTTPError(403), r"Kaggle refuses the files \(403\); accept the .* rules .*-classification/rules$"),
        (KaggleApiHTTPError(500), r"500: 500 Client Error. You ...$"),
        (requests.ConnectionError("Max retries"), "no connection to www.kaggle.com; check the network"),
        (requests.ReadTimeout("15 s"), "no connection to www.kaggle.com; check the network"),
        (OSError(28, "No space left on device"), r"OSError: \[Errno 28\] No space left on device$"),
        (ValueError("Invalid Kaggle\ncredentials file"), "ValueError: Invalid Kaggle credentials file$"),
    ],
)
def test_each_failure_says_what_to_do(hub: ModuleType, error: Exception, sentence: str) -> None:
    def download(handle: str) -> str:
        raise error

    hub.competition_download = download
    with pytest.raises(ConfigError, match=f"^data from Kaggle: {sentence}") as caught:
        _kaggle.fetch()
    assert caught.value.__cause__ is error and "\n" not in str(caught.value)


def test_without_the_package_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(ConfigError, match=r"kagglehub is not installed; run `pip install kagglehub`$"):
        _kaggle.fetch()
