"""Copy a store that another machine holds, in chunks: a kill costs the chunks in flight, a lost holder nothing.

<target>.copy/       while it is being copied
  x.npy, ...         each file at its full size from the start; chunks are written where they belong
  chunks.jsonl       a line for each chunk that is written, with its checksum
"""

import json
import os
import shutil
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
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
PIECE = 1 << 16  # bytes that are read, sent or written at once: more cost thrice the time where memory is scattered
WINDOW = 4  # chunks in flight
ROW = 8192  # bytes: a piece is summed by rows and by columns
DAMAGED = 3  # times that a chunk may arrive damaged before the copy is given up

Take = Callable[[memoryview], None]


class HolderLost(Exception):
    """The holder of a store does not answer any more, or no longer has it."""


class NoRoom(DataError):
    """The disk has not the room for a copy."""


class Holder(Protocol):
    """One machine that has the whole store."""

    name: str

    def files(self) -> Mapping[str, int]:
        """Return the size in bytes of each of the store's files, the manifest included; raise HolderLost."""

    def read(self, file: str, start: int, size: int, take: Take) -> int:
        """Hand over `size` bytes of a file in pieces, in their order; return their checksum; raise HolderLost.

        Each piece but the last has PIECE bytes, or a multiple of it.
        """


class Holders(Protocol):
    """Finds who has the store."""

    def next(self, lost: Holder | None) -> Holder:
        """Return a holder, another one than was lost if there is any.

        Raises:
            DataError: nobody has the store.
        """


@dataclass(frozen=True)
class Chunk:
    """A part of a file: where it begins and how many bytes it has."""

    file: str
    start: int
    size: int


def copy_store(target: Path, holders: Holders, begins: Callable[[str, int], None] = lambda holder, size: None) -> int:
    """Copy a store to the folder `target` and return the bytes that were copied; 0 where it is there already.

    One process of a machine copies; the others wait for it. What an earlier copy has written is checked and kept.

    begins: is called with the name of the holder and the bytes to come before the first chunk is asked for

    Raises:
        NoRoom: the disk has not the room; nothing was copied.
        DataError: nobody has the store, or a chunk arrives damaged again and again.
        OSError: the disk cannot be written to; what was written stays.
    """
    with made_once(target, resume=True) as partial:
        return 0 if partial is None else _Copy(partial, target, holders).run(begins)


class _Copy:
    """One copy: the chunks that are written, and from whom the others come."""

    def __init__(self, partial: Path, target: Path, holders: Holders) -> None:
        self.partial, self.target, self.holders = partial, target, holders
        self.journal = partial / JOURNAL
        self.lock = threading.Lock()
        self.holder = holders.next(None)
        self.sizes = self._sizes()

    def run(self, begins: Callable[[str, int], None]) -> int:
        kept = self._kept()
        missing = [chunk for chunk in _chunks(self.sizes) if chunk not in kept]
        size = sum(chunk.size for chunk in missing)
        self._check_room(size)
        begins(self.holder.name, size)
        for name, length in self.sizes.items():
            with open(self.partial / name, "ab") as file:
                file.truncate(length)  # it has its size, and takes no room before it is written
        with ThreadPoolExecutor(WINDOW) as pool:
            list(pool.map(self._fetch, missing))
        for name in self.sizes:
            with open(self.partial / name, "rb") as file:
                os.fsync(file.fileno())
        if not is_whole(self.partial):
            raise DataError(f"{self.target}: the copy has not the sizes of the original; run the same command again")
        self.journal.unlink(missing_ok=True)
        return size

    def _sizes(self) -> Mapping[str, int]:
        while True:
            try:
                return self.holder.files()
            except HolderLost:
                self._leave(self.holder)

    def _leave(self, holder: Holder) -> None:
        """Take another holder, unless another thread has done so."""
        with self.lock:
            if self.holder is holder:
                self.holder = self.holders.next(holder)

    def _fetch(self, chunk: Chunk) -> None:
        """Write one chunk, and the line that says so."""
        damaged = 0
        while damaged < DAMAGED:
            holder = self.holder
            try:
                with open(self.partial / chunk.file, "r+b", buffering=0) as file:
                    written = _Written(file.fileno(), chunk.start)
                    sent = holder.read(chunk.file, chunk.start, chunk.size, written.take)
            except HolderLost:
                self._leave(holder)
                continue
            if (written.checksum, written.at) == (sent, chunk.start + chunk.size):
                self._note(chunk, sent)
                return
            damaged += 1
            with suppress(DataError):  # the only one may still send it undamaged
                self._leave(holder)
        raise DataError(
            f"{self.target.name}: the chunk of {chunk.file} at byte {chunk.start} arrived damaged {DAMAGED} times, at "
            f"last from {holder.name}; check that machine's memory and network"
        )

    def _note(self, chunk: Chunk, checksum: int) -> None:
        line = {"file": chunk.file, "start": chunk.start, "size": chunk.size, "checksum": checksum}
        with self.lock, open(self.journal, "a") as file:
            file.write(f"{json.dumps(line)}\n")

    def _kept(self) -> set[Chunk]:
        """Return the chunks that an earlier copy has written and that are as it wrote them."""
        wanted, kept = set(_chunks(self.sizes)), {}
        for line in files.read_json_lines(self.journal):
            chunk = Chunk(line["file"], line["start"], line["size"])
            if chunk in wanted and _checksum_of(self.partial / chunk.file, chunk) == line["checksum"]:
                kept[chunk] = line
        files.write_text(self.journal, "".join(f"{json.dumps(line)}\n" for line in kept.values()))
        return set(kept)

    def _check_room(self, needed: int) -> None:
        free = shutil.disk_usage(self.partial).free
        if needed > free:
            raise NoRoom(
                f"{self.target.parent}: a copy of {self.target.name} needs {in_words(needed)} there, and "
                f"{in_words(free)} are free; free disk space on that node, or let HMS_RAY_CACHE name another folder "
                "there before Ray is started"
            )


