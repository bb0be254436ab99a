"""Starting and leaving Ray."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import ray

# Returning freed memory to the system after each batch costs a CPU worker a third of its time.
WORKER_ENV = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "1073741824"}
DRIVER_ENV = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C reaches the driver, which knows what is finished
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_AIR_NEW_OUTPUT": "0",
}


@contextmanager
def session() -> Iterator[Mapping[str, float]]:
    """Connect to the cluster that RAY_ADDRESS or this machine names, or start Ray here; yield its resources."""
    for name, value in DRIVER_ENV.items():
        os.environ.setdefault(name, value)
    ray.init(
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.WARNING,
        runtime_env={"env_vars": WORKER_ENV},
    )
    try:
        yield ray.cluster_resources()
    finally:
        ray.shutdown()
