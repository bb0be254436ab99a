"""`ray up`, a search, `ray rsync-down`, `ray down` on the cluster of cluster/gpu.yaml, in the cloud of _boxes.py.

_rehearsal.py FOLDER OUT [gpu | head]. FOLDER is where the boxes live, a short path; OUT is where the study comes to
lie. The third says which node is taken away in the middle: a GPU node, which holds a copy of the prepared store, when a
fold is finished, or the head, with the driver and the store itself, when two are. The last line says what happened.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _boxes import Cloud

# `cat`: not on a terminal, where a table is drawn instead of lines
SEARCH = "HMS_RAY_DEVICE=cpu hms-ray search --space demo --smoke --study runs/demo 2>&1 | cat; exit ${PIPESTATUS[0]}"
STUDY = "runs/demo"


def rehearse(cloud: Cloud, out: Path, lost: str | None) -> dict[str, Any]:
    """Go through it all and return what happened."""
    space = cloud.cluster(cloud.account(), _one_gpu_node)
    cloud.run("ray", "up", "-y", "--no-config-cache", space)
    (head,) = cloud.running("head")
    found: dict[str, Any] = {"gpu nodes before the search": len(cloud.running("gpu"))}
    if recordings := os.environ.get("HMS_RAY_SIMULATED"):  # simulated before, since it takes minutes
        shutil.copytree(recordings, cloud.home_of(head) / ".cache/hms_ray/simulated")
    folds = 0

    def watch(line: str) -> None:
        nonlocal folds
        if " fold " in line and ": score " in line:
            folds += 1
            if lost == "gpu" and folds == 1:
                cloud.terminate(cloud.running("gpu")[0])
            if lost == "head" and folds == 2:
                cloud.note(f"{head} is taken away, with the driver and the store")
                cloud.ec2.stop_instances(InstanceIds=[head])

    code, lines = _follow(cloud, cloud.start("ray", "exec", space, SEARCH), watch)
    if lost == "head":
        before = _finished(cloud, head)
        cloud.run("ray", "up", "-y", "--no-config-cache", space)
        code, lines = _follow(cloud, cloud.start("ray", "exec", space, SEARCH), lambda line: None)
        after = _finished(cloud, head)
        found["trained again"] = sum(after.get(path) != written for path, written in before.items())
    found |= {"code": code, "lines": lines, "folds": len(_finished(cloud, head))}
    out.mkdir(parents=True, exist_ok=True)
    cloud.run("ray", "rsync-down", space, "~/runs/", f"{out}/")
    cloud.run("ray", "down", "-y", space)
    found["nodes after ray down"] = len(cloud.running("head") + cloud.running("gpu"))
    return found | {"events": cloud.events}


def _one_gpu_node(cluster: dict[str, Any]) -> None:
    """All boxes share one machine."""
    cluster["available_node_types"]["gpu"]["max_workers"] = 1


def _follow(cloud: Cloud, process: subprocess.Popen, watch: Callable[[str], None]) -> tuple[int, list[str]]:
    lines = []
    for line in process.stdout:
        cloud.note(f"  {line.rstrip()}")
        lines.append(line.rstrip())
        watch(line)
    cloud.note(f"exit code {process.wait()}")
    return process.returncode, lines


def _finished(cloud: Cloud, head: str) -> dict[str, int]:
    """Return each finished fold's file and the time it was written."""
    folder = cloud.home_of(head) / STUDY
    return {str(path): path.stat().st_mtime_ns for path in folder.glob("trials/*/folds/*/oof.parquet")}


if __name__ == "__main__":
    with Cloud(Path(sys.argv[1])) as cloud:
        print(json.dumps(rehearse(cloud, Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)))
