"""Features prepared once into a memory-mapped array, keyed by the data's fingerprint and the feature's parameters.

<cache>/prepared/<key>/
  x.npy           (N, *shape) float16
  manifest.json   written with the folder's final name: a folder that has its name is whole
"""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np

from hms_ray import files, lookup
from hms_ray.datasets import Dataset
from hms_ray.errors import DataError
from hms_ray.params import Params

DTYPE = "float16"  # standardised images: an error of 2.4e-4, half the memory
VERSION = 1  # raise it when a feature's numbers change
THREADS = min(8, os.cpu_count() or 1)


def cache_root() -> Path:
    """Return where prepared data lies: $HMS_RAY_CACHE, or hms_ray below the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("HMS_RAY_CACHE") or Path(base) / "hms_ray").absolute()


def store_path(dataset: Dataset, feature: str, params: Params) -> Path:
    """Return the folder that holds this feature of this data, prepared or not."""
    key = files.fingerprint(VERSION, DTYPE, dataset.fingerprint, feature, params.model_dump())
    return cache_root() / "prepared" / f"{feature}-{key}"


def prepare(dataset: Dataset, feature: str, params: Params, progress: Callable[[int, int], None]) -> Path:
    """Compute the feature of every unit unless that is done, and return the store's folder.

    Raises:
        DataError: a recording is missing or broken; the store is not made.
    """
    target = store_path(dataset, feature, params)
    if _is_whole(target):
        return target
    module = lookup.load("features", feature)
    dataset.require(module.KIND, f"features.{feature}")
    for path in sorted(set(dataset.files(module.KIND))):
        files.check_parquet(path)  # all files before any work
    shape = (len(dataset.units), *module.spec(params).shape)
    with _new_folder(target) as folder:
        x = np.lib.format.open_memmap(folder / "x.npy", mode="w+", dtype=DTYPE, shape=shape)
        for i, image in _computed(dataset, module, params, progress):
            x[i] = image
        x.flush()
        files.write_json(folder / "manifest.json", {"feature": feature, "params": params.model_dump(), "shape": shape})
    return target


def open_store(path: Path) -> np.ndarray:
    """Return the prepared features (N, *shape), read from disk as they are used and shared between processes.

    The map is copy-on-write: torch wants arrays it could write to, and the file must not change.
    """
    if not _is_whole(path):
        raise DataError(f"{path}: no prepared features here; HMS_RAY_CACHE must name a folder that every node can read")
    return np.load(path / "x.npy", mmap_mode="c")


def _is_whole(store: Path) -> bool:
    """Say whether both files are there: cleaners of temporary folders take one and leave the other."""
    return (store / "manifest.json").is_file() and (store / "x.npy").is_file()


def _computed(
    dataset: Dataset, module: ModuleType, params: Params, progress: Callable[[int, int], None]
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (unit, feature) from a few threads; units of one file go together, so that each file is read once."""
    batches = dataset.units.groupby([str(path) for path in dataset.files(module.KIND)]).indices.values()

    def compute(units: np.ndarray) -> list[tuple[int, np.ndarray]]:
        return [(int(i), module.compute(dataset, int(i), params)) for i in units]

    with ThreadPoolExecutor(THREADS) as pool:
        done = 0
        for batch in pool.map(compute, batches):
            yield from batch
            done += len(batch)
            progress(done, len(dataset.units))


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """Yield a folder that takes the name `target` on success and is removed on failure."""
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if not _is_whole(target):  # another process may have prepared the same meanwhile
            shutil.rmtree(target, ignore_errors=True)
            os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
