"""Preparing with Ray: tasks read and compute recordings, as many at once as the nodes that see them have CPUs."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hms_ray.core.allocator import keep_freed
from hms_ray.core.errors import UserError
from hms_ray.store.workers import AHEAD, Threads

T = TypeVar("T")
ITEMS = 8  # a task: starting one takes about as long as reading a recording
FEW = 256  # recordings that are read here before the first task's process has started
PROBE_S = 60  # how long another node may take to show that it sees the recordings, where the driver's has no CPU


class RayTasks:
    """Workers that are Ray tasks of one CPU each; results come back through the object store.

    Tasks run on the driver's node and on those that have shown that they see the recordings too. What fails in a task
    is tried here.

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
        nodes = _SeeingNodes(shared, items[0])
        if not nodes.cpus():
            yield from Threads().imap(function, items)
            return
        for first in range(0, len(items), ITEMS):
            some = items[first : first + ITEMS]
            flight.append((some, nodes.submit(shared, some)))
            if len(flight) >= AHEAD * nodes.cpus():
                yield from _results(function, *flight.popleft())
        while flight:
            yield from _results(function, *flight.popleft())


class _SeeingNodes:
    """The nodes that see the recordings: the driver's, and each that could read one of them."""

    def __init__(self, function: ray.ObjectRef, item: str) -> None:
        here = ray.get_runtime_context().get_node_id()
        self.cpus_of = {node["NodeID"]: int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]}
        self.seeing = [here]
        self.probes = {self._probe(node, function, item): node for node in self.cpus_of if node != here}
        if not self.cpus():
            self._learn(PROBE_S)

    def cpus(self) -> int:
        """Return how many CPUs they have."""
        return sum(self.cpus_of[node] for node in self.seeing)

    def submit(self, function: ray.ObjectRef, items: Sequence[str]) -> ray.ObjectRef:
        """Start a task on one of them."""
        self._learn(0)
        return _apply.options(label_selector={"ray.io/node-id": f"in({','.join(self.seeing)})"}).remote(function, items)

    def _probe(self, node: str, function: ray.ObjectRef, item: str) -> ray.ObjectRef:
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        return _apply.options(num_cpus=0, scheduling_strategy=there, max_retries=0).remote(function, [item])

    def _learn(self, wait_s: float) -> None:
        """Take in the probes that have ended."""
        if not self.probes:
            return
        ended, _ = ray.wait(list(self.probes), num_returns=len(self.probes), timeout=wait_s, fetch_local=False)
        for probe in ended:
            node = self.probes.pop(probe)
            if _succeeded(probe):
                self.seeing.append(node)


def _succeeded(probe: ray.ObjectRef) -> bool:
    try:
        return ray.get(probe) is not None
    except RayError:  # the node is lost, or cannot run the task; what is wrong with a recording shows here as well
        return False


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
