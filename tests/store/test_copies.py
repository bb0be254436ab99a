"""A store is copied chunk by chunk: whatever is killed, damaged or lost meanwhile, in the end it is the original."""

import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hms_ray.core.errors import DataError
from hms_ray.store import copies
from hms_ray.store._writer import is_whole
from hms_ray.store.copies import Chunk, HolderLost, NoRoom, Take, copy_store, read_chunk, sizes_of
from hms_ray.store.wire import Remote, Server

FORK = multiprocessing.get_context("fork")  # at once, with what the test has set
CHUNKS = 11  # of x.npy, and one of the manifest


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of three pieces and a half."""
    monkeypatch.setattr(copies, "CHUNK", 3500)
    monkeypatch.setattr(copies, "PIECE", 1000)
    monkeypatch.setattr(copies, "WINDOW", 2)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A whole store of one array and its manifest."""
    folder = tmp_path / "there" / "toy-1"
    folder.mkdir(parents=True)
    (folder / "x.npy").write_bytes(np.random.default_rng(0).bytes(3500 * (CHUNKS - 1) + 100))
    (folder / "manifest.json").write_text(json.dumps({"files": {"x.npy": (folder / "x.npy").stat().st_size}}))
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "here" / "toy-1"


class Local:
    """A holder in this process; `disturb` is called with each chunk and its number, and may raise."""

    def __init__(self, store: Path, disturb: Callable[[Chunk, int], int | None] = lambda chunk, n: None) -> None:
        self.name, self.store, self.disturb = store.parent.name, store, disturb
        self.asked: list[Chunk] = []
        self.lock = threading.Lock()

    def files(self) -> Mapping[str, int]:
        return sizes_of(self.store)

    def read(self, file: str, start: int, size: int, take: Take) -> int:
        chunk = Chunk(file, start, size)
        with self.lock:
            self.asked.append(chunk)
            number = len(self.asked)
        flip = self.disturb(chunk, number)
        return read_chunk(self.store, chunk, take) ^ (flip or 0)


class Among:
    """Holders in a row; one that is lost does not come back."""

    def __init__(self, *holders: Local | Remote) -> None:
        self.left = list(holders)

    def next(self, lost: Local | Remote | None) -> Local | Remote:
        self.left = [holder for holder in self.left if holder is not lost]
        if not self.left:
            raise DataError("nobody has it")
        return self.left[0]


def same(one: Path, other: Path) -> bool:
    return {p.name: p.read_bytes() for p in one.iterdir()} == {p.name: p.read_bytes() for p in other.iterdir()}


def begun(target: Path) -> list[Chunk]:
    """The chunks that a copy has written."""
    journal = target.with_name(f"{target.name}.copy") / "chunks.jsonl"
    lines = journal.read_text().splitlines() if journal.is_file() else []
    return [Chunk(line["file"], line["start"], line["size"]) for line in map(json.loads, lines)]


def killed_after(count: int, store: Path, target: Path) -> None:
    """Copy in a process of its own that is killed when it has written so many chunks."""

    def stop(chunk: Chunk, number: int) -> None:
        if number > count:
            time.sleep(60)

    process = FORK.Process(target=copy_store, args=(target, Among(Local(store, stop))))
    process.start()
    while len(begun(target)) < count:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def test_a_copy_is_the_original_and_says_its_size_before(store: Path, target: Path) -> None:
    said = []
    size = sum(path.stat().st_size for path in store.iterdir())
    holder = Local(store)
    assert copy_store(target, Among(holder), lambda *words: said.append(words)) == size
    assert same(store, target) and said == [("there", size)]
    assert len(holder.asked) == len(set(holder.asked)) == CHUNKS + 1
    assert copy_store(target, Among()) == 0, "what is there needs no holder"


def test_a_killed_copy_goes_on_where_it_stopped(store: Path, target: Path) -> None:
    killed_after(5, store, target)
    kept = begun(target)
    assert not target.exists() and len(kept) == 5
    holder = Local(store)
    copy_store(target, Among(holder))
    assert same(store, target)
    assert not set(holder.asked) & set(kept) and len(holder.asked) == CHUNKS + 1 - 5


def test_what_a_power_failure_took_from_a_killed_copy_is_copied_again(store: Path, target: Path) -> None:
    killed_after(4, store, target)
    lost = begun(target)[1]
    with open(target.with_name("toy-1.copy") / lost.file, "r+b") as file:
        file.seek(lost.start)
        file.write(bytes(8))
    holder = Local(store)
    copy_store(target, Among(holder))
    assert same(store, target) and lost in holder.asked


def test_the_line_that_a_kill_has_cut_counts_nothing(store: Path, target: Path) -> None:
    killed_after(3, store, target)
    journal = target.with_name("toy-1.copy") / "chunks.jsonl"
    journal.write_text(journal.read_text()[:-9])
    copy_store(target, Among(Local(store)))
    assert same(store, target)


def test_a_damaged_chunk_is_fetched_again(store: Path, target: Path) -> None:
    holder = Local(store, lambda chunk, number: 1 if number == 4 else None)
    copy_store(target, Among(holder))
    assert same(store, target) and len(holder.asked) == CHUNKS + 2


def test_a_chunk_that_is_always_damaged_ends_the_copy_with_a_sentence(store: Path, target: Path) -> None:
    holder = Local(store, lambda chunk, number: 1 if chunk.start == 7000 else None)
    with pytest.raises(DataError) as caught:
        copy_store(target, Among(holder))
    assert str(caught.value) == (
        "toy-1: the chunk of x.npy at byte 7000 arrived damaged 3 times, at last from there; check that machine's "
        "memory and network"
    )
    assert not target.exists() and len(begun(target)) >= 2, "what was whole is kept"


