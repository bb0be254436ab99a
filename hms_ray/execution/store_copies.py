"""Stores brought to the nodes of a cluster that share no disk: from the driver's node, or from one that has a copy.

The driver starts one directory, beside it. It knows who holds what, and starts a server on a node that holds a store
when somebody asks for it. Whoever misses a store copies it into its node's own cache, once a node.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util import get_node_ip_address
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hms_ray.core.errors import DataError, TrialFailed, UserError
from hms_ray.core.sizes import in_words
from hms_ray.store import copies, wire
from hms_ray.store.copies import Chunk, Holder, HolderLost, Take, copy_store
from hms_ray.store.share import StoreRef

log = logging.getLogger(__name__)
NAME = "hms_ray store directory"
START_S = 60  # for the server of a node
ROUNDS = 3  # how often all holders are asked again before none is left
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Held:
    """A node that holds a store: its folder there, and who sends it."""

    node: str
    folder: Path
    server: Any
    address: wire.Address


@ray.remote(num_cpus=0, max_concurrency=8, max_restarts=-1)
class StoreServer:
    """Sends the stores of its node: by a connection of its own, or as objects of Ray where that cannot be reached."""

    def __init__(self) -> None:
        host = get_node_ip_address()
        try:
            self.listens = wire.Server(host).address
        except OSError as error:  # the node's address is not one of this machine's own, as behind a translation
            log.warning("cannot listen on %s (%s); stores are sent as objects of Ray", host, error)
            self.listens = wire.Address(host, 0, "")

    def address(self) -> wire.Address:
        """Return where it listens; port 0: nowhere."""
        return self.listens

    def sizes(self, store: Path) -> Mapping[str, int] | None:
        """Return the size of each file of a store; None where it is not whole."""
        try:
            return copies.sizes_of(store)
        except HolderLost:
            return None

    def read(self, store: Path, chunk: Chunk) -> tuple[int, np.ndarray] | None:
        """Return a chunk's checksum and its bytes; None where it is not there."""
        content, at = np.empty(chunk.size, np.uint8), 0

        def take(piece: memoryview) -> None:
            nonlocal at
            content[at : at + len(piece)] = piece
            at += len(piece)

        try:
            return copies.read_chunk(store, chunk, take), content
        except HolderLost:
            return None


@ray.remote(num_cpus=0, max_restarts=-1)
class StoreDirectory:
    """Knows which nodes hold a store, and who copies from whom."""

    def __init__(self, driver: str) -> None:
        self.driver = driver
        self.held: dict[str, dict[str, Path]] = {}
        self.servers: dict[str, Any] = {}
        self.copying: dict[str, str] = {}

    async def holds(self, store: str, node: str, folder: Path) -> None:
        """Take note that a node has a store now."""
        self.held.setdefault(store, {})[node] = folder
        self.copying.pop(node, None)

    async def next(self, ref: StoreRef, node: str, lost: Sequence[str]) -> Held | None:
        """Return who sends a store to a node: of those that were not lost the one that sends to the fewest; None:
        nobody is left."""
        held = {self.driver: ref.path} | self.held.get(ref.name, {})
        self.copying.pop(node, None)
        sending = list(self.copying.values())
        for holder in sorted(held.keys() - {node, *lost}, key=lambda holder: (sending.count(holder), holder)):
            if address := await self._address(holder):
                self.copying[node] = holder
                return Held(holder, held[holder], self.servers[holder], address)
        return None

    async def _address(self, node: str) -> wire.Address | None:
        """Return where a node's server listens, started unless it runs; None: the node is lost."""
        if node not in self.servers:
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            self.servers[node] = StoreServer.options(scheduling_strategy=there).remote()
        try:
            return await asyncio.wait_for(self.servers[node].address.remote(), START_S)
        except (RayError, TimeoutError):
            del self.servers[node]
            return None


def open_directory() -> Any:
    """Start the directory beside the driver, and return it: whoever has its handle keeps it alive."""
    me = ray.get_runtime_context().get_node_id()
    there = NodeAffinitySchedulingStrategy(me, soft=False)
    return StoreDirectory.options(name=NAME, scheduling_strategy=there, max_task_retries=3).remote(me)


