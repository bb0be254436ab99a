"""Prepare what a run reads: its feature of every example, or the recordings themselves, once for all runs alike.

<cache>/prepared/<feature>-<key>/           x.npy (E, *shape), the feature of the window that is scored
<cache>/prepared/recordings-<kind>-<key>/   x.npy (values,), all recordings behind each other, (channels, steps) each;
                                            index.parquet says where each begins
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

from hms_ray.core import files, provenance, recordings
from hms_ray.core.errors import ConfigError
from hms_ray.core.params import Params
from hms_ray.datasets import Dataset, Windows, first_step
from hms_ray.features._feature import FeatureRef
from hms_ray.store._work import Output, ReadOnce, check_start
from hms_ray.store._writer import Plan, Writer, is_whole, writer
from hms_ray.store.share import StoreRef
from hms_ray.store.workers import Threads, Workers

VERSION = 2  # raise it when the layout of a store changes
# What decides about a recording's numbers.
CODE = ("core/files.py", "core/recordings.py", "datasets", "store/_work.py")
log = logging.getLogger(__name__)
Progress = Callable[[int, int], None]


class InputParams(Params):
    """Where a feature is computed, and of which window."""

    compute: Literal["prepared", "batch"] = Field(
        "prepared",
        description="prepared: once, before training; batch: of each batch, on its device: its parameters can be "
        "searched without preparing again",
    )
    window: Literal["middle", "random"] = Field(
        "middle", description="what is trained on: the middle window, as scored, or another one in each epoch"
    )
    dtype: Literal["float16", "float32"] = Field("float16", description="how values are kept")
    covariates: tuple[str, ...] = Field(
        (), description="numbers of the dataset that the network is given as well: age, ..."
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
            raise ValueError("a name may stand once")
        return covariates


def check(dataset: Dataset, feature: FeatureRef, params: InputParams) -> None:
    """Look into every file that a run reads, unless what it reads is prepared, and refuse what cannot be.

    Raises:
        ConfigError: the dataset has no such recordings or numbers, HMS_RAY_STORE cannot be written to, or a feature
            with published weights shall be computed while training.
        DataError: a recording is missing, or its file broken, or it ends before a window begins.
    """
    strange = [name for name in params.covariates if name not in dataset.examples.covariates]
    if strange:
        known = ", ".join(dataset.examples.covariates.columns) or "none"
        raise ConfigError(f"input.covariates: dataset {dataset.name!r} has no {', '.join(strange)}; it has {known}")
    if params.compute == "batch" and feature.origin is not None:
        raise ConfigError(
            f"input.compute: feature {feature.name} has published weights, with which it is computed once, before "
            "training: say prepared"
        )
    if params.window == "random" and not any(_moves(windows) for windows in dataset.windows.values()):
        raise ConfigError(f"input.window: random: dataset {dataset.name!r} has one window an example: say middle")
    for kind in feature.spec.kinds:
        dataset.require(kind, f"features.{feature.name}")
    for store, kinds in _stores(dataset, feature, params).items():
        here = store.is_here()
        if not here:
            store.check_url()
        for kind in kinds:
            if not here:
                _check_windows(dataset, kind, dataset.lengths(kind))
            elif params.compute == "batch":  # the recordings are as they were, but labels may have changed
                _check_windows(dataset, kind, recorded_steps(store))


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
    return prepare_all(dataset, [(feature, params)], progress, workers)[0]


def prepare_all(
    dataset: Dataset,
    wanted: Sequence[tuple[FeatureRef, InputParams]],
    progress: Callable[[str], Progress],
    workers: Workers | None = None,
) -> list[tuple[StoreRef, ...]]:
    """Make the stores of several runs as `prepare` does, and read each recording once for all that lack it.

    Features of the same recordings are computed together. One that takes several kinds is computed with those of the
    kind with the fewest files; the files of its other kinds are read once more for features of those kinds alone.
    """
    for feature, params in wanted:
        check(dataset, feature, params)
    found, orders = [], {}
    for feature, params in wanted:
        stores = _stores(dataset, feature, params)
        found.append(tuple(stores))
        for store, kinds in stores.items():
            if store not in orders:
                orders[store] = None if store.is_here() else _order(store, dataset, feature, params, kinds)
    for store in (store for store, order in orders.items() if order is None):
        _share(store)
    missing = [order for order in orders.values() if order is not None]
    for kind in dict.fromkeys(order.kind for order in missing):
        same = [order for order in missing if order.kind == kind]
        _fill(dataset, kind, same, workers or Threads(), progress)
    return found


def _share(store: StoreRef) -> None:
    """Publish a store that may have been made when there was no URL; what is here works without."""
    try:
        store.publish()
    except ConfigError as error:
        log.warning("%s; other machines cannot copy %s", error, store.name)


def recorded_steps(store: StoreRef) -> dict[str, int]:
    """Return how many steps each recording of a store has, by its name."""
    index = files.read_table(store.local() / "index.parquet")
    return dict(zip(index["name"], index["steps"].tolist(), strict=True))


def _stores(dataset: Dataset, feature: FeatureRef, params: InputParams) -> dict[StoreRef, tuple[str, ...]]:
    """Return a run's stores, made or not, and the kinds of recordings in each.

    Recordings are the same for every feature and every choice of units, features for all labels of the same windows.
    """
    if params.compute == "prepared":
        encoder = ("encoders",) if hasattr(feature.module, "source") else ()
        code = provenance.files_of_code((*CODE, "features", *encoder))
        kinds = feature.spec.kinds
        data = [dataset.name, *map(_windows_mark, (dataset.windows[kind] for kind in kinds))]
        data += map(dataset.recordings_fingerprint, kinds)
        mark = files.fingerprint(VERSION, params.dtype, data, feature.dump(), feature.origin, code)
        return {StoreRef.of(f"{feature.name}-{mark}"): feature.spec.kinds}
    stores: dict[StoreRef, tuple[str, ...]] = {}
    made_by = provenance.files_of_code(CODE)
    for kind in feature.spec.kinds:
        mark = files.fingerprint(
            VERSION, params.dtype, dataset.name, kind, dataset.recordings_fingerprint(kind), made_by
        )
        stores[StoreRef.of(f"recordings-{kind}-{mark}")] = (kind,)
    return stores


def _moves(windows: Windows) -> bool:
    """Whether any example has a window beside the one that is scored."""
    return len(windows.start_s) > len(windows.names) or bool(windows.slack_s.any())


def _windows_mark(windows: Windows) -> str:
    """Return what changes with the examples' scored windows, and not with their labels."""
    return files.fingerprint(windows.names.tolist(), windows.middle_s.tolist())


