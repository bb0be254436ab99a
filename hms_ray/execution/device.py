"""The device that a worker trains on."""

import os

import torch

from hms_ray.core.errors import ConfigError, TrialFailed

VARIABLE = "HMS_RAY_DEVICE"


def rehearsed() -> bool:
    """Whether a cluster's layout is rehearsed without its GPUs: HMS_RAY_DEVICE=cpu trains on the CPU whatever Ray says.

    Raises:
        ConfigError: the variable has any other value.
    """
    value = os.environ.get(VARIABLE, "")
    if value not in ("", "cpu"):
        raise ConfigError(f"{VARIABLE} must be 'cpu' (train there, whatever GPUs Ray has) or unset, but is {value!r}")
    return value == "cpu"


def device(gpus: float) -> torch.device:
    """Return the device that Ray gave this process.

    Raises:
        TrialFailed: Ray gave it a share of a GPU, but torch finds none.
    """
    if not gpus or rehearsed():
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise TrialFailed(f"the trial was given {gpus:g} GPU, but torch {torch.__version__} finds none on its node")
    return torch.device("cuda")
