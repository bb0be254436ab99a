"""Workers that compute the pieces: a few threads of this process."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

import torch

T = TypeVar("T")
THREADS = min(8, os.cpu_count() or 1)
AHEAD = 2  # pieces in flight for each worker; bounds the memory


class Workers(Protocol):
    """Applies a function to items in parallel, at most a few items ahead of the consumer."""

    def imap(self, function: Callable[[str], T], items: Sequence[str]) -> Iterator[T]:
        """Yield the results in the order of the items; the first error is raised."""


class Threads:
    """Threads of this process: reading and computing release the interpreter lock."""

    def imap(self, function: Callable[[str], T], items: Sequence[str]) -> Iterator[T]:
        with torch_threads(1), ThreadPoolExecutor(THREADS) as pool:
            futures: deque[Future[T]] = deque()
            try:
                for item in items:
                    futures.append(pool.submit(function, item))
                    if len(futures) >= AHEAD * THREADS:
                        yield futures.popleft().result()
                while futures:
                    yield futures.popleft().result()
            finally:
                for future in futures:
                    future.cancel()


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Set the number of torch's threads inside the context."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
