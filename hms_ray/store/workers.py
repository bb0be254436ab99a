"""Who computes the pieces: here, a few threads."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

import torch

T = TypeVar("T")
THREADS = min(8, os.cpu_count() or 1)
AHEAD = 2  # pieces in flight for each worker: memory does not grow with their number


class Workers(Protocol):
    """Applies a function to each item, several at once, a few ahead of who takes the results."""

    def imap(self, function: Callable[[str], T], items: Sequence[str]) -> Iterator[T]:
        """Yield the results in the order of the items; the first error is raised."""


class Threads:
    """Threads of this process: reading and computing release Python's lock."""

    def imap(self, function: Callable[[str], T], items: Sequence[str]) -> Iterator[T]:
        with torch_threads(1), ThreadPoolExecutor(THREADS) as pool:
            flight: deque[Future[T]] = deque()
            try:
                for item in items:
                    flight.append(pool.submit(function, item))
                    if len(flight) >= AHEAD * THREADS:
                        yield flight.popleft().result()
                while flight:
                    yield flight.popleft().result()
            finally:
                for future in flight:
                    future.cancel()


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use so many threads meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
