"""Starting and leaving Ray."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import ray
from ray._private import ray_constants
from ray._private.utils import read_ray_address

from hms_ray.core.errors import ConfigError
from hms_ray.execution.autoscaler import Autoscaler
from hms_ray.execution.cluster import Cluster, living_nodes
from hms_ray.execution.device import VARIABLE, rehearsed
from hms_ray.execution.store_copies import open_directory

log = logging.getLogger(__name__)
DRIVER_ENV = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C reaches the driver, which knows what is finished
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",  # the number of trials at once is bounded by who proposes them
}
LOCAL_ENV = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}  # no cloud takes this machine away; it is a process a group
ANSWER_S = 10
LOCAL, AUTO = "local", "auto"  # as Ray takes them: a new one here, or the one that was started on this machine
TOKEN_LOG = "ray._private.authentication.authentication_token_setup"


@contextmanager
def session() -> Iterator[Cluster]:
    """Connect to the cluster that RAY_ADDRESS or this machine names, or start Ray here; yield the cluster.

    What was asked of its autoscaler is withdrawn at the end, however that comes.

    Ray that is started here listens on the loopback address alone. Nodes of a cluster get the stores that they miss.

    Raises:
        ConfigError: HMS_RAY_DEVICE says what it cannot, or nobody answers at the cluster's address.
    """
    address = _address()
    for name, value in (DRIVER_ENV | (LOCAL_ENV if address == LOCAL else {})).items():
        os.environ.setdefault(name, value)
    logging.getLogger(TOKEN_LOG).setLevel(logging.ERROR)  # token mode by default is what is wanted
    with _loopback() if address == LOCAL else nullcontext():
        ray.init(
            address=address,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.WARNING,
            # none but in a rehearsal: processes with one are started when they are asked for, and not before
            runtime_env={"env_vars": {VARIABLE: "cpu"}} if rehearsed() else None,
        )
    try:
        directory = autoscaler = None
        if address != LOCAL:
            _tell_what_is_open()
            directory = open_directory()  # which ends when nobody has its handle any more
            autoscaler = Autoscaler.of_cluster()
        try:
            yield Cluster(living_nodes, autoscaler)
        finally:
            del directory
            if autoscaler is not None:
                autoscaler.withdraw()
    finally:
        ray.shutdown()


def _address() -> str:
    """Return the address of the cluster to join as Ray takes it, or LOCAL where there is none."""
    if named := os.environ.get("RAY_ADDRESS"):
        _check_address(named, f"RAY_ADDRESS={named}")
        return named
    if running := read_ray_address():
        _check_address(running, f"{running}, which `ray start` on this machine has named")
        return AUTO
    return LOCAL


def _check_address(address: str, name: str) -> None:
    """Knock where the cluster should be: Ray itself would try for minutes, with many lines of its own."""
    if address.startswith("ray://"):
        raise ConfigError(
            f"{name}: a search cannot be driven through Ray's client; run the command on a node of the cluster, by "
            "`ray exec` or `ray job submit`"
        )
    host, _, port = address.rpartition(":")
    if not port.isdecimal():  # "auto" or "local"
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()
    except OSError as error:
        raise ConfigError(f"{name}: no Ray cluster answers there ({error})") from error


@contextmanager
def _loopback() -> Iterator[None]:
    """Let all processes of a Ray that is started meanwhile listen on 127.0.0.1 alone.

    Ray has a setting for it on Windows and macOS only, RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0; it reads it when it is
    imported, which other code may have done before.
    """
    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _tell_what_is_open() -> None:
    """Log which cluster this process has joined, that others may reach it, and what protects it."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "token":
        protection = "clients need the cluster's token"
    else:
        protection = "NO token protects them: set RAY_AUTH_MODE=token, since who reaches a port can run programs"
    gcs = ray.get_runtime_context().gcs_address
    log.info("joined the Ray cluster at %s; ports of its nodes are open to their network; %s", gcs, protection)
