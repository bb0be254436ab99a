"""A search on a cluster of three nodes, one of which dies."""

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
    yield process, token | {"RAY_ADDRESS": process.stdout.readline().strip()}
    left = run.family(process.pid)
    process.communicate(timeout=60)
    run.kill(*left)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("when", ["among the trials", "among the finalists"])
def test_a_lost_node_costs_its_folds_in_flight_only(run, undisturbed, cluster, when: str) -> None:
    study, command = run.raced(f"node lost {when}")
    machines, address = cluster
    process = run.start(*command, **address)
    folds = 2 if when == "among the trials" else len(run.finished(undisturbed)) - len(undisturbed.oof_ids())
    run.wait_for(lambda: len(run.finished(study)) >= folds, process)
    node = run.wait_for(lambda: _victim(run, machines.pid), process)
    before = run.finished(study)
    run.kill(node, *run.family(node))
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert before.items() <= run.finished(study).items(), "a finished fold was trained again"
    run.assert_same(study, undisturbed)


def _victim(run: Callable, machines: int) -> int | None:
    """Return the raylet of a node that trains and that is not the driver's, whose loss it cannot outlive."""
    for node, title in run.family(machines).items():
        titles = " ".join(run.family(node).values())
        trains = "ray::ImplicitFunc" in titles or "ray::RayTrainWorker" in titles
        if title.endswith("raylet/raylet") and trains and "ray::Mailbox" not in titles:
            return node
    return None
