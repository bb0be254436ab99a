"""The nodes of a Ray cluster while a search runs: what they hold now, and what is asked for."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import ray

from hms_ray.core.errors import ConfigError
from hms_ray.execution.resources import Node, Request, WorkerNeeds, count_folds, fitted, folds_at_once, having, needing

log = logging.getLogger(__name__)
POLL_S = 2.0
REPEAT_S = 60.0  # how often a wait is said again


class StartsNodes(Protocol):
    """What of an autoscaler is used; see `hms_ray.execution.autoscaler`."""

    def ask(self, bundles: Sequence[dict[str, float]]) -> None: ...
    def answer(self) -> bool | None: ...
    def can(self, bundles: Sequence[dict[str, float]]) -> bool: ...
    def withdraw(self) -> None: ...
    def news(self) -> str: ...


@dataclass
class Demand:
    """For how many folds at once to ask: twice what fits now, as long as so many are wanted and can be had.

    asked: the number that was asked for last; possible, impossible: the largest that is known to be possible, the
    smallest that is known not to be
    """

    asked: int = 0
    possible: int = 0
    impossible: int | None = None

    def next(self, fit: int, needs: int, answer: bool | None) -> int:
        """Return for how many folds to ask now.

        fit: folds that the nodes hold now; wanted: that could run side by side; answer: whether what was asked for
        last can be had, None while that is not known
        """
        if answer is None and self.asked:
            return self.asked
        if answer is not None and self.asked:
            if answer:
                self.possible = max(self.possible, self.asked)
            else:
                self.impossible = min(self.asked, self.impossible or self.asked)
        self.possible = max(self.possible, fit)
        if self.impossible is not None and self.impossible <= self.possible:  # more than it once could
            self.impossible = None
        goal = max(1, min(needs, 2 * fit))
        if self.impossible is not None and goal >= self.impossible:
            goal = (self.possible + self.impossible) // 2 if self.impossible > self.possible + 1 else self.possible
        self.asked = max(1, goal)
        return self.asked


@dataclass
class Cluster:
    """A Ray cluster that this process is connected to.

    list_nodes: returns what each living node has; autoscaler: None where nothing starts nodes
    """

    list_nodes: Callable[[], list[Node]]
    autoscaler: StartsNodes | None = None
    demand: Demand = field(default_factory=Demand)
    request: Request | None = None
    looked: float = float("-inf")
    known: list[Node] = field(default_factory=list)
    waited: float | None = None

    def nodes(self) -> list[Node]:
        """Return what each node has that is alive now, as of at most two seconds ago."""
        self._look()
        return self.known

    def fit(self, needs: WorkerNeeds) -> Request:
        """Return what a worker takes; without a word about GPUs it is one where a node has one, or can be had that has.

        Raises:
            ConfigError: no node can hold it, and none that could be started.
        """
        nodes = self.nodes()
        request = fitted(needs, nodes)
        if self.autoscaler is None:
            folds_at_once(request, nodes)
            return request
        if needs.gpus is None and not request.gpus:
            on_gpu = replace(request, gpus=1.0)
            if self.autoscaler.can(on_gpu.bundles(1)):
                return on_gpu
        if not count_folds(request, nodes) and not self.autoscaler.can(request.bundles(1)):
            try:
                folds_at_once(request, nodes)
            except ConfigError as error:
                raise ConfigError(
                    f"{error}, and the autoscaler has no node type for it, or may not start so many"
                ) from error
        return request

    def folds(self, request: Request, needs: int) -> int:
        """Return how many folds the nodes hold now, 0 where none that could has come yet or is left.

        wanted: how many could run side by side; the autoscaler is asked for room for as many as it can bring of them
        """
        is_new = self._look()
        fit = count_folds(request, self.known)
        if request != self.request:
            self.request, self.demand, is_new = request, Demand(), True
        if self.autoscaler is not None and is_new:
            answer = self.autoscaler.answer() if self.demand.asked else None
            self.autoscaler.ask(request.bundles(self.demand.next(fit, needs, answer)))
        self._say(request, fit)
        return fit

    def wait(self, request: Request, needs: int, over: Callable[[], bool] = lambda: False) -> int:
        """Return how many folds the nodes hold; while that is none, wait for the autoscaler, until `over` is true.

        Raises:
            ConfigError: none, and there is no autoscaler.
        """
        if self.autoscaler is None:
            return folds_at_once(request, self.nodes())
        while not (fit := self.folds(request, needs)) and not over():
            time.sleep(0.5)
        return fit

    def _look(self) -> bool:
        """Look at the nodes, and return True, unless that was done within two seconds."""
        if time.monotonic() - self.looked < POLL_S:
            return False
        self.known, self.looked = self.list_nodes(), time.monotonic()
        return True

    def _say(self, request: Request, fit: int) -> None:
        """Say that the search waits for nodes, and when they have come."""
        now = time.monotonic()
        if fit and self.waited is not None:
            self.waited = None
            log.info("a node has come: %d %s at once", fit, "fold" if fit == 1 else "folds")
        elif not fit and (self.waited is None or now - self.waited >= REPEAT_S):
            self.waited = now
            news = self.autoscaler.news() if self.autoscaler else "it has no autoscaler"
            log.info("waiting for nodes: %s; %s; %s", needing(request), having(self.known), news)


def living_nodes() -> list[Node]:
    """Return what each node of the cluster has that is alive now."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
