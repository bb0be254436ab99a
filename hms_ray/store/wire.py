"""Hand stores over by a plain TCP connection: it takes a fifth of the processor time of objects of Ray.

Only a client that knows the server's secret is answered. What is sent is not encrypted, as with Ray by default.

    client: the secret, then for each chunk one line of JSON: store (a folder), file, start, size
    server: the chunk's bytes and their checksum; the connection ends where the chunk cannot be read
"""

import hmac
import json
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

from hms_ray.store.copies import PIECE, Chunk, HolderLost, Take, read_chunk, sizes_of

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

    def _answer(self, request: Mapping[str, Any]) -> None:
        store, chunk = Path(request.pop("store")), Chunk(**request)
        if chunk.file not in sizes_of(store):
            raise HolderLost(f"{store} has no {chunk.file}")
        self.wfile.write(CHECKSUM.pack(read_chunk(store, chunk, self.connection.sendall)))


class Remote:
    """A holder at the other end of such connections: one for each chunk in flight, used again and again.

    store: the folder there; sizes: of its files
    """

    def __init__(self, name: str, address: Address, store: Path, sizes: Mapping[str, int]) -> None:
        self.name, self.address, self.store, self.sizes = name, address, store, sizes
        self.idle: deque[socket.socket] = deque()

    def files(self) -> Mapping[str, int]:
        return self.sizes

    def read(self, file: str, start: int, size: int, take: Take) -> int:
        try:
            connection = self.idle.pop() if self.idle else self.connect()
            checksum = self._ask(connection, Chunk(file, start, size), take)
        except OSError as error:
            raise HolderLost(f"{self.name}: {error}") from error
        self.idle.append(connection)
        return checksum

    def connect(self) -> socket.socket:
        """Return a new connection; raise OSError where nobody listens."""
        connection = socket.create_connection((self.address.host, self.address.port), CONNECT_S)
        connection.settimeout(ANSWER_S)
        connection.sendall(f"{self.address.secret}\n".encode())
        return connection

    def close(self) -> None:
        """End the connections."""
        while self.idle:
            self.idle.pop().close()

    def _ask(self, connection: socket.socket, chunk: Chunk, take: Take) -> int:
        connection.sendall(json.dumps({"store": str(self.store), **asdict(chunk)}).encode() + b"\n")
        memory, left = memoryview(bytearray(min(PIECE, chunk.size))), chunk.size
        while left:
            take(_filled(connection, memory[: min(left, PIECE)]))
            left -= min(left, PIECE)
        return CHECKSUM.unpack(_filled(connection, memoryview(bytearray(CHECKSUM.size))))[0]


def _filled(connection: socket.socket, memory: memoryview) -> memoryview:
    """Fill the memory from the connection, and return it."""
    have = 0
    while have < len(memory):
        count = connection.recv_into(memory[have:])
        if not count:
            raise ConnectionError("the connection has ended")
        have += count
    return memory
