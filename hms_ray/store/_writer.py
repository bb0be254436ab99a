"""One array that is filled piece by piece and takes its name when it is whole: a kill costs the pieces in flight.

<target>.partial/    while it is being made
  x.npy              its full size from the start; pieces are written where they belong
  written.jsonl      a line for each piece that is written, with its hash
<target>/            when it is whole
  x.npy, items.parquet, quality.parquet, manifest.json, and what else the store needs
"""

import fcntl
import json
import logging
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from hms_ray.core import files
from hms_ray.core.errors import ConfigError, DataError
from hms_ray.core.sizes import in_words

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Piece:
    """What is computed from one recording, or from a few that belong together.

    rows: (R, E) values; each row goes to a place of its own in the array
    quality: measures of the recordings read for it
    hash: of the rows
    """

    item: str
    rows: np.ndarray
    quality: list[dict[str, Any]]
    hash: str

    @classmethod
    def of(cls, item: str, rows: np.ndarray, quality: list[dict[str, Any]]) -> "Piece":
        """Return the piece with its hash, which takes as long as writing it and is better done where it is computed."""
        return cls(item, rows, quality, hash_of(rows))


@dataclass(frozen=True)
class Plan:
    """The array to be made: its type and shape, and where each item's rows begin, counted in values."""

    dtype: str
    shape: tuple[int, ...]
    places: Mapping[str, np.ndarray]
    row: Mapping[str, int]

    @property
    def bytes(self) -> int:
        """The array's size on disk."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


def is_whole(store: Path) -> bool:
    """Say whether the store's files are all there, each of its size: cleaners of temporary folders take some."""
    try:
        sizes = files.read_json(store / MANIFEST)["files"]
    except (DataError, KeyError):
        return False
    return all(_size(store / name) == size for name, size in sizes.items())


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


@contextmanager
def writer(target: Path, plan: Plan, beside: int = 0) -> Iterator["Writer | None"]:
    """Yield what writes the store `target`, or None once another process has made it meanwhile.

    beside: bytes that other stores which are made at the same time still need on the disk

    Raises:
        ConfigError: the disk has not the room.
    """
    partial = target.with_name(f"{target.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    with open(target.with_name(f".{target.name}.lock"), "w") as lock:
        _lock(lock, target)
        if is_whole(target):
            shutil.rmtree(partial, ignore_errors=True)  # empty, or gone
            yield None
            return
        partial.mkdir(exist_ok=True)  # the other process may have failed and cleared it away
        yield Writer(partial, target, plan, beside)


def _lock(lock: IO[str], target: Path) -> None:
    """Wait until no other process makes the same store; a killed one holds no lock."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.info("%s is being prepared by another process; waiting for it", target.name)
        fcntl.flock(lock, fcntl.LOCK_EX)


class Writer:
    """Writes pieces into a store in the making."""

    def __init__(self, partial: Path, target: Path, plan: Plan, beside: int = 0) -> None:
        self.partial, self.target, self.plan = partial, target, plan
        self.beside, self.wanted = beside, plan.bytes
        self.array, self.written = partial / "x.npy", partial / "written.jsonl"
        self._allocate()
        self.start = np.load(self.array, mmap_mode="r").offset
        self.kept = {line["item"]: line for line in files.read_json_lines(self.written) if self._is_intact(line)}
        files.write_text(self.written, "".join(f"{json.dumps(line)}\n" for line in self.kept.values()))

    @property
    def missing(self) -> list[str]:
        """The items that are still to be written."""
        return [item for item in self.plan.places if item not in self.kept]

    def write(self, piece: Piece) -> None:
        """Write a piece, then the line that says so.

        Raises:
            OSError: the disk is full; what was written before stays.
        """
        with open(self.array, "r+b") as file:
            for place, row in zip(self.plan.places[piece.item], piece.rows, strict=True):
                file.seek(self._byte(place))
                file.write(np.ascontiguousarray(row).data)
        line = {"item": piece.item, "hash": piece.hash, "quality": piece.quality}
        with open(self.written, "a") as file:
            file.write(f"{json.dumps(line)}\n")
        self.kept[piece.item] = line

    def finish(self, manifest: Mapping[str, Any], tables: Mapping[str, pd.DataFrame]) -> None:
        """Write what describes the array, and give the store its name."""
        with open(self.array, "rb") as file:
            os.fsync(file.fileno())
        lines = [self.kept[item] for item in self.plan.places]
        items = pd.DataFrame({"item": [line["item"] for line in lines], "hash": [line["hash"] for line in lines]})
        quality = pd.DataFrame([row for line in lines for row in line["quality"]])
        tables = {"items": items, "quality": quality.drop_duplicates(["kind", "name"]), **tables}
        for name, table in tables.items():
            files.write_table(self.partial / f"{name}.parquet", table.reset_index(drop=True))
        mark = files.fingerprint(items["hash"].tolist())
        array: dict[str, object] = {"dtype": self.plan.dtype, "shape": self.plan.shape, "hash": mark}
        names = ["x.npy", *(f"{name}.parquet" for name in tables)]
        array["files"] = {name: (self.partial / name).stat().st_size for name in names}
        files.write_json(self.partial / MANIFEST, {**manifest, **array})
        shutil.rmtree(self.target, ignore_errors=True)  # one that is not whole
        os.replace(self.partial, self.target)
        (self.target / self.written.name).unlink()  # last: a kill before it would cost every piece

    def _allocate(self) -> None:
        """Make the file at its full size unless it is there; without content it takes no room yet."""
        try:
            found = np.load(self.array, mmap_mode="r")
        except (OSError, ValueError, EOFError):
            found = None
        if found is None or (found.shape, found.dtype) != (self.plan.shape, np.dtype(self.plan.dtype)):
            self.written.unlink(missing_ok=True)
            self._check_room(0)
            np.lib.format.open_memmap(self.array, mode="w+", dtype=self.plan.dtype, shape=self.plan.shape)
        else:
            self._check_room(512 * self.array.stat().st_blocks)

    def _check_room(self, taken: int) -> None:
        self.wanted = max(0, self.plan.bytes - taken)  # of the disk, until the store is whole
        wanted, free = self.wanted + self.beside, shutil.disk_usage(self.partial).free
        if wanted > free:
            raise ConfigError(
                f"{self.target.parent}: preparing needs {in_words(wanted)} there, and {in_words(free)} are free; "
                "make room, or name another folder with HMS_RAY_CACHE"
            )

    def _is_intact(self, line: Mapping[str, Any]) -> bool:
        """Say whether the array holds what the line says: after a power failure it may not."""
        places = self.plan.places.get(line["item"])
        if places is None:
            return False
        values = self.plan.row[line["item"]]
        with open(self.array, "rb") as file:
            rows = [self._read(file, place, values) for place in places]
        return hash_of(np.stack(rows)) == line["hash"]

    def _read(self, file: IO[bytes], place: int, values: int) -> np.ndarray:
        file.seek(self._byte(place))
        return np.frombuffer(file.read(values * np.dtype(self.plan.dtype).itemsize), dtype=self.plan.dtype)

    def _byte(self, place: int) -> int:
        return self.start + int(place) * np.dtype(self.plan.dtype).itemsize


def hash_of(rows: np.ndarray) -> str:
    """Return 8 hex digits by which damage to a piece is seen: CRC-32, the fastest there is."""
    return f"{zlib.crc32(np.ascontiguousarray(rows).data):08x}"
