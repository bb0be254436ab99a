"""Hand stores over by a plain TCP connection: it takes a fifth of the processor time of objects of Ray.

Only a client that knows the server's secret is answered. What is sent is not encrypted, as with Ray by default.

    client: the secret, then for each chunk one line of JSON: store (a folder), file, start, size
    server: the chunk's bytes and their checksum; the connection ends where the chunk cannot be read
"""

import functools
import hmac
import json
import os
import secrets
import socket
import socketserver
import struct
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hms_ray.store.copies import PIECE, Chunk, HolderLost, Take, sizes_of, sum_of

CONNECT_S, ANSWER_S, IDLE_S = 5, 60, 600
CHECKSUM = struct.Struct("!I")


@dataclass(frozen=True)
class Address:
    """Where a server listens, and the secret that a client must tell it."""

    host: str
    port: int
    secret: str


class Server:
    """Sends chunks of this machine's stores, to each connection in a thread of its own."""

    def __init__(self, host: str) -> None:
        self.listener = _Listener((host, 0), _Connection)
        self.address = Address(host, self.listener.server_address[1], self.listener.secret)
        threading.Thread(target=self.listener.serve_forever, name="store server", daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self.listener.shutdown()
        self.listener.server_close()


class _Listener(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        self.secret = secrets.token_hex(32)
        super().__init__(*arguments)


class _Connection(socketserver.StreamRequestHandler):
    timeout = IDLE_S
    server: _Listener

    def handle(self) -> None:
        heard = self.rfile.readline(len(self.server.secret) + 2).strip()
        if not hmac.compare_digest(heard, self.server.secret.encode()):
            return
        try:
            while line := self.rfile.readline(1 << 16):
                self._answer(json.loads(line))
        except (HolderLost, OSError):  # no such chunk, or nobody listens any more: the connection ends
            return

    def _answer(self, request: dict[str, Any]) -> None:
        store, chunk = Path(request.pop("store")), Chunk(**request)
        if chunk.file not in sizes_of(store):
            raise HolderLost(f"{store} has no {chunk.file}")
        with open(store / chunk.file, "rb") as file:  # Linux sends it without a copy for this process
            checksum = _sum_once(store, chunk, os.fstat(file.fileno()).st_mtime_ns)
            if self.connection.sendfile(file, chunk.start, chunk.size) < chunk.size:
                raise HolderLost(f"{store / chunk.file} is shorter now")
        self.wfile.write(CHECKSUM.pack(checksum))


@functools.lru_cache(1 << 16)
def _sum_once(store: Path, chunk: Chunk, written_ns: int) -> int:
    """Return a chunk's checksum, computed once for all nodes until its file is written again."""
    return sum_of(store, chunk)


class Link:
    """A connection, and the memory that takes what comes by it: new memory would cost as much as what is taken."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection, self.memory = connection, memoryview(bytearray(PIECE))

    def filled(self, size: int) -> memoryview:
        """Take so many bytes, PIECE at most, and return them; they last until the next call."""
        memory, have = self.memory[:size], 0
        while have < size:
            count = self.connection.recv_into(memory[have:])
            if not count:
                raise ConnectionError("the connection has ended")
            have += count
        return memory


class Remote:
    """A holder at the other end of such connections: one for each chunk in flight, used again and again.

    store: the folder there; sizes: of its files
    """

    def __init__(self, name: str, address: Address, store: Path, sizes: Mapping[str, int]) -> None:
        self.name, self.address, self.store, self.sizes = name, address, store, sizes
        self.idle: deque[Link] = deque()

    def files(self) -> Mapping[str, int]:
        return self.sizes

    def read(self, file: str, start: int, size: int, take: Take) -> int:
        try:
            link = self.idle.pop() if self.idle else self.connect()
            checksum = self._ask(link, Chunk(file, start, size), take)
        except OSError as error:
            raise HolderLost(f"{self.name}: {error}") from error
        self.idle.append(link)
        return checksum

    def connect(self) -> Link:
        """Return a new connection; raise OSError where nobody listens."""
        connection = socket.create_connection((self.address.host, self.address.port), CONNECT_S)
        connection.settimeout(ANSWER_S)
        connection.sendall(f"{self.address.secret}\n".encode())
        return Link(connection)

    def close(self) -> None:
        """End the connections."""
        while self.idle:
            self.idle.pop().connection.close()

    def _ask(self, link: Link, chunk: Chunk, take: Take) -> int:
        link.connection.sendall(json.dumps({"store": str(self.store), **asdict(chunk)}).encode() + b"\n")
        for left in range(chunk.size, 0, -PIECE):
            take(link.filled(min(left, PIECE)))
        return CHECKSUM.unpack(link.filled(CHECKSUM.size))[0]
