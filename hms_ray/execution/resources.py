"""How many workers fit a cluster, counted node by node as Ray places them; the impossible is refused with the
arithmetic."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from hms_ray.core.errors import ConfigError

GB = 10**9
ROUND_OFF = 1e-9  # three shares of 0.1 are more than 0.3 in floating point

Node = Mapping[str, float]  # what Ray calls the resources of a node: CPU, GPU, memory in bytes


class WorkerNeeds(Protocol):
    """What a space says of its workers; None: as much as is usual."""

    cpus: float
    gpus: float | None
    memory_gb: float | None
    workers_per_fold: int


@dataclass(frozen=True)
class Request:
    """What one worker takes, at most one GPU, and how many workers train one fold."""

    cpus: float
    gpus: float
    workers_per_fold: int = 1
    memory_gb: float = 1.0

    def for_tune(self) -> dict[str, float]:
        """Return one worker's resources under the names that Ray Tune takes."""
        return {"cpu": self.cpus, "gpu": self.gpus, "memory": self.memory_gb * GB}

    def for_train(self) -> dict[str, float]:
        """Return one worker's resources under the names that Ray Train takes; it refuses a GPU of size 0."""
        return {"CPU": self.cpus, "memory": self.memory_gb * GB} | ({"GPU": self.gpus} if self.gpus else {})

    def bundles(self, folds: int) -> list[dict[str, float]]:
        """Return what each worker of so many folds takes."""
        return [self.for_train()] * (folds * self.workers_per_fold)

    def workers_on(self, node: Node) -> int:
        """Return how many workers one node holds; a worker spans neither two nodes nor two GPUs."""
        counts = [_times(node.get("CPU", 0), self.cpus), _times(node.get("memory", 0), self.memory_gb * GB)]
        if self.gpus:
            devices, rest = divmod(node.get("GPU", 0), 1)
            counts.append(int(devices) * _times(1, self.gpus) + _times(rest, self.gpus))
        return min(counts)

    def covered(self, node: Node) -> list[float]:
        """Return the shares of one worker's needs that a node covers, scarcest first."""
        needs = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory_gb * GB}
        return sorted(node.get(name, 0) / need for name, need in needs.items() if need)


def fitted(needs: WorkerNeeds, nodes: Sequence[Node]) -> Request:
    """Return the request; without a word about GPUs a worker takes one where any node has one, and 1 GB of memory."""
    gpus = float(any(node.get("GPU", 0) for node in nodes)) if needs.gpus is None else needs.gpus
    return Request(needs.cpus, gpus, needs.workers_per_fold, 1.0 if needs.memory_gb is None else needs.memory_gb)


def count_folds(request: Request, nodes: Sequence[Node]) -> int:
    """Return how many folds the nodes train at the same time; a fold's workers may be far apart."""
    return sum(request.workers_on(node) for node in nodes) // request.workers_per_fold


def folds_at_once(request: Request, nodes: Sequence[Node]) -> int:
    """Return the same, at least one.

    Raises:
        ConfigError: not even one fits.
    """
    counts = [request.workers_on(node) for node in nodes]
    each = _each(request)
    if not sum(counts):
        raise ConfigError(f"resources: a worker needs {each}, but {_nearest(request, nodes)}")
    if sum(counts) < request.workers_per_fold:
        raise ConfigError(
            f"resources: a fold needs {request.workers_per_fold} workers of {each} each, but only {sum(counts)} fit "
            f"the cluster: {' + '.join(map(str, counts))} on {len(nodes)} {'node' if len(nodes) == 1 else 'nodes'}"
        )
    return count_folds(request, nodes)


def needing(request: Request) -> str:
    """Say what a fold needs."""
    if request.workers_per_fold == 1:
        return f"a fold needs {_each(request)}"
    return f"a fold needs {request.workers_per_fold} workers of {_each(request)} each"


def having(nodes: Sequence[Node]) -> str:
    """Say what the nodes have, alike ones together."""
    if not nodes:
        return "the cluster has no node"
    amounts = [_amounts(node.get("CPU", 0), node.get("GPU", 0), node.get("memory", 0) / GB) for node in nodes]
    kinds = [f"{amounts.count(amount)} x {amount}" for amount in dict.fromkeys(amounts)]
    return f"the cluster has {'; '.join(kinds)}"


def _each(request: Request) -> str:
    return _amounts(request.cpus, request.gpus, request.memory_gb)


def _times(have: float, need: float) -> int:
    return math.floor(have / need + ROUND_OFF)


def _nearest(request: Request, nodes: Sequence[Node]) -> str:
    """Say what the node has that comes nearest to holding a worker."""
    if not nodes:
        return "the cluster has no node"
    node = max(nodes, key=request.covered)
    having = _amounts(node.get("CPU", 0), node.get("GPU", 0), node.get("memory", 0) / GB)
    return f"{'the only node' if len(nodes) == 1 else f'the best of {len(nodes)} nodes'} has {having}"


def _amounts(cpus: float, gpus: float, memory_gb: float) -> str:
    return f"{cpus:g} CPU, {gpus:g} GPU and {round(memory_gb, 1):g} GB"
