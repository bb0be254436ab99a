"""What the parts of the bench of features work with: folders of recordings, their stores, and how often they time."""

import argparse
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bench._timing import side_by_side
from hms_ray import registry
from hms_ray.core.params import Params
from hms_ray.datasets import Dataset, hms
from hms_ray.features._feature import FeatureRef
from hms_ray.store.inputs import Inputs, open_inputs
from hms_ray.store.prepare import InputParams, prepare


@dataclass(frozen=True)
class Place:
    """What every part works with: a folder of its own, recordings, and how often and how much."""

    root: Path
    data: Path
    options: argparse.Namespace

    def folder(self, eegs: int, different: bool = False) -> Path:
        """Return a competition folder of so many EEGs, made unless it is there; `different` as in `linked`."""
        path = self.root / f"{'different' if different else 'data'}_{eegs}"
        return path if path.exists() else linked(self.data, path, eegs, different)

    def dataset(self, different: bool = False) -> Dataset:
        """Read the tables of the recordings that the parts share, or of those that are different files."""
        return hms.load(self.folder(self.options.eegs, different), hms.Params())

    def inputs(self, dataset: Dataset, feature: str, compute: str = "prepared") -> Inputs:
        """Prepare a feature with its defaults and open it."""
        ref, params = feature_ref(feature), InputParams(compute=compute)
        return open_inputs(prepare(dataset, ref, params, silent), ref, params, dataset.windows, dataset.examples)

    def rates(self, candidates: Mapping[str, Callable[[], int]]) -> dict[str, float]:
        """Return how many a second each does, after one run that is not counted."""
        for candidate in candidates.values():
            candidate()
        timed = side_by_side(candidates, self.options.rounds)
        return {name: count / seconds for name, (seconds, count) in timed.items()}


def linked(data: Path, out: Path, eegs: int, different: bool = False) -> Path:
    """Make a folder of so many EEGs: links to those of another, over and over under new ids; return it.

    different: no file is linked twice, neither an EEG nor a spectrogram; there are fewer EEGs if need be
    """
    table = pd.read_csv(data / "train.csv")
    if different:
        table = _one_eeg_each(table)
    known, rows = [mine for _, mine in table.groupby("eeg_id")], []
    for kind in ("eeg", "spectrogram"):
        (out / f"train_{kind}s").mkdir(parents=True)
    for new in range(min(eegs, len(known)) if different else eegs):
        mine = known[new % len(known)]
        for kind in ("eeg", "spectrogram"):
            original = data / f"train_{kind}s" / f"{mine[f'{kind}_id'].iat[0]}.parquet"
            (out / f"train_{kind}s" / f"{new}.parquet").symlink_to(original.resolve())
        rows.append(mine.assign(eeg_id=new, spectrogram_id=new))
    pd.concat(rows).to_csv(out / "train.csv", index=False)
    return out


def _one_eeg_each(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of one EEG of each spectrogram."""
    return table[table["eeg_id"].isin(table.drop_duplicates("spectrogram_id")["eeg_id"])]


def feature_ref(name: str) -> FeatureRef:
    """Return the feature of that name with its defaults."""
    params: Params = registry.load("features", name).Params()
    return FeatureRef(name, params)


def silent(label: str) -> Callable[[int, int], None]:
    """Tell nobody how far preparing is."""
    return lambda done, total: None


@contextmanager
def environment(cache: Path) -> Iterator[None]:
    """Let stores lie in that folder meanwhile, and nowhere else."""
    names = ("HMS_RAY_CACHE", "HMS_RAY_STORE")
    before = {name: os.environ.pop(name, None) for name in names}
    os.environ["HMS_RAY_CACHE"] = str(cache)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
