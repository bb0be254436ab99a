"""Copy a store from another machine in chunks: a kill loses only unwritten chunks; a lost holder is replaced.

<target>.copy/       incomplete
  x.npy, ...         each file at its full size from the start; each chunk is written to its place
  chunks.jsonl       one line for each written chunk, with its checksum
"""

import json
import os
import shutil
import threading
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from hms_ray.core import files
from hms_ray.core.errors import DataError
from hms_ray.core.sizes import in_words
from hms_ray.store._writer import MANIFEST, is_whole
from hms_ray.store.share import made_once

JOURNAL = "chunks.jsonl"
CHUNK = 8 << 20  # bytes
PIECE = 1 << 16  # bytes per read, send and write; larger ones took three times as long with fragmented memory
WINDOW = 4  # chunks in flight
ROW = 8192  # bytes per row; the checksum of a piece has sums of rows and of columns
DAMAGED = 3  # times that a chunk may arrive damaged before the copy fails

Take = Callable[[memoryview], None]


class HolderLost(Exception):
    """The holder of a store does not answer, or does not have it any more."""


class NoRoom(DataError):
    """There is too little disk space for a copy."""


class Holder(Protocol):
    """A machine that has the complete store."""

    name: str

    def files(self) -> Mapping[str, int]:
        """Return the size in bytes of each of the store's files, the manifest included; raise HolderLost."""

    def read(self, file: str, start: int, size: int, take: Take) -> int:
        """Pass `size` bytes of a file to `take` in pieces, in order; return their checksum; raise HolderLost.

        The size of each piece except the last is a multiple of PIECE.
        """


class Holders(Protocol):
    """Finds machines that have the store."""

    def next(self, lost: Holder | None) -> Holder:
        """Return a holder, if possible another one than `lost`.

        Raises:
            DataError: no machine has the store.
        """


@dataclass(frozen=True)
class Chunk:
    """A part of a file: its first byte and its size in bytes."""

    file: str
    start: int
    size: int


def copy_store(target: Path, holders: Holders, begins: Callable[[str, int], None] = lambda holder, size: None) -> int:
    """Copy a store to the folder `target` and return the number of copied bytes; 0 if it exists.

    One process of a machine copies; others wait for it. Chunks of an earlier, killed copy are checked and kept.

    begins: called before the copy with the name of the holder and the number of bytes

    Raises:
        NoRoom: there is too little disk space; nothing was copied.
        DataError: no machine has the store, or a chunk arrives damaged repeatedly.
        OSError: the disk cannot be written to; written chunks are kept.
    """
    with made_once(target, resume=True) as partial:
        return 0 if partial is None else _Copy(partial, target, holders).run(begins)


