"""What Ray is started with and what a session yields; Ray itself is started once, to see where it listens."""

import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from hms_ray.core.errors import ConfigError
from hms_ray.execution import session as module
from hms_ray.execution.session import DRIVER_ENV, session
from tests.listening import listening

NODES = [
    {"Alive": True, "Resources": {"CPU": 8.0, "memory": 3e10}},
    {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    {"Alive": True, "Resources": {"CPU": 16.0, "GPU": 1.0, "memory": 6e10}},
]


@pytest.fixture
def ray(monkeypatch):
    """The calls that Ray gets, by name."""
    calls = {}
    monkeypatch.setattr(module.ray, "init", lambda **options: calls.update(init=options))
    monkeypatch.setattr(module.ray, "nodes", lambda: NODES)
    monkeypatch.setattr(module.Autoscaler, "of_cluster", lambda: None)
    monkeypatch.setattr(module, "open_directory", lambda: calls.update(directory=True))
    monkeypatch.setattr(module, "_tell_what_is_open", lambda: calls.update(told=True))
    monkeypatch.setattr(module, "read_ray_address", lambda: None)
    monkeypatch.setattr(module.ray, "shutdown", lambda: calls.update(shutdown=True))
    monkeypatch.setattr(module.os, "environ", os.environ | {"RAY_AIR_NEW_OUTPUT": "1"})
    os.environ.pop("HMS_RAY_DEVICE", None)
    os.environ.pop("RAY_ADDRESS", None)
    return calls


def test_a_session_yields_what_each_living_node_has(ray):
    with session() as cluster:
        assert cluster.nodes() == [NODES[0]["Resources"], NODES[2]["Resources"]]
        assert "shutdown" not in ray
    assert ray["shutdown"]


def test_ray_is_left_whatever_happens(ray):
    with pytest.raises(KeyboardInterrupt), session():
        raise KeyboardInterrupt
    assert ray["shutdown"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ConfigError])
def test_what_was_asked_of_the_autoscaler_is_withdrawn_whatever_happens(ray, monkeypatch, error):
    said = []
    os.environ["RAY_ADDRESS"] = "auto"
    autoscaler = SimpleNamespace(withdraw=lambda: said.append("shutdown" in ray))
    monkeypatch.setattr(module.Autoscaler, "of_cluster", lambda: autoscaler)
    with pytest.raises(error), session() as cluster:
        assert cluster.autoscaler is autoscaler
        raise error
    assert said == [False], "once, and before Ray is left"


def test_what_the_user_has_set_for_the_driver_stays(ray):
    with session():
        assert os.environ["RAY_AIR_NEW_OUTPUT"] == "1"
        assert {name: os.environ[name] for name in DRIVER_ENV} == DRIVER_ENV | {"RAY_AIR_NEW_OUTPUT": "1"}
    assert ray["init"]["runtime_env"] is None


def test_a_rehearsal_reaches_the_workers(ray):
    os.environ["HMS_RAY_DEVICE"] = "cpu"
    with session():
        assert ray["init"]["runtime_env"] == {"env_vars": {"HMS_RAY_DEVICE": "cpu"}}


def test_a_device_that_cannot_be_is_refused_before_ray_starts(ray):
    os.environ["HMS_RAY_DEVICE"] = "tpu"
    with pytest.raises(ConfigError, match="HMS_RAY_DEVICE"), session():
        pytest.fail("Ray was started")
    assert ray == {}


def test_an_address_where_nobody_answers_is_refused_before_ray_tries(ray, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
        monkeypatch.setitem(module.os.environ, "RAY_ADDRESS", f"127.0.0.1:{free}")
        with session():
            assert "init" in ray
    ray.clear()
    with pytest.raises(ConfigError, match=rf"RAY_ADDRESS=127\.0\.0\.1:{free}: no Ray cluster answers there"), session():
        pass
    assert "init" not in ray


def test_a_clusters_address_file_that_nobody_cleared_is_named(ray, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    monkeypatch.setattr(module, "read_ray_address", lambda: f"127.0.0.1:{free}")
    with pytest.raises(ConfigError, match=rf"^127\.0\.0\.1:{free}, .*`ray start`.*: no Ray cluster answers"), session():
        pass
    assert "init" not in ray


def test_a_client_of_ray_is_refused_with_what_to_do_instead(ray, monkeypatch):
    monkeypatch.setitem(module.os.environ, "RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(ConfigError, match=r"RAY_ADDRESS=ray://head:10001: .* on a node of the cluster"), session():
        pass
    assert "init" not in ray


@pytest.mark.parametrize("joined", [True, False])
def test_only_a_cluster_that_is_joined_gets_a_directory_of_stores_and_is_spoken_of(ray, monkeypatch, joined):
    with socket.create_server(("127.0.0.1", 0)) as server:
        running = "{}:{}".format(*server.getsockname())
        monkeypatch.setattr(module, "read_ray_address", lambda: running if joined else None)
        with session():
            pass
    assert ray["init"]["address"] == ("auto" if joined else "local")
    assert ("directory" in ray, "told" in ray) == (joined, joined)


@pytest.mark.parametrize(
    ("mode", "sentence"), [("token", "clients need the cluster's token"), ("disabled", "NO token protects them")]
)
def test_it_says_what_protects_a_cluster(monkeypatch, caplog, mode, sentence):
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    context = SimpleNamespace(gcs_address="10.0.0.1:6379")
    monkeypatch.setattr(module.ray, "get_runtime_context", lambda: context)
    with caplog.at_level(logging.INFO):
        module._tell_what_is_open()
    assert "joined the Ray cluster at 10.0.0.1:6379" in caplog.text and sentence in caplog.text


SESSION = """
import ray
from hms_ray.execution.session import session

with session():
    ray.get(ray.remote(lambda: 0).options(num_cpus=0).remote())  # some worker has started
    print("begun", flush=True)
    input()
"""


def test_ray_that_is_started_here_listens_on_the_loopback_address_alone_and_prints_nothing(tmp_path, monkeypatch):
    """As on a fresh machine: nothing is set, and the home is empty."""
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    folder = tempfile.mkdtemp(prefix="ray")  # no other Ray has left its address there; a socket's name must be short
    settings = {"HOME": str(tmp_path), "RAY_TMPDIR": folder, "RAY_OVERRIDE_RESOURCES": '{"CPU": 1}'}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen([sys.executable, "-c", SESSION], env=os.environ | settings, text=True, **pipes)
    begun = process.stdout.readline()
    found = {}
    for pid in list(_family(process.pid)):
        with suppress(FileNotFoundError):  # it has ended
            found |= listening(pid)
    _, err = process.communicate("\n", timeout=60)
    shutil.rmtree(folder, ignore_errors=True)
    assert begun == "begun\n", err
    assert {"gcs_server", "raylet"} <= found.keys(), "it was looked at the right ones"
    assert {title: str(address) for title, address in found.items() if not address.is_loopback} == {}
    told = [channel for channel in err.splitlines() if "/dev/shm" not in channel]  # a small one is worth a warning
    assert told == []


def _family(pid: int) -> Iterator[int]:
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            yield from _family(child)
