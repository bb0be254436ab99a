"""What Ray is started with and what a session yields; Ray itself is not started here."""

import os
import socket

import pytest

from hms_ray.errors import ConfigError
from hms_ray.execution import session as module
from hms_ray.execution.session import DRIVER_ENV, session

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
    monkeypatch.setattr(module, "open_directory", lambda: calls.update(directory=True))
    monkeypatch.setattr(module, "_tell_what_is_open", lambda: calls.update(told=True))
    monkeypatch.setattr(module, "read_ray_address", lambda: None)
    monkeypatch.setattr(module.ray, "shutdown", lambda: calls.update(shutdown=True))
    monkeypatch.setattr(module.os, "environ", os.environ | {"RAY_AIR_NEW_OUTPUT": "1"})
    os.environ.pop("HMS_RAY_DEVICE", None)
    os.environ.pop("RAY_ADDRESS", None)
    return calls


def test_a_session_yields_what_each_living_node_has(ray):
    with session() as nodes:
        assert nodes == [NODES[0]["Resources"], NODES[2]["Resources"]]
        assert "shutdown" not in ray
    assert ray["shutdown"]


def test_ray_is_left_whatever_happens(ray):
    with pytest.raises(KeyboardInterrupt), session():
        raise KeyboardInterrupt
    assert ray["shutdown"]


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
