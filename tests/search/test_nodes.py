"""A search on a cluster of three nodes, of which one after the other dies."""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

import pytest

CLUSTER = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
for _ in range(2):
    cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
sys.stdin.read()  # until the test is over
cluster.shutdown()
"""


@pytest.fixture
def cluster(run) -> Iterator[tuple[subprocess.Popen, dict[str, str]]]:
    """Three nodes of one CPU each on this machine, and how a driver joins them."""
    folder = tempfile.mkdtemp(prefix="ray")  # a short name, since that of a socket has 107 bytes at most
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    settings = token | run.impatient | {"RAY_TMPDIR": folder, "RAY_OVERRIDE_RESOURCES": ""}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", CLUSTER], env=run.environment | settings, **pipes)
    address = process.stdout.readline().strip()
    yield process, token | {"RAY_ADDRESS": address, "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "10"}
    left = run.family(process.pid)
    process.communicate(timeout=60)
    run.kill(*left)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.skipif(not os.environ.get("HMS_RAY_CHAOS"), reason="minutes long; HMS_RAY_CHAOS=1 runs it")
def test_lost_nodes_cost_folds_in_flight_only(run, undisturbed, cluster) -> None:
    """One node dies among the trials, another while the worker group trains on the two that are left."""
    study, command = run.raced("nodes")
    machines, settings = cluster
    process = run.start(*command, **settings)
    begun = {"ray::ImplicitFunc": lambda: len(run.finished(study)) > 2, "ray::RayTrainWorker": lambda: _final(study)}
    for worker, moment in begun.items():
        run.wait_for(moment, process)
        node = run.wait_for(lambda worker=worker: _victim(run, machines.pid, worker), process)
        before = run.lose(study, node)
    run.assert_unharmed(study, process, before, undisturbed)


def _final(study) -> bool:
    """Whether a fold that only finalists train is in flight."""
    return any(study.root.glob("trials/*/folds/[23]/state/checkpoint.pt"))


def _victim(run: Callable, machines: int, worker: str) -> int | None:
    """Return the raylet of a node with such a worker, but not the driver's own, whose loss it cannot outlive."""
    for node, title in run.family(machines).items():
        titles = " ".join(run.family(node).values())
        if title.endswith("raylet/raylet") and worker in titles and "ray::Mailbox" not in titles:
            return node
    return None