def test_a_copy_that_loses_its_holder_goes_on_from_another(store: Path, target: Path, tmp_path: Path) -> None:
    def gone(chunk: Chunk, number: int) -> None:
        if number > 5:
            raise HolderLost("the node is dead")

    second = Path(shutil.copytree(store, tmp_path / "elsewhere" / "toy-1"))
    dying, other = Local(store, gone), Local(second)
    copy_store(target, Among(dying, other))
    assert same(store, target)
    assert len(other.asked) == CHUNKS + 1 - 5, "five came from the first"


def test_without_any_holder_it_says_so_and_keeps_what_it_has(store: Path, target: Path) -> None:
    def gone(chunk: Chunk, number: int) -> None:
        if number > 5:
            raise HolderLost("the node is dead")

    with pytest.raises(DataError, match="nobody has it"):
        copy_store(target, Among(Local(store, gone)))
    assert not target.exists() and len(begun(target)) == 5


def test_of_two_processes_one_copies_and_both_have_it(store: Path, target: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"

    def note(chunk: Chunk, number: int) -> None:
        with open(log, "a") as file:
            file.write(f"{chunk.file} {chunk.start}\n")
        time.sleep(0.01)

    def copy() -> None:
        copy_store(target, Among(Local(store, note)))
        assert is_whole(target)

    processes = [FORK.Process(target=copy) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(log.read_text().splitlines()) == CHUNKS + 1 and same(store, target)


def test_a_disk_without_room_says_so_before_anything_is_asked_for(
    store: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = Local(store)
    monkeypatch.setattr(copies.shutil, "disk_usage", lambda path: SimpleNamespace(free=20_000))
    with pytest.raises(NoRoom, match=r"here: a copy of toy-1 needs 35\.1 kB there, and 20\.0 kB are free;"):
        copy_store(target, Among(holder))
    assert holder.asked == []


def test_it_counts_no_room_twice_for_what_it_has(store: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed_after(8, store, target)
    monkeypatch.setattr(copies.shutil, "disk_usage", lambda path: SimpleNamespace(free=20_000))
    copy_store(target, Among(Local(store)))
    assert same(store, target)


def test_a_checksum_sees_what_happens_to_bytes() -> None:
    rng = np.random.default_rng(0)
    content = rng.integers(0, 256, 3 * 8192 + 17, dtype=np.uint8)
    seen = {copies.checksum(memoryview(content))}
    words = content[: 3 * 8192].view(np.uint64).reshape(3, 1024)
    for damage in (words[::-1], words[:, ::-1], np.roll(words, 1, axis=1), np.roll(words, 1, axis=0)):
        seen.add(
            copies.checksum(memoryview(np.concatenate([damage.copy().view(np.uint8).ravel(), content[3 * 8192 :]])))
        )
    for place in (0, 8191, 8192, len(content) - 1, *rng.integers(0, len(content), 20)):
        other = content.copy()
        other[place] ^= 1 << rng.integers(8)
        seen.add(copies.checksum(memoryview(other)))
    assert len(seen) == 1 + 4 + 24
    assert copies.checksum(memoryview(content[:5]), 7) != copies.checksum(memoryview(content[:5]), 8)


@pytest.fixture
def server() -> Server:
    server = Server("127.0.0.1")
    yield server
    server.close()


def remote(server: Server, store: Path) -> Remote:
    return Remote("peer", server.address, store, sizes_of(store))


def test_a_store_comes_over_a_connection(store: Path, target: Path, server: Server) -> None:
    copy_store(target, Among(remote(server, store)))
    assert same(store, target)


def test_a_client_without_the_secret_gets_nothing(store: Path, server: Server) -> None:
    stranger = remote(server, store)
    object.__setattr__(stranger.address, "secret", "0" * 64)
    with pytest.raises(HolderLost):
        stranger.read("x.npy", 0, 100, lambda piece: pytest.fail("it was told"))


@pytest.mark.parametrize("file", ["../secret.txt", "other.txt"])
def test_only_a_stores_own_files_are_sent(store: Path, server: Server, file: str) -> None:
    for path in (store / "other.txt", store.parent / "secret.txt"):
        path.write_bytes(bytes(100))
    with pytest.raises(HolderLost):
        remote(server, store).read(file, 0, 100, lambda piece: pytest.fail("it was told"))


def test_a_file_that_vanishes_is_a_lost_holder(store: Path, target: Path, server: Server, tmp_path: Path) -> None:
    second = Path(shutil.copytree(store, tmp_path / "elsewhere" / "toy-1"))
    first = remote(server, store)
    (store / "x.npy").unlink()
    copy_store(target, Among(first, remote(server, second)))
    assert same(second, target)


def test_a_server_that_is_killed_is_a_lost_holder(store: Path, target: Path, server: Server, tmp_path: Path) -> None:
    """Its process is killed in the middle of the copy."""
    ours, theirs = FORK.Pipe()

    def serve() -> None:
        theirs.send(Server("127.0.0.1").address)
        time.sleep(60)

    process = FORK.Process(target=serve)
    process.start()
    second = Path(shutil.copytree(store, tmp_path / "elsewhere" / "toy-1"))
    dying, count = Remote("dying", ours.recv(), store, sizes_of(store)), 0
    read = dying.read

    def counted(*arguments: object) -> int:
        nonlocal count
        count += 1
        if count == 4:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        return read(*arguments)

    dying.read = counted
    copy_store(target, Among(dying, remote(server, second)))
    assert same(store, target) and 4 <= count <= 6, "no more was asked of the dead one"
