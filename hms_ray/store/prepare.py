"""Prepare the stores that runs read: a feature of every example, or the recordings, shared by all equal runs.

<cache>/prepared/<feature>-<key>/           x.npy (E, *shape), the feature of the scored window
<cache>/prepared/recordings-<kind>-<key>/   x.npy (values,), the concatenated recordings, (channels, steps) each;
                                            index.parquet has the start of each
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field, field_validator, model_validator

from hms_ray import contracts, registry
from hms_ray.core import files, provenance, recordings
from hms_ray.core.errors import ConfigError
from hms_ray.core.params import Params
from hms_ray.datasets import Dataset, first_step
from hms_ray.features._feature import FeatureRef
from hms_ray.store._work import Output, ReadOnce, check_start
from hms_ray.store._writer import Plan, Writer, is_whole, writer
from hms_ray.store.share import StoreRef
from hms_ray.store.workers import Threads, Workers

VERSION = 2  # raise it when the layout of a store changes
# The code that determines the values of recordings.
CODE = ("core/files.py", "core/recordings.py", "datasets", "store/_work.py")
log = logging.getLogger(__name__)
Progress = Callable[[int, int], None]


class InputParams(Params):
    """Where a feature is computed, and from which window."""

    compute: Literal["prepared", "batch"] = Field(
        "prepared",
        description="prepared: once, before training; batch: from each batch, on its device, so that its parameters "
        "can be searched without preparing again",
    )
    window: Literal["middle", "random"] = Field(
        "middle", description="the window to train on: the middle one, which is scored, or a random one in each epoch"
    )
    dtype: Literal["float16", "float32"] = Field("float16", description="type of the stored values")
    covariates: tuple[str, ...] = Field(
        (), description="covariates of the dataset that the network gets besides the feature: age, ..."
    )

    @model_validator(mode="after")
    def _random_needs_recordings(self) -> "InputParams":
        if self.window == "random" and self.compute == "prepared":
            raise ValueError("window: random needs compute: batch, since only the middle window is prepared")
        return self

    @field_validator("covariates")
    @classmethod
    def _each_once(cls, covariates: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(covariates)) < len(covariates):
            raise ValueError("each name must be given once")
        return covariates


def check(dataset: Dataset, feature: FeatureRef, params: InputParams) -> None:
    """Check a run's input and every file that it reads, unless its stores exist.

    Raises:
        ConfigError: the dataset has no such recordings or covariates, HMS_RAY_STORE cannot be written to, or a feature
            with published weights is to be computed while training.
        DataError: a recording is missing, its file is broken, or it ends before a window begins.
    """
    unknown = [name for name in params.covariates if name not in dataset.examples.covariates]
    if unknown:
        known = ", ".join(dataset.examples.covariates.columns) or "none"
        raise ConfigError(f"input.covariates: dataset {dataset.name!r} has no {', '.join(unknown)}; it has {known}")
    if params.compute == "batch" and feature.origin is not None:
        raise ConfigError(
            f"input.compute: feature {feature.name} has published weights, with which it is computed once, before "
            "training: use prepared"
        )
    # An example has several windows if it has more starts than one, or a start that may shift.
    movable = any(len(w.start_s) > len(w.names) or w.slack_s.any() for w in dataset.windows.values())
    if params.window == "random" and not movable:
        raise ConfigError(f"input.window: random: dataset {dataset.name!r} has one window an example: use middle")
    for kind in feature.spec.kinds:
        dataset.require(kind, f"features.{feature.name}")
    for store, kinds in _stores(dataset, feature, params).items():
        exists = store.is_here()
        if not exists:
            store.check_url()
        for kind in kinds:
            if not exists:
                _check_windows(dataset, kind, dataset.lengths(kind))
            elif params.compute == "batch":  # the recordings are unchanged, but labels may have changed
                _check_windows(dataset, kind, recorded_steps(store))


def prepare(
    dataset: Dataset,
    feature: FeatureRef,
    params: InputParams,
    progress: Callable[[str], Progress],
    workers: Workers | None = None,
) -> tuple[StoreRef, ...]:
    """Make the missing stores of a run; return one store of its feature, or one for each kind of recording.

    progress: called with a label; returns a function that is called with (done, total)

    Raises:
        ConfigError: the dataset has no such recordings, or there is too little disk space.
        DataError: a recording is missing or broken; earlier pieces are kept.
        OSError: the disk is full; earlier pieces are kept.
    """
    return prepare_all(dataset, [(feature, params)], progress, workers)[0]


def prepare_all(
    dataset: Dataset,
    runs: Sequence[tuple[FeatureRef, InputParams]],
    progress: Callable[[str], Progress],
    workers: Workers | None = None,
) -> list[tuple[StoreRef, ...]]:
    """Make the stores of several runs as `prepare` does, reading each recording once for all of them.

    Features of the same recordings are computed together. A feature of several kinds is computed with those of the kind
    with the fewest files; files of its other kinds are read again for features of only these kinds.
    """
    for feature, params in runs:
        check(dataset, feature, params)
    stores_of_runs, orders = [], {}
    for feature, params in runs:
        stores = _stores(dataset, feature, params)
        stores_of_runs.append(tuple(stores))
        for store, kinds in stores.items():
            if store not in orders:
                orders[store] = None if store.is_here() else _order(store, dataset, feature, params, kinds)
    for store in (store for store, order in orders.items() if order is None):
        try:  # it may have been made before there was a URL
            store.publish()
        except ConfigError as error:
            log.warning("%s; other machines cannot copy %s", error, store.name)
    missing = [order for order in orders.values() if order is not None]
    for kind in dict.fromkeys(order.kind for order in missing):
        _fill(dataset, kind, [order for order in missing if order.kind == kind], workers or Threads(), progress)
    return stores_of_runs


def recorded_steps(store: StoreRef) -> dict[str, int]:
    """Return the number of steps of each recording of a store by name."""
    index = files.read_table(store.local() / "index.parquet")
    return dict(zip(index["name"], index["steps"].tolist(), strict=True))


def _stores(dataset: Dataset, feature: FeatureRef, params: InputParams) -> dict[StoreRef, tuple[str, ...]]:
    """Return a run's stores, existing or not, and the kinds of recordings in each.

    A store of recordings does not depend on feature and units, a store of features not on the labels of its windows.
    """
    if params.compute == "prepared":
        encoder = ("encoders",) if isinstance(feature.module, contracts.Published) else ()
        code = provenance.files_of_code((*CODE, "features", *encoder))
        code = code | registry.code("features", feature.name) | registry.code("datasets", dataset.name)
        kinds = feature.spec.kinds
        windows = [dataset.windows[kind] for kind in kinds]
        data = [dataset.name, *(files.fingerprint(w.names.tolist(), w.middle_s.tolist()) for w in windows)]
        data += map(dataset.recordings_fingerprint, kinds)
        mark = files.fingerprint(VERSION, params.dtype, data, feature.dump(), feature.origin, code)
        return {StoreRef.of(f"{feature.name}-{mark}"): kinds}
    stores: dict[StoreRef, tuple[str, ...]] = {}
    made_by = provenance.files_of_code(CODE) | registry.code("datasets", dataset.name)
    for kind in feature.spec.kinds:
        data = [dataset.name, kind, dataset.recordings_fingerprint(kind)]
        mark = files.fingerprint(VERSION, params.dtype, *data, made_by)
        stores[StoreRef.of(f"recordings-{kind}-{mark}")] = (kind,)
    return stores


@dataclass(frozen=True)
class _Order:
    """A store to be made.

    kind: its items are the recordings of this kind
    label: its name in progress messages
    manifest, tables: further content of the finished store
    """

    store: StoreRef
    kind: str
    output: Output
    plan: Plan
    label: str
    manifest: Mapping[str, object]
    tables: Mapping[str, pd.DataFrame]


def _order(
    store: StoreRef, dataset: Dataset, feature: FeatureRef, params: InputParams, kinds: tuple[str, ...]
) -> _Order:
    if params.compute == "batch":  # recordings of one kind
        kind = kinds[0]
        names = sorted(dataset.files(kind))
        steps = np.array([dataset.lengths(kind)[name] for name in names])
        sizes = steps * len(recordings.KINDS[kind].channels)
        end = np.cumsum(sizes)
        places = {name: np.array([e - size]) for name, e, size in zip(names, end, sizes, strict=True)}
        plan = Plan(params.dtype, (int(end[-1]),), places, dict(zip(names, sizes.tolist(), strict=True)))
        tables = {"index": pd.DataFrame({"name": names, "steps": steps, "start": end - sizes})}
        return _Order(store, kind, Output(kinds, params.dtype), plan, f"recordings: {kind}", {"kind": kind}, tables)
    shape, size = feature.spec.shape, int(np.prod(feature.spec.shape))
    kind = min(kinds, key=lambda kind: len(dataset.files(kind)))  # the fewest files: most examples share one
    places = {item: rows * size for item, rows in _by_item(dataset, kind).items()}
    plan = Plan(params.dtype, (len(dataset.examples), *shape), places, dict.fromkeys(places, size))
    manifest = {"feature": feature.name, "params": feature.params.model_dump()}
    return _Order(store, kind, Output(kinds, params.dtype, feature), plan, feature.name, manifest, {})


def _by_item(dataset: Dataset, kind: str) -> dict[str, np.ndarray]:
    """Return the examples of each recording of that kind."""
    names = pd.Series(dataset.windows[kind].names)
    return {str(name): rows.to_numpy() for name, rows in names.groupby(names, sort=False).groups.items()}


def _check_windows(dataset: Dataset, kind: str, steps: Mapping[str, int]) -> None:
    """Raise DataError where a recording ends before a window of an example begins."""
    windows = dataset.windows[kind]
    latest_s = np.maximum(windows.middle_s, windows.last_s)
    lengths = np.array([steps[name] for name in windows.names.tolist()])
    for i in np.flatnonzero(first_step(recordings.KINDS[kind], latest_s) >= lengths)[:1]:
        check_start(dataset, kind, windows.names[i], lengths[i], latest_s[i])


def _fill(
    dataset: Dataset, kind: str, orders: Sequence[_Order], workers: Workers, progress: Callable[[str], Progress]
) -> None:
    """Write the missing items of the stores, reading each recording once; then finish and publish the stores."""
    with ExitStack() as stack:
        writers: dict[StoreRef, Writer] = {}
        for order in sorted(orders, key=lambda order: order.store.name):  # one order of locks: no deadlock
            reserved = sum(store_writer.needed for store_writer in writers.values())
            if store_writer := stack.enter_context(writer(order.store.path, order.plan, reserved)):
                writers[order.store] = store_writer
        pairs = [(order, writers[order.store]) for order in orders if order.store in writers]
        if pairs:
            outputs = tuple(order.output for order, _ in pairs)
            missing = tuple(frozenset(store_writer.missing) for _, store_writer in pairs)
            by_item = _by_item(dataset, kind) if any(output.feature is not None for output in outputs) else {}
            every = list(dict.fromkeys(item for order, _ in pairs for item in order.plan.places))
            items = [item for item in every if any(item in lacking for lacking in missing)]
            counts = Counter(order.label for order, _ in pairs)
            labels = [label if n == 1 else f"{label} ({n} versions)" for label, n in counts.items()]
            report = progress(f"prepare {', '.join(labels)}")
            work = ReadOnce(dataset, kind, outputs, by_item, missing)
            for done, pieces in enumerate(workers.imap(work, items), start=len(every) - len(items) + 1):
                for (_, store_writer), piece in zip(pairs, pieces, strict=True):
                    if piece is not None:
                        store_writer.write(piece)
                report(done, len(every))
            for order, store_writer in pairs:
                store_writer.finish(order.manifest, order.tables)
    for order in orders:
        assert is_whole(order.store.path), "a finished store is complete"
        order.store.publish()
