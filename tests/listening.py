"""Where a process listens, as Linux tells it."""

import ipaddress
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def listening(pid: int) -> Iterator[tuple[str, ipaddress.IPv4Address | ipaddress.IPv6Address]]:
    """Yield the name of a process and the address of each socket on which it listens."""
    name, sockets = Path(f"/proc/{pid}/comm").read_text().strip(), set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            sockets.add(os.readlink(descriptor))
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in sockets:
                yield name, _address(local.split(":")[0])


def _address(digits: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the address of a line of /proc/net/tcp: words of four bytes each, as this machine has them."""
    words = [int(digits[i : i + 8], 16).to_bytes(4, sys.byteorder) for i in range(0, len(digits), 8)]
    address = ipaddress.ip_address(b"".join(words))
    return getattr(address, "ipv4_mapped", None) or address