class _Written:
    """Writes pieces behind each other, and computes their checksum."""

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
    """Return the checksum of the pieces up to this one: a CRC-32 of what each has as sums of its rows and its columns.

    It sees any damage of one word, words or rows that are exchanged, and shifted content, in a fifth of the time of a
    CRC-32 of all bytes, which would be half of the time of a copy.
    """
    whole = len(piece) // ROW * ROW
    words = np.frombuffer(piece[:whole], np.uint64).reshape(-1, ROW // 8)
    columns, rows = np.add.reduce(words, axis=0), np.add.reduce(words, axis=1)
    return zlib.crc32(piece[whole:], zlib.crc32(rows, zlib.crc32(columns, before)))


def sizes_of(store: Path) -> dict[str, int]:
    """Return the size of each file of a store that is whole; raise HolderLost where it is not."""
    if not is_whole(store):
        raise HolderLost(f"{store} is not whole")
    names = [*files.read_json(store / MANIFEST)["files"], MANIFEST]
    return {name: (store / name).stat().st_size for name in names}


def sum_of(store: Path, chunk: Chunk) -> int:
    """Return the checksum of a part of a store's file; errors as in `read_chunk`."""
    return read_chunk(store, chunk, lambda piece: None)


def read_chunk(store: Path, chunk: Chunk, take: Take) -> int:
    """Hand over a part of a store's file in pieces and return its checksum.

    Raises:
        HolderLost: the file is gone or shorter.
    """
    total = 0
    try:
        with open(store / chunk.file, "rb", buffering=0) as file:
            for piece in _pieces(file.fileno(), chunk):
                total = checksum(piece, total)
                take(piece)
    except FileNotFoundError as error:
        raise HolderLost(f"{store / chunk.file} is gone") from error
    return total


def _pieces(descriptor: int, chunk: Chunk) -> Iterator[memoryview]:
    """Yield the chunk's bytes in one piece of memory that is used again and again."""
    memory = memoryview(bytearray(min(PIECE, chunk.size)))
    at, end = chunk.start, chunk.start + chunk.size
    while at < end:
        count = min(PIECE, end - at)
        if os.preadv(descriptor, [memory[:count]], at) < count:  # it reads less at the end of the file only
            raise HolderLost(f"{chunk.file} ends before byte {end}")
        yield memory[:count]
        at += count


def _chunks(sizes: Mapping[str, int]) -> Iterator[Chunk]:
    for name, size in sizes.items():
        for start in range(0, size, CHUNK):
            yield Chunk(name, start, min(CHUNK, size - start))


def _checksum_of(path: Path, chunk: Chunk) -> int | None:
    try:
        return sum_of(path.parent, chunk)
    except HolderLost:
        return None
