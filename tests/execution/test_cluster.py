"""How many folds a cluster holds as nodes come and go, and what its autoscaler is asked for; Ray is not started."""

import logging

import pytest

from hms_ray.core.errors import ConfigError
from hms_ray.execution import cluster as module
from hms_ray.execution.cluster import Cluster, Demand
from hms_ray.execution.resources import Request
from hms_ray.search.space.settings import Resources

GB = 10**9
HEAD = {"CPU": 4.0, "memory": 10.0 * GB}
GPU = {"CPU": 8.0, "GPU": 1.0, "memory": 20.0 * GB}
FOLD = Request(cpus=1, gpus=1)


class Autoscaler:
    """One that may start so many nodes of GPU, and has an answer at once."""

    def __init__(self, most: int) -> None:
        self.most, self.asked = most, []

    def ask(self, bundles) -> None:
        self.asked.append(list(bundles))

    def answer(self) -> bool:
        gpus = sum(bundle.get("GPU", 0) for bundle in self.asked[-1])
        return gpus <= self.most and all(bundle["CPU"] <= GPU["CPU"] for bundle in self.asked[-1])

    def can(self, bundles) -> bool:
        self.ask(bundles)
        return self.answer()

    def withdraw(self) -> None:
        self.asked.append([])

    def news(self) -> str:
        return "the autoscaler is starting 1 x gpu"


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """A clock that only sleeping moves."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


def test_a_node_that_joins_is_counted_and_one_that_is_lost_no_more(clock):
    nodes = [HEAD, GPU]
    cluster = Cluster(lambda: list(nodes))
    assert cluster.folds(FOLD, needs=9) == 1
    nodes.append(GPU)
    clock[0] += 3
    assert cluster.folds(FOLD, needs=9) == 2
    nodes[1:] = []
    clock[0] += 3
    assert cluster.folds(FOLD, needs=9) == 0, "what runs is retried when a node comes; nothing new begins"


@pytest.mark.parametrize("most", range(1, 12))
def test_demand_doubles_until_the_autoscaler_cannot_or_enough_fit(most):
    demand, fit, asked, answer = Demand(), 0, [], None
    for _ in range(20):
        asked.append(demand.next(fit, 9, answer))
        answer = asked[-1] <= most
        fit = max(fit, min(asked[-1], most) if answer else fit)
    assert asked[0] == 1 and asked[-1] == fit == min(most, 9)
    assert all(later <= max(1, 2 * most) for later in asked)


def test_an_unanswered_request_stays_and_an_idle_cluster_may_shrink():
    demand = Demand()
    assert demand.next(2, 9, None) == 4
    assert demand.next(2, 9, None) == 4, "the autoscaler has not looked yet"
    assert demand.next(4, 3, True) == 3, "three trials are left"
    assert demand.next(4, 1, True) == 1


def test_a_cluster_without_autoscaler_refuses_at_once_what_no_node_can_do():
    with pytest.raises(ConfigError, match=r"a worker needs 1 CPU, 1 GPU and 1 GB, but the only node has 4 CPU, 0 GPU"):
        Cluster(lambda: [HEAD]).fit(Resources(cpus=1, gpus=1))
    assert Cluster(lambda: [HEAD]).fit(Resources(cpus=1)).gpus == 0


def test_with_an_autoscaler_a_gpu_is_taken_that_is_still_to_come():
    autoscaler = Autoscaler(most=2)
    cluster = Cluster(lambda: [HEAD], autoscaler)
    assert cluster.fit(Resources(cpus=2)) == Request(cpus=2, gpus=1)
    assert autoscaler.asked == [[{"CPU": 2, "GPU": 1.0, "memory": GB}]]
    assert Cluster(lambda: [HEAD], Autoscaler(most=0)).fit(Resources(cpus=2)).gpus == 0, "there are only CPUs"


def test_what_the_autoscaler_can_never_bring_is_refused_with_the_arithmetic():
    with pytest.raises(ConfigError, match=r"needs 99 CPU.*the only node has 4 CPU.*no node type"):
        Cluster(lambda: [HEAD], Autoscaler(most=2)).fit(Resources(cpus=99))
    with pytest.raises(ConfigError, match=r"needs 3 workers.*only 0 fit|a worker needs"):
        Cluster(lambda: [HEAD], Autoscaler(most=2)).fit(Resources(cpus=1, gpus=1, workers_per_fold=3))


def test_a_wait_is_said_in_one_line_again_every_minute_and_its_end(clock, caplog):
    caplog.set_level(logging.INFO)
    cluster = Cluster(lambda: [HEAD, GPU] if clock[0] > 100 else [HEAD], Autoscaler(most=1))
    assert cluster.wait(FOLD, needs=9) == 1
    waiting, again, come = [record.message for record in caplog.records]
    assert (
        waiting
        == again
        == (
            "waiting for nodes: a fold needs 1 CPU, 1 GPU and 1 GB; the cluster has 1 x 4 CPU, 0 GPU and 10 GB; "
            "the autoscaler is starting 1 x gpu"
        )
    )
    assert come == "a node has come: 1 fold at once"


def test_an_interrupted_search_waits_no_longer(clock):
    cluster = Cluster(lambda: [HEAD], Autoscaler(most=1))
    assert cluster.wait(FOLD, needs=9, over=lambda: clock[0] > 5) == 0
