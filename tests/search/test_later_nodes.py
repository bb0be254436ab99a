"""A search on a cluster to which a node is added while it runs."""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest

from hms_ray.search.optuna.journal_file import read_trials

CLUSTER = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
print(cluster.address, flush=True)
for _ in sys.stdin:  # a node for each line
    cluster.add_node(num_cpus=2)
cluster.shutdown()
"""


@pytest.fixture
def cluster(run) -> Iterator[tuple[subprocess.Popen, dict[str, str]]]:
    """A node of one CPU on this machine that can be given others, and how a driver joins it."""
    folder = tempfile.mkdtemp(prefix="ray")  # a short name, since that of a socket has 107 bytes at most
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    settings = token | {"RAY_TMPDIR": folder, "RAY_OVERRIDE_RESOURCES": ""}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", CLUSTER], env=run.environment | settings, **pipes)
    address = process.stdout.readline().strip()
    yield process, token | {"RAY_ADDRESS": address}
    left = run.family(process.pid)
    process.communicate(timeout=60)
    run.kill(*left)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.skipif(not os.environ.get("HMS_RAY_CHAOS"), reason="minutes long; HMS_RAY_CHAOS=1 runs it")
def test_a_node_that_is_added_after_the_start_gets_trials(run, cluster) -> None:
    study, command = run.raced("later")
    machines, settings = cluster
    process = run.start(*command, **settings)
    run.wait_for(lambda: run.finished(study), process)
    before = run.finished(study)
    machines.stdin.write("one more\n")
    machines.stdin.flush()
    _, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert "3 trials at once instead of 1, from tiny-000" in err
    attrs = [trial.user_attrs for _, trial in read_trials(study.journal)]
    concurrency = [trial["concurrency"] for trial in attrs]
    assert set(concurrency) == {1, 3} and concurrency == sorted(concurrency)
    known = [trial["known"] for trial in attrs]
    assert known == sorted(known) and known[: concurrency.index(3)] == list(range(concurrency.index(3)))
    assert before.items() <= run.finished(study).items(), "a finished fold was trained again"