class _Copy:
    """One copy: its missing chunks, and the holder that sends them."""

    def __init__(self, partial: Path, target: Path, holders: Holders) -> None:
        self.partial, self.target, self.holders = partial, target, holders
        self.journal = partial / JOURNAL
        self.lock = threading.Lock()
        self.holder = holders.next(None)

    def run(self, begins: Callable[[str, int], None]) -> int:
        """Copy the missing chunks and return their bytes."""
        while True:
            try:
                sizes = self.holder.files()
                break
            except HolderLost:
                self._leave(self.holder)
        missing = self._missing(sizes)
        size, free = sum(chunk.size for chunk in missing), shutil.disk_usage(self.partial).free
        if size > free:
            raise NoRoom(
                f"{self.target.parent}: a copy of {self.target.name} needs {in_words(size)} there, and "
                f"{in_words(free)} are free; free disk space on that node, or let HMS_RAY_CACHE name another folder "
                "there before Ray is started"
            )
        begins(self.holder.name, size)
        for name, length in sizes.items():
            with open(self.partial / name, "ab") as file:
                file.truncate(length)  # the full size; without content it takes no disk space yet
        with ThreadPoolExecutor(WINDOW) as pool:
            list(pool.map(self._fetch, missing))
        for name in sizes:
            with open(self.partial / name, "rb") as file:
                os.fsync(file.fileno())
        if not is_whole(self.partial):
            raise DataError(f"{self.target}: the copy has not the sizes of the original; run the same command again")
        self.journal.unlink(missing_ok=True)
        return size

    def _missing(self, sizes: Mapping[str, int]) -> list[Chunk]:
        """Return the chunks of these files that no earlier copy has written, or that were damaged since."""
        chunks = [
            Chunk(name, start, min(CHUNK, size - start))
            for name, size in sizes.items()
            for start in range(0, size, CHUNK)
        ]
        expected, kept = set(chunks), {}
        for line in files.read_json_lines(self.journal):
            chunk = Chunk(line["file"], line["start"], line["size"])
            with suppress(HolderLost):  # the file is gone or shorter
                if chunk in expected and sum_of(self.partial, chunk) == line["checksum"]:
                    kept[chunk] = line
        files.write_text(self.journal, "".join(f"{json.dumps(line)}\n" for line in kept.values()))
        return [chunk for chunk in chunks if chunk not in kept]

    def _leave(self, holder: Holder) -> None:
        """Choose another holder, unless another thread has done so."""
        with self.lock:
            if self.holder is holder:
                self.holder = self.holders.next(holder)

    def _fetch(self, chunk: Chunk) -> None:
        """Write one chunk, then its line in the journal."""
        damaged = 0
        while damaged < DAMAGED:
            holder = self.holder
            try:
                with open(self.partial / chunk.file, "r+b", buffering=0) as file:
                    written = _Written(file.fileno(), chunk.start)
                    checksum = holder.read(chunk.file, chunk.start, chunk.size, written.take)
            except HolderLost:
                self._leave(holder)
                continue
            if (written.checksum, written.at) == (checksum, chunk.start + chunk.size):
                line = json.dumps({**asdict(chunk), "checksum": checksum})
                with self.lock, open(self.journal, "a") as file:
                    file.write(f"{line}\n")
                return
            damaged += 1
            with suppress(DataError):  # without another holder, the same one may send it undamaged
                self._leave(holder)
        raise DataError(
            f"{self.target.name}: the chunk of {chunk.file} at byte {chunk.start} arrived damaged {DAMAGED} times, at "
            f"last from {holder.name}; check that machine's memory and network"
        )


class _Written:
    """Writes pieces one after another, and computes their checksum."""

    def __init__(self, descriptor: int, start: int) -> None:
        self.descriptor, self.at, self.checksum = descriptor, start, 0

    def take(self, view: memoryview) -> None:
        for first in range(0, len(view), PIECE):
            piece = view[first : first + PIECE]
            self.checksum = checksum(piece, self.checksum)
            done = 0
            while done < len(piece):
                done += os.pwrite(self.descriptor, piece[done:], self.at + done)
            self.at += len(piece)


def checksum(piece: memoryview, before: int = 0) -> int:
    """Return the checksum of all pieces up to this one: a CRC-32 of the sums of rows and columns of each piece.

    It detects any damage of one word, exchanged words or rows, and shifted content. It takes a fifth of the time of a
    CRC-32 of all bytes, which would be half of the time of a copy.
    """
    whole = len(piece) // ROW * ROW
    words = np.frombuffer(piece[:whole], np.uint64).reshape(-1, ROW // 8)
    columns, rows = np.add.reduce(words, axis=0), np.add.reduce(words, axis=1)
    return zlib.crc32(piece[whole:], zlib.crc32(rows, zlib.crc32(columns, before)))


def sizes_of(store: Path) -> dict[str, int]:
    """Return the size of each file of a complete store; raise HolderLost if it is incomplete."""
    if not is_whole(store):
        raise HolderLost(f"{store} is not whole")
    names = [*files.read_json(store / MANIFEST)["files"], MANIFEST]
    return {name: (store / name).stat().st_size for name in names}


def sum_of(store: Path, chunk: Chunk) -> int:
    """Return the checksum of a part of a store's file; errors as in `read_chunk`."""
    return read_chunk(store, chunk, lambda piece: None)


def read_chunk(store: Path, chunk: Chunk, take: Take) -> int:
    """Pass a part of a store's file to `take` piece by piece and return its checksum.

    Raises:
        HolderLost: the file does not exist or is shorter.
    """
    total, end = 0, chunk.start + chunk.size
    memory = memoryview(bytearray(min(PIECE, chunk.size)))  # reused for each piece
    try:
        with open(store / chunk.file, "rb", buffering=0) as file:
            for start in range(chunk.start, end, PIECE):
                piece = memory[: min(PIECE, end - start)]
                if os.preadv(file.fileno(), [piece], start) < len(piece):  # fewer only at the end of the file
                    raise HolderLost(f"{chunk.file} ends before byte {end}")
                total = checksum(piece, total)
                take(piece)
    except FileNotFoundError as error:
        raise HolderLost(f"{store / chunk.file} is gone") from error
    return total
