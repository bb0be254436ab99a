"""Copy a prepared store from one node of a Ray cluster to another, both on this machine, in turns with a plain copy of
the same file through a loopback socket. Both copies end with fsync."""

import argparse
import json
import logging
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bench._words import mb, ratio
from hms_ray.core.errors import DataError
from hms_ray.execution import store_copies
from hms_ray.store import wire
from hms_ray.store.share import StoreRef

BLOCK = 1 << 20
WAYS = ("connection", "objects")
SENDER = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection, open(sys.argv[2], "rb") as file:
    connection.sendfile(file)
"""


def run(arguments: list[str]) -> Iterator[str]:
    """Yield the seconds of each round, the median of the ratios, and the memory."""
    parser = argparse.ArgumentParser(prog="python -m bench store_copy", description=__doc__)
    parser.add_argument("--gb", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["connection"], help="how chunks travel")
    parser.add_argument("--folder", type=Path, help="where the files lie meanwhile (default: the temporary folder)")
    options = parser.parse_args(arguments)
    size = int(options.gb * 1e9)
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch, _two_nodes(Path(scratch), size) as nodes:
        yield f"a store of {options.gb:g} GB, copied {options.rounds} times"
        for way in options.ways:
            ratios = []
            for _ in range(options.rounds):
                plain, ours = nodes.plain(), nodes.copy(way)
                ratios.append(ours / plain)
                yield f"{way}: {ours:.2f} s, plain socket {plain:.2f} s, ratio {ratios[-1]:.2f}"
            yield ratio(f"{way}, median ratio", statistics.median(ratios), "at most 1.5")
            before = _memory()
            with _sampled() as peak:  # in a copy of its own: Linux walks through all memory for each sample
                nodes.copy(way)
            yield extra_memory(peak, before)


def make_store(folder: Path, size: int) -> Path:
    """Write a whole store whose one array has so many bytes."""
    folder.mkdir(parents=True)
    block = np.random.default_rng(0).bytes(BLOCK)
    with open(folder / "x.npy", "wb") as file:
        for start in range(0, size, BLOCK):
            file.write(block[: size - start])
    (folder / "manifest.json").write_text(json.dumps({"files": {"x.npy": size}}))
    return folder


def plain_copy(source: Path, target: Path) -> float:
    """Receive a file that another process sends; return the seconds until it is on the disk."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = subprocess.Popen([sys.executable, "-c", SENDER, str(server.getsockname()[1]), str(source)])
        connection, _ = server.accept()
        start, memory = time.perf_counter(), memoryview(bytearray(BLOCK))
        with connection, open(target, "wb", buffering=0) as file:
            while count := connection.recv_into(memory):
                file.write(memory[:count])
            os.fsync(file.fileno())
    seconds = time.perf_counter() - start
    sender.wait()
    return seconds


def extra_memory(peak: Mapping[str, int], before: Mapping[str, int]) -> str:
    """Return the words for what a copy takes more than was taken before."""
    private, objects = (peak[kind] - before[kind] for kind in ("private", "objects"))
    return (
        f"  extra memory of all processes: {mb(private)}, and of the object stores {mb(objects)} (goal: under 1000 MB)"
    )


@dataclass(frozen=True)
class _Nodes:
    """Two nodes: this driver's, which holds the store, and one that has a cache of its own."""

    root: Path
    store: Path
    node: str

    def plain(self) -> float:
        """Copy the store's file through a socket; return the seconds."""
        os.sync()
        seconds = plain_copy(self.store / "x.npy", self.root / "plain.npy")
        (self.root / "plain.npy").unlink()
        return seconds

    def copy(self, way: str) -> float:
        """Copy the store from node to node by `way`; return the seconds."""
        os.sync()
        ref = StoreRef(self.store.name, Path("/what no other node sees"), None)
        there = NodeAffinitySchedulingStrategy(self.node, soft=False)
        own = {"env_vars": {"HMS_RAY_CACHE": str(self.root / "cache")}}
        copy = _copy.options(scheduling_strategy=there, runtime_env=own)
        ray.get(copy.remote([], way))  # its process has started
        seconds = ray.get(copy.remote([ref], way))
        copied = self.root / "cache" / "prepared" / self.store.name
        if (copied / "x.npy").stat().st_size != (self.store / "x.npy").stat().st_size:
            raise DataError(f"{copied}: not the whole store")
        shutil.rmtree(copied)
        return seconds


@contextmanager
def _two_nodes(root: Path, size: int) -> Iterator[_Nodes]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        node = cluster.add_node(num_cpus=1)
        ray.init(cluster.address, log_to_driver=False, logging_level=logging.WARNING)
        store, directory = make_store(root / "there" / "store", size), store_copies.open_directory()
        ray.get(directory.holds.remote(store.name, ray.get_runtime_context().get_node_id(), store))
        yield _Nodes(root, store, node.node_id)
    finally:
        ray.shutdown()
        cluster.shutdown()


@ray.remote(num_cpus=1)
def _copy(refs: list[StoreRef], way: str) -> float:
    if way == "objects":
        wire.Remote.connect = _refused
    start = time.perf_counter()
    store_copies.bring(refs, lambda sentence: None)
    return time.perf_counter() - start


def _refused(holder: wire.Remote) -> NoReturn:
    raise ConnectionRefusedError("not in this bench")


@contextmanager
def _sampled() -> Iterator[dict[str, int]]:
    """Yield a dict that holds the most memory of each kind when the block is left."""
    peak, over = _memory(), threading.Event()

    def sample() -> None:
        while not over.wait(0.1):
            for kind, value in _memory().items():
                peak[kind] = max(peak[kind], value)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def _memory() -> dict[str, int]:
    """Return the bytes that this process and its descendants have to themselves, and those of Ray's object stores."""
    found = {"private": 0, "objects": 0}
    for process in _family(os.getpid()):
        with suppress(OSError):  # it has ended
            memory = Path(f"/proc/{process}/smaps_rollup").read_text()
            fields = dict(line.split()[:2] for line in memory.splitlines()[1:])
            found["private"] += 1024 * int(fields["Pss_Anon:"])
            found["objects"] += 1024 * int(fields["Pss_Shmem:"])
    return found


def _family(process: int) -> Iterator[int]:
    yield process
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, children.read_text().split()):
                yield from _family(child)
