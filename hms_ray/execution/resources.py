"""How many workers fit a cluster; an impossible request is refused with the arithmetic."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from hms_ray.errors import ConfigError

ROUND_OFF = 1e-9  # three shares of 0.1 are more than 0.3 in floating point


@dataclass(frozen=True)
class Request:
    """What one worker takes, and how many workers train one fold."""

    cpus: float
    gpus: float
    workers_per_fold: int = 1


def fitted(cpus: float, gpus: float | None, workers_per_fold: int, cluster: Mapping[str, float]) -> Request:
    """Return the request; without a word about GPUs a worker takes one where the cluster has any."""
    return Request(cpus, (1.0 if cluster.get("GPU", 0) else 0.0) if gpus is None else gpus, workers_per_fold)


def folds_at_once(request: Request, cluster: Mapping[str, float]) -> int:
    """Return how many folds the cluster trains at the same time, at least one.

    Raises:
        ConfigError: not even one fits.
    """
    limits = []
    for name, each in (("CPU", request.cpus), ("GPU", request.gpus)):
        need, have = each * request.workers_per_fold, cluster.get(name, 0)
        if need > have + ROUND_OFF:
            raise ConfigError(
                f"resources: a fold needs {request.workers_per_fold} workers x {each:g} {name} = {need:g} {name}, "
                f"but the cluster has {have:g}"
            )
        limits.append(math.floor(have / need + ROUND_OFF) if need else math.inf)
    return int(min(limits))
