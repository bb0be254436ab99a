"""What becomes of folds that never end, of those that kill their worker, and of a driver that cannot write."""

import os
import signal
from itertools import combinations
from pathlib import Path

import pytest

from hms_ray.core.errors import SearchAborted
from hms_ray.execution.cluster import Cluster
from hms_ray.execution.events import EpochDone, FoldDone, StorageFailed
from hms_ray.execution.ray_train import run_group
from hms_ray.execution.ray_tune import run_trials
from hms_ray.execution.resources import Request

ON_CPU, ON_GPU = Request(cpus=1, gpus=0), Request(cpus=1, gpus=1)
HANGS, DIES, FILLS = {"seconds": 600}, {"does": "die"}, {"does": "fill the disk"}
FOLD_S = 6.0  # a slow machine may need some of it until both folds have begun
TOO_LONG = "the fold had not ended after 0.1 minutes (budget.fold_minutes)"
LOST = "its worker was lost 3 times"


def in_tune(source, labels, request, max_concurrent, logs, fold_s=None) -> None:
    """Run so many trials at once."""
    run_trials(source, labels, request, lambda: max_concurrent, logs, fold_s)


def in_group(source, labels, request, max_concurrent, logs, fold_s=None) -> None:
    """Run a worker group on a cluster that holds so many folds, each with a GPU."""
    nodes = [{"CPU": max_concurrent, "GPU": max_concurrent, "memory": 1e12}]
    run_group(source, labels, request, Cluster(lambda: list(nodes)), logs, fold_s)


@pytest.mark.parametrize(
    ("run", "request_", "failing"), [(in_tune, ON_CPU, {"dies": DIES}), (in_group, ON_GPU, {"hangs": HANGS})]
)
def test_folds_that_cannot_be_trained_fail_alone_and_a_full_disk_ends_the_run(
    cluster, script, work, labels, tmp_path, caplog, run, request_, failing
) -> None:
    """In Tune's actors one kills its worker each time, in a group one hangs; folds before and beside it end.

    Then the disk of a worker is full: that is no fold's failure, and what the source makes of it reaches the caller.
    """
    (tmp_path / "meet").mkdir()
    together = {"meet": str(tmp_path / "meet")}
    first = [work(name, together, fold, {}, gpus=1.0) for name, fold in failing.items()]
    first += [work("well", together, {}, gpus=1.0)]
    last = [work("fills", {}, FILLS, gpus=1.0), *(work(f"trial-{n}", {}, gpus=1.0) for n in range(50))]
    source = script(first)
    take, handle = source.next, source.handle

    def next_or_last():
        if not source.left and len(source.over) == len(first):
            source.left.extend(last)
        return take()

    def refuse(message) -> None:
        handle(message)
        if isinstance(message, StorageFailed):
            raise SearchAborted(message.cause)

    source.next, source.handle, source.exhausted = next_or_last, refuse, lambda: False
    with pytest.raises(SearchAborted, match=r"1\.pt: No space left on device"):
        run(source, labels, request_, 2, tmp_path, FOLD_S)
    assert source.left, "it ended at once"
    assert source.causes() == {(name, 1): {"hangs": TOO_LONG, "dies": LOST}[name] for name in failing}
    assert sorted(source.over[: len(first)]) == sorted([*failing, "well"])
    done = sorted((m.trial, m.fold) for m in source.said if isinstance(m, FoldDone) and m.trial in (*failing, "well"))
    assert done == [*((name, 0) for name in sorted(failing)), ("well", 0), ("well", 1)]
    if run is in_tune:
        lost = [text for text in caplog.messages if text.startswith("dies: its worker was lost, another goes on with")]
        assert len(lost) >= 3, "and once more where it is given up"
        assert not [record for record in caplog.records if record.exc_info]
    if run is in_group:
        hung = {
            m.row["pid"] for m in source.said if isinstance(m, EpochDone) and (m.trial, m.row["fold"]) == ("hangs", 1)
        }
        assert len(hung) == 1 and not Path(f"/proc/{hung.pop()}").exists(), "the worker that hung was killed"
        assert_gpus_belong_to_one_fold(source.rows())


def assert_gpus_belong_to_one_fold(rows: list[dict]) -> None:
    """Folds at the same time have different GPUs."""
    pairs = [(a, b) for a, b in combinations(rows, 2) if a["begun"] < b["ended"] and b["begun"] < a["ended"]]
    assert pairs, "both replicas had work"
    assert all(a["device"] != b["device"] for a, b in pairs)


def test_a_trial_whose_reused_worker_dies_before_it_begins_may_come_again(
    cluster, script, work, labels, tmp_path
) -> None:
    """Tune gives such a trial up without a word, whatever failures it is allowed; its source hears that it ended."""
    source = script([work("first", {}), work("second", {})])
    give = source.next

    def next_after_a_kill():
        if source.over == ["first"]:
            os.kill(source.rows()[0]["pid"], signal.SIGKILL)
        return give()

    def ended(work) -> None:
        source.over.append(work.trial)
        if work.trial not in {row["trial"] for row in source.rows()}:
            source.left.append(work)

    source.next, source.ended = next_after_a_kill, ended
    while source.left:
        in_tune(source, labels, ON_CPU, 1, tmp_path)
    assert source.over == ["first", "second", "second"]
    assert [row["trial"] for row in source.rows()] == ["first", "second"]


def test_what_the_source_raises_at_the_end_of_a_trial_reaches_the_caller(
    cluster, script, work, labels, tmp_path
) -> None:
    """Tune calls the source in the midst of its own work, and wraps what it raises."""
    source = script([work(f"trial-{n}", {}) for n in range(50)])

    def ended(work) -> None:
        raise SearchAborted("3 trials in a row failed with the same error")

    source.ended = ended
    with pytest.raises(SearchAborted, match="3 trials in a row"):
        in_tune(source, labels, ON_CPU, 1, tmp_path)
    assert source.left, "it ended at once"
