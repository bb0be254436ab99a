"""Starting and leaving Ray."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from hms_ray.errors import ConfigError
from hms_ray.execution.device import VARIABLE, rehearsed
from hms_ray.execution.resources import Node

DRIVER_ENV = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C reaches the driver, which knows what is finished
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_AIR_NEW_OUTPUT": "0",
}
ANSWER_S = 10


@contextmanager
def session() -> Iterator[list[Node]]:
    """Connect to the cluster that RAY_ADDRESS or this machine names, or start Ray here; yield what each node has.

    Raises:
        ConfigError: HMS_RAY_DEVICE says what it cannot, or nobody answers at RAY_ADDRESS.
    """
    _check_address(os.environ.get("RAY_ADDRESS", ""))
    for name, value in DRIVER_ENV.items():
        os.environ.setdefault(name, value)
    ray.init(
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.WARNING,
        # none but in a rehearsal: processes with one are started when they are asked for, and not before
        runtime_env={"env_vars": {VARIABLE: "cpu"}} if rehearsed() else None,
    )
    try:
        yield living_nodes()
    finally:
        ray.shutdown()


def living_nodes() -> list[Node]:
    """Return what each node of the cluster has that is alive now."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _check_address(address: str) -> None:
    """Knock where the cluster should be: Ray itself would try for minutes, with many lines of its own."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or "/" in host:  # "auto", "local", or ray://, whose client says it well
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()
    except OSError as error:
        raise ConfigError(f"RAY_ADDRESS={address}: no Ray cluster answers there ({error})") from error
