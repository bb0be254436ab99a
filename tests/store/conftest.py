"""A cache of its own for each test, and what counts the recordings that are read."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_ray.datasets import hms
from hms_ray.features import kaggle_spectrogram
from hms_ray.features._feature import FeatureRef
from hms_ray.store import prepare as preparing
from hms_ray.store.prepare import InputParams
from hms_ray.store.share import StoreRef

SMALL = FeatureRef("kaggle_spectrogram", kaggle_spectrogram.Params(pool=4))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, shared with nobody."""
    monkeypatch.setenv("HMS_RAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HMS_RAY_STORE", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def dataset(hms_folder: Path) -> hms.HmsDataset:
    """The shared tiny folder: 12 units of 6 spectrograms and 12 EEGs."""
    return hms.load(hms_folder, hms.Params(rows="eeg"))


@pytest.fixture
def small() -> FeatureRef:
    """A feature of spectrograms that is quickly computed."""
    return SMALL


@pytest.fixture
def prepare() -> Callable[..., tuple[StoreRef, ...]]:
    """Prepare without a word: prepare(dataset, feature=SMALL, progress=None, **input)."""
    return _prepare


def _prepare(
    dataset: hms.HmsDataset,
    feature: FeatureRef = SMALL,
    progress: Callable[[int, int], None] | None = None,
    **params: str,
) -> tuple[StoreRef, ...]:
    each = progress or (lambda done, total: None)
    return preparing.prepare(dataset, feature, InputParams(**params), lambda label: each)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The recordings that are read, as it happens."""
    names: list[str] = []
    read = hms.HmsDataset.read

    def counted(dataset: hms.HmsDataset, kind: str, name: str) -> np.ndarray:
        names.append(name)
        return read(dataset, kind, name)

    monkeypatch.setattr(hms.HmsDataset, "read", counted)
    return names


PREPARE = """
import os, signal, sys
from pathlib import Path
from hms_ray.datasets import hms
from hms_ray.features import kaggle_spectrogram
from hms_ray.store import workers
from hms_ray.features._feature import FeatureRef
from hms_ray.store.prepare import InputParams, prepare

workers.THREADS = 1
data = hms.load(Path(sys.argv[1]), hms.Params(rows="eeg"))
feature = FeatureRef("kaggle_spectrogram", kaggle_spectrogram.Params(pool=4))
def progress(done, total):
    {progress}
prepare(data, feature, InputParams(compute="{compute}"), lambda label: progress)
{then}
sys.stdout.flush()
os._exit(0)  # taking torch apart takes two seconds
"""


@pytest.fixture
def in_another_process(cache: Path) -> Callable[..., subprocess.Popen]:
    """Begin to prepare the small feature in a process: in_another_process(folder, progress, compute, then).

    progress, then: lines of Python for each piece that is written, and for the end
    """

    def begin(
        folder: Path, progress: str = "pass", compute: str = "prepared", then: str = "", **env: str
    ) -> subprocess.Popen:
        code = PREPARE.format(progress=progress, compute=compute, then=textwrap.dedent(then))
        env = os.environ | {"HMS_RAY_CACHE": str(cache), "PYTHONPATH": os.pathsep.join(sys.path)} | env
        command = [sys.executable, "-c", code, str(folder)]
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        return subprocess.Popen(command, env=env, text=True, **pipes)

    return begin


@pytest.fixture
def timed_folder(make_hms_folder: Callable[..., Path], tmp_path: Path) -> Path:
    """Two patients whose recordings hold the time in seconds in each channel."""
    folder = make_hms_folder(tmp_path / "timed", patients=2)
    for kind, rate_hz in (("eegs", 200), ("spectrograms", 0.5)):
        for path in (folder / f"train_{kind}").iterdir():
            table = pd.read_parquet(path)
            seconds = (np.arange(len(table)) / rate_hz).astype(np.float32)
            pd.DataFrame(dict.fromkeys(table.columns, seconds)).to_parquet(path)
    return folder
