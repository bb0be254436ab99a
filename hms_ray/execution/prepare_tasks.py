"""Preparing with Ray: tasks read and compute recordings, as many at once as the cluster has CPUs."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import ray

from hms_ray.allocator import keep_freed
from hms_ray.errors import UserError
from hms_ray.store.workers import AHEAD, Threads

T = TypeVar("T")
ITEMS = 8  # a task: starting one takes about as long as reading a recording
FEW = 256  # recordings that are read here before the first task's process has started


class RayTasks:
    """Workers that are Ray tasks of one CPU each; results come back through the object store.

    A node that does not see the recordings costs time only: what fails in a task is tried here.

    start: starts Ray where it is not running, once it is worth its while
    """

    def __init__(self, start: Callable[[], object] | None = None) -> None:
        self.start = start

    def imap(self, function: Callable[[str], T], items: Sequence[str]) -> Iterator[T]:
        if len(items) < FEW:
            yield from Threads().imap(function, items)
            return
        if self.start is not None:
            self.start()
            self.start = None
        shared, flight = ray.put(function), deque()
        most = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        for first in range(0, len(items), ITEMS):
            some = items[first : first + ITEMS]
            flight.append((some, _apply.remote(shared, some)))
            if len(flight) >= most:
                yield from _results(function, *flight.popleft())
        while flight:
            yield from _results(function, *flight.popleft())


@ray.remote(num_cpus=1)
def _apply(function: Callable[[str], T], items: Sequence[str]) -> list[T] | None:
    """Return the results, or None where a recording is missing or broken as this node sees it."""
    keep_freed()
    try:
        return [function(item) for item in items]
    except UserError:
        return None


def _results(function: Callable[[str], T], items: Sequence[str], task: ray.ObjectRef) -> Iterator[T]:
    """Yield a task's results, computed here where it had none.

    Raises:
        DataError: a recording is missing or broken here as well.
    """
    found = ray.get(task)
    yield from map(function, items) if found is None else found
