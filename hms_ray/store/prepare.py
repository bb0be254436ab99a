"""Prepare what a run reads: its feature of every unit, or the recordings themselves, once for all runs alike.

<cache>/prepared/<feature>-<key>/           x.npy (N, *shape), the feature of the window that is scored
<cache>/prepared/recordings-<kind>-<key>/   x.npy (values,), all recordings behind each other, (channels, steps) each;
                                            index.parquet says where each begins
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from hms_ray import files, lookup, recordings, sources
from hms_ray.datasets import Dataset
from hms_ray.params import Params
from hms_ray.store._work import ComputeFeature, KeepRecording, check_start
from hms_ray.store._writer import Plan, is_whole, writer
from hms_ray.store.share import StoreRef
from hms_ray.store.workers import Threads, Workers

VERSION = 2  # raise it when the numbers of a store change
Progress = Callable[[int, int], None]


class InputParams(Params):
    """Where a feature is computed, and of which window."""

    compute: Literal["prepared", "batch"] = Field(
        "prepared",
        description="prepared: once, before training; batch: of each batch, on its device: its parameters can be "
        "searched without preparing again",
    )
    window: Literal["middle", "random"] = Field(
        "middle", description="what is trained on: the unit's middle window, as scored, or another one in each epoch"
    )
    dtype: Literal["float16", "float32"] = Field("float16", description="how values are kept")

    @model_validator(mode="after")
    def _random_needs_recordings(self) -> "InputParams":
        if self.window == "random" and self.compute == "prepared":
            raise ValueError("window: random needs compute: batch, since only the middle window is prepared")
        return self


@dataclass(frozen=True)
class FeatureRef:
    """A feature by its name, with its parameters."""

    name: str
    params: Params

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of recordings that it takes."""
        return lookup.load("features", self.name).spec(self.params).kinds


def prepare(
    dataset: Dataset,
    feature: FeatureRef,
    params: InputParams,
    progress: Callable[[str], Progress],
    workers: Workers | None = None,
) -> tuple[StoreRef, ...]:
    """Make the stores that a run reads unless they are there; return one for its feature, or one for each kind.

    progress: called with what is prepared, gives what is called with (done, total)

    Raises:
        ConfigError: the dataset has no such recordings, or the disk not the room.
        DataError: a recording is missing or broken; what was prepared before it stays.
        OSError: the disk is full; what was prepared before that stays.
    """
    for kind in feature.kinds:
        dataset.require(kind, f"features.{feature.name}")
    workers = workers or Threads()
    if params.compute == "prepared":
        return (_prepare_feature(dataset, feature, params.dtype, progress, workers),)
    return tuple(_prepare_recordings(dataset, kind, params.dtype, progress, workers) for kind in feature.kinds)


def _prepare_feature(
    dataset: Dataset, feature: FeatureRef, dtype: str, progress: Callable[[str], Progress], workers: Workers
) -> StoreRef:
    described = {"feature": feature.name, "params": feature.params.model_dump()}
    code = sources.files_of_code(("features", "datasets"))
    store = StoreRef.of(f"{feature.name}-{files.fingerprint(VERSION, dtype, dataset.fingerprint, described, code)}")
    if store.is_here():
        return store
    for kind in feature.kinds:
        _check_files(dataset, kind)
    shape = lookup.load("features", feature.name).spec(feature.params).shape
    values = int(np.prod(shape))
    units = _by_item(dataset, feature.kinds)
    places = {item: rows * values for item, rows in units.items()}
    plan = Plan(dtype, (len(dataset.units), *shape), places, dict.fromkeys(places, values))
    work = ComputeFeature(dataset, feature.name, feature.params, dtype, units)
    _fill(store, plan, work, workers, progress(f"prepare {feature.name}"), described, {})
    return store


def _prepare_recordings(
    dataset: Dataset, kind: str, dtype: str, progress: Callable[[str], Progress], workers: Workers
) -> StoreRef:
    names = sorted(dataset.files(kind))
    sizes = {name: dataset.sizes[kind][name] for name in names}
    store = StoreRef.of(f"recordings-{kind}-{files.fingerprint(VERSION, dtype, dataset.name, kind, sizes)}")
    if not store.is_here():
        steps = _check_files(dataset, kind)
        values = steps["steps"].to_numpy() * len(recordings.KINDS[kind].channels)
        start = np.r_[0, np.cumsum(values)]
        places = {name: start[i : i + 1] for i, name in enumerate(steps["name"])}
        plan = Plan(dtype, (int(start[-1]),), places, dict(zip(steps["name"], values.tolist(), strict=True)))
        index = {"index": steps.assign(start=start[:-1])}
        work = KeepRecording(dataset, kind, dtype)
        _fill(store, plan, work, workers, progress(f"prepare recordings: {kind}"), {"kind": kind}, index)
    return store


def _by_item(dataset: Dataset, kinds: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return the units by the file that most of them share, so that each file is read once."""
    fewest = min(kinds, key=lambda kind: len(dataset.files(kind)))
    names = pd.Series(dataset.windows[fewest].names)
    return {str(name): rows.to_numpy() for name, rows in names.groupby(names, sort=False).groups.items()}


def _check_files(dataset: Dataset, kind: str) -> pd.DataFrame:
    """Look into every file before any work, and return how long each is: name, steps.

    Raises:
        DataError: one is broken, or ends before a window begins.
    """
    windows = dataset.windows[kind]
    names = sorted(dataset.files(kind))
    steps = dict(zip(names, Threads().imap(lambda name: dataset.steps(kind, name), names), strict=True))
    for name, start in zip(windows.names, np.maximum(windows.middle_s, windows.last_s), strict=True):
        check_start(dataset, kind, name, steps[name], start)
    return pd.DataFrame({"name": names, "steps": [steps[name] for name in names]})


def _fill(
    store: StoreRef,
    plan: Plan,
    work: ComputeFeature | KeepRecording,
    workers: Workers,
    progress: Progress,
    manifest: dict[str, object],
    tables: dict[str, pd.DataFrame],
) -> None:
    """Write every item that is missing, finish the store, and share it."""
    with writer(store.path, plan) as into:
        if into is None:
            return
        total, missing = len(plan.places), into.missing
        for done, piece in enumerate(workers.imap(work, missing), start=total - len(missing) + 1):
            into.write(piece)
            progress(done, total)
        into.finish(manifest, tables)
    assert is_whole(store.path), "a store that is finished is whole"
    store.publish()
