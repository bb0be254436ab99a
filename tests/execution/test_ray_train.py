"""Who gets which work in a worker group, also after it was started again; test_placement.py runs whole groups."""

import pickle
import subprocess
import sys
from collections import deque
from pathlib import Path
from types import SimpleNamespace

import pytest

from hms_ray.execution import ray_train
from hms_ray.execution.events import ReplicasLost, Work, WorkDone, WorkRequest
from hms_ray.execution.ray_train import WorkDispatcher
from hms_ray.training.jobs import FoldJob
from tests.listening import listening


def work(trial: str) -> Work:
    return Work(trial, (FoldJob(trial, {}, 0, Path(), Path("0.pt")),))


class Source:
    """Works in their order; `open`: whether more may come."""

    def __init__(self, *trials: str) -> None:
        self.left, self.over, self.open = deque(map(work, trials)), [], False

    def next(self):
        return self.left.popleft() if self.left else None

    def exhausted(self):
        return not self.left and not self.open

    def ended(self, work):
        self.over.append(work.trial)


@pytest.fixture
def office(monkeypatch):
    """A dispatcher without Ray: `answers` by question, `spared` the trials whose loss was no fault of theirs."""
    answers, spared = {}, []
    give = SimpleNamespace(remote=lambda question, work: answers.update({question: work and pickle.loads(work).trial}))
    collector = SimpleNamespace(mailbox=SimpleNamespace(give=give), spare=lambda work: spared.append(work.trial))
    monkeypatch.setattr(ray_train.ray, "get", lambda ref: ref)
    return SimpleNamespace(dispatcher=WorkDispatcher(Source("a", "b", "c"), collector), answers=answers, spared=spared)


def ask(office, *questions: tuple[int, str]) -> dict[str, str | None]:
    for replica, question in questions:
        office.dispatcher.answer(WorkRequest(replica, question))
    return office.answers


def test_each_replica_gets_work_until_there_is_no_more(office):
    assert ask(office, (0, "q"), (1, "r")) == {"q": "a", "r": "b"}
    office.dispatcher.answer(WorkDone(1))
    assert office.dispatcher.source.over == ["b"]
    assert ask(office, (1, "s"))["s"] == "c"
    office.dispatcher.answer(WorkDone(1))
    assert ask(office, (1, "t"))["t"] is None


def test_a_replica_that_was_started_again_gets_what_it_had(office):
    ask(office, (0, "q"), (1, "r"))
    assert ask(office, (1, "s"), (0, "t")) == {"q": "a", "r": "b", "s": "b", "t": "a"}


def test_work_waits_for_a_replica_but_not_behind_another(office):
    """One replica has to wait until the other's trial has ended; that one must get its trial again."""
    ask(office, (1, "q"))
    office.dispatcher.source.left, office.dispatcher.source.open = deque(), True
    assert ask(office, (0, "r"), (1, "s")) == {"q": "a", "s": "a"}
    office.dispatcher.source.left.append(work("d"))
    office.dispatcher.retry()
    assert office.answers["r"] == "d"


def test_only_those_who_lost_a_worker_are_counted(office):
    ask(office, (0, "q"), (1, "r"), (2, "s"))
    office.dispatcher.answer(ReplicasLost(frozenset({1})))
    assert office.spared == ["a", "c"]


def test_a_group_that_is_to_be_followed_by_a_larger_one_gets_no_more_work(office):
    ask(office, (0, "q"))
    office.dispatcher.closing = True
    office.dispatcher.answer(WorkDone(0))
    assert ask(office, (0, "r"))["r"] is None, "though there is work left, for the next group"
    office.dispatcher.closing = False
    assert ask(office, (0, "s"), (1, "t")) == {"q": "a", "r": None, "s": "b", "t": "c"}


@pytest.mark.parametrize(
    ("fit", "left", "closing"), [(1, 9, False), (2, 9, False), (3, 9, False), (4, 9, True), (4, 3, False)]
)
def test_a_group_closes_when_twice_its_replicas_fit_and_have_work(office, fit, left, closing):
    office.dispatcher.source.remaining = lambda: left
    office.dispatcher.collector.check = lambda: None
    cluster = SimpleNamespace(folds=lambda request, wanted: fit)
    ray_train._look_after(office.dispatcher, cluster, None, replicas=2)
    assert office.dispatcher.closing == closing


RANKS = """
import os, sys, time
from pathlib import Path
import torch
from torch import distributed
from hms_ray.execution import ray_train

told, other = Path(sys.argv[1]), os.fork()

def from_first(address):
    if other:
        told.with_suffix(".part").write_text(":".join(map(str, address)))
        told.with_suffix(".part").rename(told)
    while not told.exists():
        time.sleep(0.05)
    host, port = told.read_text().split(":")
    return host, int(port)

ray_train.ray.util.get_node_ip_address = lambda: "127.0.0.1"  # what it is in a Ray that was started here
ray_train._join(0 if other else 1, 2, "gloo", from_first)
number = torch.tensor(1.0 if other else 2.0)
distributed.all_reduce(number, group=distributed.new_group([0, 1]))
os.write(1, f"{os.getpid()} {number.item()}\\n".encode())  # a whole line, whatever the other writes
sys.stdin.read()
"""


def test_the_ranks_of_a_local_group_listen_on_the_loopback_address_alone(tmp_path):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    ranks = subprocess.Popen([sys.executable, "-c", RANKS, str(tmp_path / "told")], **pipes)
    said = [ranks.stdout.readline().split() for _ in range(2)]
    found = [address for pid, _ in said for _, address in listening(int(pid))]
    ranks.communicate("", timeout=60)
    assert [total for _, total in said] == ["3.0", "3.0"]
    assert len(found) >= 3, "the store of rank 0, and each rank's own socket"
    assert all(address.is_loopback for address in found)
