"""cluster/gpu.yaml from `ray up` to `ray down`, on machines made of namespaces with a simulated EC2."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAMS = ("sshd", "rsync", "ip", "unshare", "ssh-keygen")
# Its own network, processes and /tmp: nothing outside is seen, and all of it ends with the one process.
ISOLATED = "mount --make-rprivate /; mount --bind $0 /tmp; mkdir /tmp/cloud; exec $@"


@pytest.fixture
def private() -> Iterator[Path]:
    """A folder with a short name for the boxes; the name of a socket has 107 bytes at most."""
    folder = Path(tempfile.mkdtemp(prefix="boxes"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.skipif(
    not os.environ.get("HMS_RAY_BOXES"),
    reason="ten minutes each, and needs root, openssh-server, rsync, iproute2, moto[server]; HMS_RAY_BOXES=1 runs it",
)
@pytest.mark.parametrize("lost", [None, "gpu", "head"])
def test_a_search_with_a_gpu_node_that_joins_after_the_start(private, repository, lost) -> None:
    """All folds are trained and nothing is repeated, whichever node is taken away in the middle."""
    assert all(map(shutil.which, PROGRAMS)), f"this test needs {', '.join(PROGRAMS)}"
    script = repository / "tests/cluster/_rehearsal.py"
    command = ["unshare", "-n", "-p", "-m", "--mount-proc", "-f", "--kill-child", "bash", "-c", ISOLATED, str(private)]
    command += [sys.executable, str(script), "/tmp/cloud", "/tmp/out", *([lost] if lost else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=3000)
    print(done.stdout)
    assert done.returncode == 0
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["gpu nodes before the search"] == 0 == found["code"] == found["nodes after ray down"]
    assert found["folds"] == 4, "two trials, two folds"
    assert found.get("trained again", 0) == 0
    boots = [event for _, event in found["events"] if " boots: gpu" in event]
    expected = {None: {1}, "gpu": {2}, "head": {1, 2}}[lost]  # a GPU node may outlive the head
    assert len(boots) in expected, "by demand, and again in place of one that was lost"
    assert not [line for line in found["lines"] if line.startswith("Traceback")]
    assert (private / "out/demo/ensemble/ensemble.json").is_file()
