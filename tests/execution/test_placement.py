"""Where folds run, seen on a Ray with fake GPUs: no device is promised twice, and nothing waits for ever."""

import itertools
import os

import pytest

from hms_ray.execution.cluster import Cluster, living_nodes
from hms_ray.execution.executor import RayExecutor
from hms_ray.execution.ray_train import run_group
from hms_ray.execution.ray_tune import run_trials
from hms_ray.execution.resources import Request
from hms_ray.search.space.settings import Resources

DEVICES = 4


def most_at_once(rows: list[dict]) -> float:
    """Return the largest sum of shares of one device that folds held at the same time."""
    most = 0.0
    for device, moment in itertools.product(range(DEVICES), [row["begun"] for row in rows]):
        held = [row["share"] for row in rows if row["device"] == device and row["begun"] <= moment < row["ended"]]
        most = max(most, sum(held))
    return most


@pytest.mark.parametrize("max_concurrent", range(1, 9) if os.environ.get("HMS_RAY_CHAOS") else [2])
def test_trials_share_gpus(cluster, script, work, labels, tmp_path, max_concurrent) -> None:
    """At every number of trials at once, also more than fit: then some wait for a GPU that smaller ones share."""
    packing = {f"trial-{n}": (1.0, 0.5, 1.0, 0.25)[n % max_concurrent % 4] for n in range(max_concurrent + 1)}
    source = script([work(trial, {"seconds": 0.5}, {}, gpus=share) for trial, share in packing.items()])
    run_trials(source, labels, Request(cpus=1, gpus=1), lambda: max_concurrent, tmp_path)
    rows = source.rows()
    assert sorted(source.over) == sorted(packing) and len(rows) == 2 * len(packing)
    assert {row["trial"]: row["share"] for row in rows} == packing
    assert most_at_once(rows) <= 1


@pytest.mark.skipif(not os.environ.get("HMS_RAY_CHAOS"), reason="starts another group; HMS_RAY_CHAOS=1 runs it")
def test_trials_whose_folds_have_two_workers_run_in_a_group(cluster, script, work, labels, tmp_path) -> None:
    """What a space with `workers_per_fold: 2` gets on four GPUs: two trials at once, two GPUs a fold."""
    place = RayExecutor.of(Resources(workers_per_fold=2), Cluster(living_nodes), labels, tmp_path, None, None, None)
    assert place.max_concurrent_trials(9) == 2
    source = script([work(f"trial-{n}", {}, gpus=1.0) for n in range(3)])
    place.run_trials(source)
    assert sorted(source.over) == ["trial-0", "trial-1", "trial-2"]
    assert all(sorted(row["team"]) == [0, 0, 0.5, 0.5] for row in source.rows())


@pytest.mark.skipif(not os.environ.get("HMS_RAY_CHAOS"), reason="starts two groups; HMS_RAY_CHAOS=1 runs it")
def test_a_larger_group_follows_when_nodes_have_joined(cluster, script, work, labels, tmp_path) -> None:
    """One replica begins; when room for four is seen it ends what it has, and four go on; nothing is trained twice."""
    seconds = [10, *[1] * 6]  # the first one's row says that nodes have joined, and it leaves time to see them
    source = script([work(f"trial-{n}", {"seconds": s}, gpus=1.0) for n, s in enumerate(seconds)])
    nodes = [{"CPU": 1, "GPU": 1, "memory": 1e10}]
    handle = source.handle

    def joined(message) -> None:
        handle(message)
        nodes[0] = {"CPU": 4, "GPU": 4, "memory": 1e10}

    source.handle = joined
    run_group(source, labels, Request(cpus=1, gpus=1), Cluster(lambda: list(nodes)), tmp_path)
    assert sorted(source.over) == [f"trial-{n}" for n in range(7)]
    rows = source.rows()
    assert len(rows) == 7 and len({row["device"] for row in rows}) > 1