@dataclass(frozen=True)
class _Order:
    """A store that is to be made.

    kind: its items are the recordings of this kind
    label: what it is called where progress is told
    manifest, tables: what the finished store keeps besides
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
    if params.compute == "batch":
        return _recordings_order(store, dataset, kinds[0], params.dtype)
    shape = feature.spec.shape
    values, kind = int(np.prod(shape)), _fewest(dataset, kinds)
    places = {item: rows * values for item, rows in _by_item(dataset, kind).items()}
    plan = Plan(params.dtype, (len(dataset.examples), *shape), places, dict.fromkeys(places, values))
    manifest = {"feature": feature.name, "params": feature.params.model_dump()}
    return _Order(store, kind, Output(kinds, params.dtype, feature), plan, feature.name, manifest, {})


def _recordings_order(store: StoreRef, dataset: Dataset, kind: str, dtype: str) -> _Order:
    names = sorted(dataset.files(kind))
    steps = np.array([dataset.lengths(kind)[name] for name in names])
    values = steps * len(recordings.KINDS[kind].channels)
    end = np.cumsum(values)
    places = {name: np.array([e - v]) for name, e, v in zip(names, end, values, strict=True)}
    plan = Plan(dtype, (int(end[-1]),), places, dict(zip(names, values.tolist(), strict=True)))
    index = pd.DataFrame({"name": names, "steps": steps, "start": end - values})
    return _Order(store, kind, Output((kind,), dtype), plan, f"recordings: {kind}", {"kind": kind}, {"index": index})


def _fewest(dataset: Dataset, kinds: tuple[str, ...]) -> str:
    """Return the kind of which a dataset has the fewest files: most examples share one."""
    return min(kinds, key=lambda kind: len(dataset.files(kind)))


def _by_item(dataset: Dataset, kind: str) -> dict[str, np.ndarray]:
    """Return the examples by their file of that kind, so that each file is read once."""
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
    """Write every item that any of the stores lacks, finish them, and share them."""
    with ExitStack() as stack:
        open_orders, beside = [], 0
        for order in sorted(orders, key=lambda order: order.store.name):  # no two processes wait for each other
            into = stack.enter_context(writer(order.store.path, order.plan, beside))
            if into is not None:
                open_orders.append((order, into))
                beside += into.wanted
        if open_orders:
            open_orders.sort(key=lambda pair: orders.index(pair[0]))
            _write(dataset, kind, open_orders, workers, progress)
    for order in orders:
        assert is_whole(order.store.path), "a store that is finished is whole"
        order.store.publish()


def _write(
    dataset: Dataset,
    kind: str,
    orders: Sequence[tuple[_Order, Writer]],
    workers: Workers,
    progress: Callable[[str], Progress],
) -> None:
    """Write what is missing, each recording read once, and finish the stores."""
    computes = any(order.output.feature is not None for order, _ in orders)
    missing = tuple(frozenset(into.missing) for _, into in orders)
    outputs = tuple(order.output for order, _ in orders)
    work = ReadOnce(dataset, kind, outputs, _by_item(dataset, kind) if computes else {}, missing)
    every = list(dict.fromkeys(item for order, _ in orders for item in order.plan.places))
    items = [item for item in every if any(item in lacking for lacking in missing)]
    tell = progress("prepare " + _listed([order.label for order, _ in orders]))
    for done, pieces in enumerate(workers.imap(work, items), start=len(every) - len(items) + 1):
        for (_, into), piece in zip(orders, pieces, strict=True):
            if piece is not None:
                into.write(piece)
        tell(done, len(every))
    for order, into in orders:
        into.finish(order.manifest, order.tables)


def _listed(labels: Sequence[str]) -> str:
    """Word the names of stores, each once, the number of its versions behind it."""
    counts = Counter(labels)
    return ", ".join(label if n == 1 else f"{label} ({n} versions)" for label, n in counts.items())