def bring(refs: Iterable[StoreRef], tell: Tell) -> None:
    """Have stores on this node: one that is at neither a shared folder nor the URL is copied from a node that has it.

    tell: is given a sentence when a copy begins and when it ends

    Raises:
        TrialFailed: a store cannot be had, or the disk has no room; the cause is chained.
    """
    try:
        for ref in refs:
            if _found(ref) is None:
                _copy(ref, tell)
    except (UserError, OSError) as error:
        raise TrialFailed(f"node {get_node_ip_address()}: {error}") from error


def _found(ref: StoreRef) -> Path | None:
    try:
        return ref.find()
    except UserError as error:
        log.warning("%s; copying %s from another node", error, ref.name)
        return ref.copy_path if copies.is_whole(ref.copy_path) else None


def _copy(ref: StoreRef, tell: Tell) -> None:
    try:
        directory = ray.get_actor(NAME)
    except ValueError:  # Ray runs on this machine alone
        ref.local()
        return
    node, here, begun = ray.get_runtime_context().get_node_id(), get_node_ip_address(), time.monotonic()

    def begins(holder: str, size: int) -> None:
        tell(f"copying {ref.name} ({in_words(size)}) from node {holder} to node {here}")

    size = copy_store(ref.copy_path, _Others(ref, node, directory), begins)
    ray.get(directory.holds.remote(ref.name, node, ref.copy_path))
    if size:
        seconds = time.monotonic() - begun
        tell(f"copied {ref.name} to node {here} in {seconds:.0f} s ({in_words(size / seconds)}/s)")


class _Others:
    """The other nodes that hold a store."""

    def __init__(self, ref: StoreRef, node: str, directory: Any) -> None:
        self.ref, self.node, self.directory = ref, node, directory
        self.nodes: dict[Holder, str] = {}
        self.lost: list[str] = []
        self.rounds = 0

    def next(self, lost: Holder | None) -> Holder:
        if lost is not None:
            self.lost.append(self.nodes[lost])
        while True:
            held = ray.get(self.directory.next.remote(self.ref, self.node, self.lost))
            if held is not None and (holder := self._opened(held)) is not None:
                self.nodes[holder] = held.node
                return holder
            if held is not None:
                self.lost.append(held.node)
                continue
            self.rounds += 1
            if self.rounds == ROUNDS:
                raise DataError(
                    f"{self.ref.name}: no node of the cluster has this prepared data any more; run the same command "
                    "again, which prepares what is missing"
                )
            time.sleep(self.rounds)
            self.lost.clear()  # their servers may have been started again

    def _opened(self, held: Held) -> Holder | None:
        """Return the node as a holder; None: it is lost, or has the store no more."""
        try:
            sizes = ray.get(held.server.sizes.remote(held.folder), timeout=START_S)
        except (RayError, GetTimeoutError):
            return None
        if sizes is None:
            return None
        direct = wire.Remote(held.address.host, held.address, held.folder, sizes)
        if os.environ.get("RAY_USE_TLS", "0").lower() not in ("1", "true"):  # else all that travels is to be encrypted
            try:
                direct.idle.append(direct.connect())
            except OSError as error:
                log.warning("node %s: port %d: %s; copying by Ray", direct.name, held.address.port, error)
            else:
                return direct
        return _Objects(held, sizes)


class _Objects:
    """A holder whose chunks come as objects of Ray."""

    def __init__(self, held: Held, sizes: Mapping[str, int]) -> None:
        self.held, self.sizes, self.name = held, sizes, held.address.host

    def files(self) -> Mapping[str, int]:
        return self.sizes

    def read(self, file: str, start: int, size: int, take: Take) -> int:
        try:
            answer = ray.get(self.held.server.read.remote(self.held.folder, Chunk(file, start, size)))
        except RayError as error:
            raise HolderLost(f"{self.name}: {error}") from error
        if answer is None:
            raise HolderLost(f"{self.name} has no {file} any more")
        checksum, content = answer
        take(memoryview(content))
        return checksum
