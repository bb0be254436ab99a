"""Write an array piece by piece into a folder that is renamed when it is complete: a kill loses only unwritten pieces.

<target>.partial/    incomplete
  x.npy              at its full size from the start; each piece is written to its place
  written.jsonl      one line for each written piece, with its hash
<target>/            complete
  x.npy, items.parquet, quality.parquet, manifest.json, and the other tables of the store
"""

import fcntl
import json
import logging
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hms_ray.core import files
from hms_ray.core.errors import ConfigError, DataError
from hms_ray.core.sizes import in_words
from hms_ray.store.quality import Measures

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Piece:
    """The values computed from one recording, or from a few that belong together.

    rows: (R, E) values; each row has its own place in the array
    quality: measures of the recordings
    hash: hash of the rows
    """

    item: str
    rows: np.ndarray
    quality: list[Measures]
    hash: str

    @classmethod
    def of(cls, item: str, rows: np.ndarray, quality: list[Measures]) -> "Piece":
        """Return the piece with its hash; hashing takes as long as writing, so workers do it."""
        return cls(item, rows, quality, hash_of(rows))


@dataclass(frozen=True)
class Plan:
    """The planned array: type, shape, where the rows of each item begin, and the length of its rows, in values."""

    dtype: str
    shape: tuple[int, ...]
    places: Mapping[str, np.ndarray]
    row: Mapping[str, int]

    @property
    def bytes(self) -> int:
        """The array's size on disk."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


def is_whole(store: Path) -> bool:
    """Return whether all files of a store exist with the right size; cleaners of temporary folders delete some."""
    try:
        sizes = files.read_json(store / MANIFEST)["files"]
    except (DataError, KeyError):
        return False
    paths = {store / name: size for name, size in sizes.items()}
    return all(path.is_file() and path.stat().st_size == size for path, size in paths.items())


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Hold the lock of a store, after waiting for any other process that holds it.

    The kernel releases a flock when its process ends. The package filelock would poll, and on a file system without
    flock it falls back to a file that a killed process leaves behind.
    """
    with open(target.with_name(f".{target.name}.lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("%s is being prepared by another process; waiting for it", target.name)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def writer(target: Path, plan: Plan, reserved: int = 0) -> Iterator["Writer | None"]:
    """Yield a writer of the store `target`, or None if it is complete, for example because another process made it.

    reserved: disk space in bytes that other stores made at the same time still need

    Raises:
        ConfigError: there is too little disk space.
    """
    partial = target.with_name(f"{target.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    with locked(target):
        if is_whole(target):
            shutil.rmtree(partial, ignore_errors=True)  # empty, or removed already
            yield None
            return
        partial.mkdir(exist_ok=True)  # the other process may have failed and removed it
        yield Writer(partial, target, plan, reserved)


class Writer:
    """Writes pieces into an incomplete store. needed: disk space in bytes until it is complete."""

    def __init__(self, partial: Path, target: Path, plan: Plan, reserved: int = 0) -> None:
        self.partial, self.target, self.plan = partial, target, plan
        self.array, self.written = partial / "x.npy", partial / "written.jsonl"
        array = None
        with suppress(OSError, ValueError, EOFError):  # absent, or broken
            array = np.load(self.array, mmap_mode="r")
        fits = array is not None and (array.shape, array.dtype) == (plan.shape, np.dtype(plan.dtype))
        self.needed = max(0, plan.bytes - (512 * self.array.stat().st_blocks if fits else 0))
        if not fits:
            self.written.unlink(missing_ok=True)
        total, free = self.needed + reserved, shutil.disk_usage(partial).free
        if total > free:
            raise ConfigError(
                f"{target.parent}: preparing needs {in_words(total)} there, and {in_words(free)} are free; "
                "free disk space, or name another folder with HMS_RAY_CACHE"
            )
        if not fits:  # at its full size; without content it takes no disk space yet
            np.lib.format.open_memmap(self.array, mode="w+", dtype=plan.dtype, shape=plan.shape)
        self.start = np.load(self.array, mmap_mode="r").offset
        self.kept = {line["item"]: line for line in files.read_json_lines(self.written) if self._is_intact(line)}
        files.write_text(self.written, "".join(f"{json.dumps(line)}\n" for line in self.kept.values()))

    @property
    def missing(self) -> list[str]:
        """The items that have not been written."""
        return [item for item in self.plan.places if item not in self.kept]

    def write(self, piece: Piece) -> None:
        """Write a piece, then its line.

        Raises:
            OSError: the disk is full; earlier pieces are kept.
        """
        with open(self.array, "r+b") as file:
            for place, row in zip(self.plan.places[piece.item], piece.rows, strict=True):
                file.seek(self._byte(place))
                file.write(np.ascontiguousarray(row).data)
        line = {"item": piece.item, "hash": piece.hash, "quality": piece.quality}
        with open(self.written, "a") as file:
            file.write(f"{json.dumps(line)}\n")
        self.kept[piece.item] = line

    def finish(self, manifest: Mapping[str, object], tables: Mapping[str, pd.DataFrame]) -> None:
        """Write manifest and tables, and rename the folder to the store's name."""
        with open(self.array, "rb") as file:
            os.fsync(file.fileno())
        lines = [self.kept[item] for item in self.plan.places]
        items = pd.DataFrame({"item": [line["item"] for line in lines], "hash": [line["hash"] for line in lines]})
        quality = pd.DataFrame([row for line in lines for row in line["quality"]])
        tables = {"items": items, "quality": quality.drop_duplicates(["kind", "name"]), **tables}
        for name, table in tables.items():
            files.write_table(self.partial / f"{name}.parquet", table.reset_index(drop=True))
        names = ["x.npy", *(f"{name}.parquet" for name in tables)]
        sizes = {name: (self.partial / name).stat().st_size for name in names}
        array = {"dtype": self.plan.dtype, "shape": self.plan.shape, "hash": files.fingerprint(items["hash"].tolist())}
        files.write_json(self.partial / MANIFEST, {**manifest, **array, "files": sizes})
        shutil.rmtree(self.target, ignore_errors=True)  # an incomplete one
        os.replace(self.partial, self.target)
        (self.target / self.written.name).unlink()  # last, because without it a kill would lose every piece

    def _is_intact(self, line: Mapping[str, object]) -> bool:
        """Return whether the array has the values of a line's hash: after a power failure it may not."""
        item = str(line["item"])
        if item not in self.plan.places:
            return False
        dtype, rows = np.dtype(self.plan.dtype), []
        with open(self.array, "rb") as file:
            for place in self.plan.places[item]:
                file.seek(self._byte(place))
                rows.append(np.frombuffer(file.read(self.plan.row[item] * dtype.itemsize), dtype))
        return hash_of(np.stack(rows)) == line["hash"]

    def _byte(self, place: int) -> int:
        return self.start + int(place) * np.dtype(self.plan.dtype).itemsize


def hash_of(rows: np.ndarray) -> str:
    """Return the CRC-32 of a piece, 8 hex digits; it detects damage and is fast."""
    return f"{zlib.crc32(np.ascontiguousarray(rows).data):08x}"
