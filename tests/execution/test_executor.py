"""Places: what runs at once, what a GPU is shared by, and what is refused before anything starts."""

from pathlib import Path

import pytest

from hms_ray.core.errors import ConfigError
from hms_ray.execution.cluster import Cluster
from hms_ray.execution.executor import LocalExecutor, RayExecutor
from hms_ray.execution.packing import GpuPacking
from hms_ray.search.space.settings import Resources

GB = 10**9
NODES = [{"CPU": 16.0, "GPU": 2.0, "memory": 100.0 * GB}, {"CPU": 4.0, "memory": 10.0 * GB}]


def on_cluster(nodes=NODES, **resources) -> RayExecutor:
    return RayExecutor.of(Resources(**resources), Cluster(lambda: nodes), None, Path("logs"), None, None, None)


def test_trials_share_a_gpu_as_measured_unless_the_space_says_how(tmp_path: Path) -> None:
    packing = GpuPacking(tmp_path / "gpu_memory.json")
    assert on_cluster().gpus(packing) is packing
    assert on_cluster(gpus=0.5).gpus(packing) == 0.5
    assert on_cluster([NODES[1]]).gpus(packing) == 0.0, "no GPU, nothing to share"
    assert on_cluster(workers_per_fold=2).gpus(packing) == 1.0, "workers of one fold have a GPU each"


def test_as_many_trials_run_as_the_cluster_could_ever_hold() -> None:
    assert on_cluster().max_concurrent_trials(99) == 16, "2 GPUs, at most 8 trials on each"
    assert on_cluster(gpus=0.5).max_concurrent_trials(99) == 4
    assert on_cluster(gpus=0, cpus=4).max_concurrent_trials(99) == 5
    assert on_cluster(gpus=0, memory_gb=40).max_concurrent_trials(99) == 2
    assert on_cluster(workers_per_fold=2).max_concurrent_trials(99) == 1


def test_what_no_node_can_do_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(ConfigError, match="a worker needs 32 CPU"):
        on_cluster(cpus=32)
    with pytest.raises(ConfigError, match=r"needs 3 workers"):
        on_cluster(workers_per_fold=3)


def test_this_process_trains_one_fold_at_a_time() -> None:
    assert LocalExecutor.of(Resources(), None, None).max_concurrent_trials(99) == 1
    with pytest.raises(ConfigError, match=r"--here: a fold has one process, but resources\.workers_per_fold is 2"):
        LocalExecutor.of(Resources(workers_per_fold=2), None, None)
