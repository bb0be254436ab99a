"""All folds as `hms-ray train` trains them, and when the first began and the last ended."""

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd

from bench import _folds
from bench._folds import Setting
from hms_ray.execution.events import FoldBegun, FoldDone, Message
from hms_ray.search import driver
from hms_ray.search.finalists.remaining_folds import Finals
from hms_ray.study.folder import StudyFolder


def main(setting: Setting, optim: Mapping[str, Any], in_process: bool) -> dict[str, Any]:
    """Train every fold; return the seconds between the first one's beginning and the last one's end, and their KL."""
    with tempfile.TemporaryDirectory() as scratch, _noted() as moments:
        folder = StudyFolder(Path(scratch) / "study")
        (trial,) = driver.train(folder, [setting.with_optim(optim)], setting.data, in_process)
        curve = pd.read_parquet(folder.trial(trial).epochs)
    last = curve[curve["epoch"] == curve["epoch"].max()].sort_values("fold")
    return {"training": moments[-1] - moments[0], "scores": last["score"].tolist()}


@contextmanager
def _noted() -> Iterator[list[float]]:
    """Yield when folds begin and end, as the driver hears of it."""
    moments, handle = [], Finals.handle

    def noting(self: Finals, message: Message) -> None:
        handle(self, message)
        if isinstance(message, FoldBegun | FoldDone):
            moments.append(time.monotonic())

    with mock.patch.object(Finals, "handle", noting):
        yield moments


if __name__ == "__main__":
    _folds.answer(main)
