"""A search on nodes that share no file: each has a mount namespace of its own, where the driver's folders are empty."""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_ray.study.oof import OofTable

APART = ["unshare", "--mount", "--propagation", "private"]
# arguments: how many nodes beside the driver's, which has no CPU; the folders that they do not see
CLUSTER = """
import subprocess, sys, time
import ray
from ray.cluster_utils import Cluster

apart, count, *hidden = sys.argv[1].split(), int(sys.argv[2]), *sys.argv[3:]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
start = f"exec {sys.executable} -m ray.scripts.scripts start --address={cluster.address} --num-cpus=1 --block"
cover = "".join(f"mount -t tmpfs none '{folder}' && " for folder in hidden)
ray.init(cluster.address, log_to_driver=False)
for number in range(count):  # one after the other: Ray gives each half a minute
    node = subprocess.Popen([*apart, "sh", "-c", cover + start], stdout=subprocess.DEVNULL)
    while sum(each["Alive"] for each in ray.nodes()) < number + 2 and node.poll() is None:
        time.sleep(0.1)
ray.shutdown()
print(cluster.address, flush=True)
sys.stdin.read()  # until the test is over
cluster.shutdown()
"""
TWO = ("resources.workers_per_fold=2", "stages=[{epochs: 12, lr: 0.01}]", "folds=3", "augment={}")


@pytest.fixture
def start_apart(run) -> Iterator[Callable[[int], tuple[subprocess.Popen, dict[str, str]]]]:
    """The function that starts a cluster of so many nodes that see neither the driver's data, nor its cache, nor its
    studies; it returns the cluster's process, and how a driver joins."""
    if subprocess.run([*APART, "true"], capture_output=True).returncode:
        pytest.skip("unshare may not make a mount namespace here")
    folder, started = tempfile.mkdtemp(prefix="ray"), []  # a short name, as that of a socket has 107 bytes at most
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    settings = token | run.impatient | {"RAY_TMPDIR": folder, "RAY_OVERRIDE_RESOURCES": "", "RAY_ADDRESS": ""}

    def start(count: int) -> tuple[subprocess.Popen, dict[str, str]]:
        command = [sys.executable, "-c", CLUSTER, " ".join(APART), str(count), str(run.data.parent), str(run.folder)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, env=run.environment | settings, **pipes)
        started.append(process)
        return process, token | {"RAY_ADDRESS": process.stdout.readline().strip()}

    yield start
    for process in started:
        left = run.family(process.pid)
        run.kill(*left, process.pid)
        process.communicate()
    shutil.rmtree(folder, ignore_errors=True)


def test_two_nodes_that_share_no_file_train_one_fold_together(run, start_apart) -> None:
    """The base run by `train`, with a worker on each node and DDP between them: each node makes one copy of what is
    prepared, all folds are in one table, and that is better than the prior."""
    study, (_, *space) = run.raced("apart")
    _, join = start_apart(2)
    code, _, err = run("train", *space, *(word for change in TWO for word in ("--set", change)), **join)
    assert code == 0, err
    (trial,) = study.oof_ids()
    table = OofTable.read(study.oof(trial))
    assert set(table.unit_ids) == set(pd.read_parquet(study.folds)["unit_id"])
    prior = table.task.score(table.targets, np.tile(table.targets.mean(0), (len(table.targets), 1)))
    assert table.task.score(table.targets, table.probs) < prior
    assert err.count("copying kaggle_spectrogram-") == err.count("copied kaggle_spectrogram-") == 2, err
    assert f"joined the Ray cluster at {join['RAY_ADDRESS']}" in err and "clients need the cluster's token" in err


@pytest.mark.skipif(not os.environ.get("HMS_RAY_CHAOS"), reason="minutes long; HMS_RAY_CHAOS=1 runs it")
def test_a_search_outlives_a_node_that_holds_a_copy(run, undisturbed, start_apart) -> None:
    study, command = run.raced("apart-lost")
    cluster, join = start_apart(3)
    process = run.start(*command, **join, RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S="10")
    run.wait_for(lambda: len(run.finished(study)) > 2, process)
    node = run.wait_for(lambda: _training(run, cluster.pid), process)
    run.assert_unharmed(study, process, run.lose(study, node), undisturbed)


def _training(run, cluster: int) -> int | None:
    """Return the process of a node that trains a trial."""
    for pid in run.family(cluster):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"--block" in command and any(title.startswith("ray::Impl") for title in run.family(pid).values()):
            return pid
    return None
