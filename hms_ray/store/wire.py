"""Send stores over plain TCP connections, which take a fifth of the processor time of Ray's objects.

The server answers only clients that know its secret. The data are not encrypted, as in Ray by default.

    client: the secret, then for each chunk one line of JSON: store (a folder), file, start, size
    server: the chunk's bytes and their checksum; it closes the connection if the chunk cannot be read
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
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from hms_ray.store.copies import PIECE, Chunk, HolderLost, Take, sizes_of, sum_of

CONNECT_S, ANSWER_S, IDLE_S = 5, 60, 600
CHECKSUM = struct.Struct("!I")


@dataclass(frozen=True)
class Address:
    """Host and port of a server, and the secret that a client must send."""

    host: str
    port: int
    secret: str


class Server:
    """Sends chunks of the stores of this machine, with one thread for each connection."""

    def __init__(self, host: str) -> None:
        self.listener = _Listener(host)
        self.address = Address(host, self.listener.server_address[1], self.listener.secret)
        threading.Thread(target=self.listener.serve_forever, name="store server", daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self.listener.shutdown()
        self.listener.server_close()


class _Listener(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, host: str) -> None:
        self.secret = secrets.token_hex(32)
        super().__init__((host, 0), _Connection)


class _Connection(socketserver.StreamRequestHandler):
    timeout = IDLE_S
    server: _Listener

    def handle(self) -> None:
        secret = self.rfile.readline(len(self.server.secret) + 2).strip()
        if not hmac.compare_digest(secret, self.server.secret.encode()):
            return
        with suppress(HolderLost, OSError):  # no such chunk, or the client is gone: close the connection
            while line := self.rfile.readline(1 << 16):
                request = json.loads(line)
                store, chunk = Path(request.pop("store")), Chunk(**request)
                if chunk.file not in sizes_of(store):
                    raise HolderLost(f"{store} has no {chunk.file}")
                with open(store / chunk.file, "rb") as file:  # sendfile needs no copy in this process
                    checksum = _cached_sum(store, chunk, os.fstat(file.fileno()).st_mtime_ns)
                    if self.connection.sendfile(file, chunk.start, chunk.size) < chunk.size:
                        raise HolderLost(f"{store / chunk.file} is shorter now")
                self.wfile.write(CHECKSUM.pack(checksum))


@functools.lru_cache(1 << 16)
def _cached_sum(store: Path, chunk: Chunk, written_ns: int) -> int:
    """Return the checksum of a chunk, computed once for all clients until its file is written again."""
    return sum_of(store, chunk)


class Link:
    """A connection with reused memory for received bytes; new memory would take as much time as receiving."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection, self.memory = connection, memoryview(bytearray(PIECE))

    def filled(self, size: int) -> memoryview:
        """Receive `size` bytes, at most PIECE, and return them; the next call overwrites them."""
        memory, received = self.memory[:size], 0
        while received < size:
            count = self.connection.recv_into(memory[received:])
            if not count:
                raise ConnectionError("the connection has ended")
            received += count
        return memory


class Remote:
    """A holder on another machine, with one reused connection for each chunk in flight.

    store: its folder there; sizes: sizes of its files
    """

    def __init__(self, name: str, address: Address, store: Path, sizes: Mapping[str, int]) -> None:
        self.name, self.address, self.store, self.sizes = name, address, store, sizes
        self.idle: deque[Link] = deque()

    def files(self) -> Mapping[str, int]:
        return self.sizes

    def read(self, file: str, start: int, size: int, take: Take) -> int:
        try:
            link = self.idle.pop() if self.idle else self.connect()
            request = {"store": str(self.store), **asdict(Chunk(file, start, size))}
            link.connection.sendall(json.dumps(request).encode() + b"\n")
            for left in range(size, 0, -PIECE):
                take(link.filled(min(left, PIECE)))
            (checksum,) = CHECKSUM.unpack(link.filled(CHECKSUM.size))
        except OSError as error:
            raise HolderLost(f"{self.name}: {error}") from error
        self.idle.append(link)
        return int(checksum)

    def connect(self) -> Link:
        """Return a new connection; raise OSError if there is no server."""
        connection = socket.create_connection((self.address.host, self.address.port), CONNECT_S)
        connection.settimeout(ANSWER_S)
        connection.sendall(f"{self.address.secret}\n".encode())
        return Link(connection)

    def close(self) -> None:
        """Close the connections."""
        while self.idle:
            self.idle.pop().connection.close()
