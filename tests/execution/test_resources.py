"""How many folds fit a cluster, node by node, and the arithmetic where none does."""

from types import SimpleNamespace

import pytest

from hms_ray.core.errors import ConfigError
from hms_ray.execution.resources import GB, Request, fitted, folds_at_once


def node(cpus, gpus=0, memory_gb=100.0):
    return {"CPU": cpus, "GPU": gpus, "memory": memory_gb * GB, "object_store_memory": 1e9, "node:10.0.0.1": 1.0}


@pytest.mark.parametrize(
    ("request_", "node_", "expected"),
    [
        (Request(1, 0), node(2), 2),
        (Request(1, 0), node(2.9), 2),
        (Request(2, 0), node(7, 1), 3),
        (Request(0.5, 0), node(2), 4),
        (Request(1, 1), node(64, 8), 8),
        (Request(16, 1), node(64, 8), 4),
        (Request(1, 0.1), node(64, 1), 10),
        (Request(1, 0.3), node(64, 0.9), 3),
        (Request(1, 1 / 3), node(64, 1), 3),
        (Request(1, 1, 4), node(64, 8), 2),
        (Request(1, 0, 2), node(2), 1),
        (Request(1, 0, 3), node(8), 2),
        (Request(1, 0.1, 3), node(64, 0.3), 1),
        (Request(1, 0, memory_gb=4), node(64, memory_gb=23.4), 5),
        (Request(1, 0, memory_gb=0.1), node(64, memory_gb=0.3), 3),
    ],
)
def test_the_scarcest_resource_decides(request_, node_, expected):
    assert folds_at_once(request_, [node_]) == expected


@pytest.mark.parametrize(
    ("gpus", "devices", "expected"),
    [(0.4, 1, 2), (0.4, 2, 4), (0.4, 5, 10), (0.6, 4, 4), (1 / 7, 2, 14), (0.15, 2, 12), (1, 3, 3)],
)
def test_a_worker_lies_on_one_gpu(gpus, devices, expected):
    assert folds_at_once(Request(1, gpus), [node(64, devices)]) == expected


def test_a_worker_lies_on_one_node_but_the_workers_of_a_fold_may_lie_on_several():
    small = [node(1), node(1), node(3)]
    assert folds_at_once(Request(2, 0), small) == 1
    assert folds_at_once(Request(1, 0, 2), small) == 2
    assert folds_at_once(Request(1, 1), [node(1, 0), node(1, 1), node(0, 4)]) == 1


@pytest.mark.parametrize(
    ("request_", "nodes", "sentence"),
    [
        (
            Request(4, 1),
            [node(2, 0, 23.44)],
            r"^resources: a worker needs 4 CPU, 1 GPU and 1 GB, but the only node has 2 CPU, 0 GPU and 23\.4 GB$",
        ),
        (Request(2, 0), [node(1), node(1.5, 1)], r"2 CPU, 0 GPU and 1 GB, but the best of 2 nodes has 1\.5 CPU, 1 GPU"),
        (Request(1, 1), [node(64), node(0.5, 1)], r"but the best of 2 nodes has 0\.5 CPU, 1 GPU and 100 GB$"),
        (
            Request(1, 0, memory_gb=200),
            [node(64)],
            r"1 CPU, 0 GPU and 200 GB, but the only node has 64 CPU, .* 100 GB$",
        ),
        (
            Request(1, 0.5, 3),
            [node(8, 0.5), node(8), node(8, 0.5)],
            r"3 workers of 1 CPU, 0\.5 GPU and 1 GB each, but only 2 fit the cluster: 1 \+ 0 \+ 1 on 3 nodes$",
        ),
        (Request(1, 0, 3), [node(2)], r"needs 3 workers .* but only 2 fit the cluster: 2 on 1 node$"),
        (Request(1, 0), [{}], r"the only node has 0 CPU, 0 GPU and 0 GB"),
        (Request(1, 0), [], r"the cluster has no node"),
    ],
)
def test_the_impossible_is_refused_with_the_arithmetic(request_, nodes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        folds_at_once(request_, nodes)


@pytest.mark.parametrize(
    ("gpus", "nodes", "expected"),
    [
        (None, [node(2), node(2)], 0.0),
        (None, [node(2), node(2, 4)], 1.0),
        (None, [{"CPU": 2}], 0.0),
        (0, [node(2, 4)], 0),
        (0.25, [node(2, 4)], 0.25),
    ],
)
def test_a_worker_takes_a_gpu_where_there_are_any_unless_told(gpus, nodes, expected):
    wanted = SimpleNamespace(cpus=1, gpus=gpus, memory_gb=None, workers_per_fold=2)
    assert fitted(wanted, nodes) == Request(1, expected, 2, 1.0)


def test_memory_is_as_wanted():
    assert fitted(SimpleNamespace(cpus=1, gpus=0, memory_gb=0.5, workers_per_fold=1), [node(2)]).memory_gb == 0.5


def test_ray_enforces_the_same_arithmetic():
    request = Request(2, 0.25, memory_gb=1.5)
    assert request.for_tune() == {"cpu": 2, "gpu": 0.25, "memory": 1_500_000_000}
    assert request.for_train() == {"CPU": 2, "GPU": 0.25, "memory": 1_500_000_000}
    assert Request(1, 0).for_train() == {"CPU": 1, "memory": 1_000_000_000}
