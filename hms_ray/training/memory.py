"""The device's memory: what a fold takes of it, and going on in smaller pieces where it does not suffice."""

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from hms_ray.core.allocator import keep_freed
from hms_ray.core.errors import TrialFailed

log = logging.getLogger(__name__)
T = TypeVar("T")


def attempt(step: Callable[[int], T], rows: int, device: torch.device) -> tuple[T, int]:
    """Return `step(rows)` and `rows`, halved as often as the device runs out of memory.

    Raises:
        TrialFailed: one row is too much; its cause is the OutOfMemoryError.
    """
    while True:
        try:
            return step(rows), rows
        except torch.OutOfMemoryError as error:
            cause = error.with_traceback(None)  # whose frames would keep the tensors that are to be freed
        if rows == 1:
            raise TrialFailed(f"{device} is out of memory: not even one example fits") from cause
        log.info("%s is out of memory with %d rows at a time; going on with %d", device, rows, rows // 2)
        rows //= 2
        if device.type == "cuda":
            torch.cuda.empty_cache()


def start(device: torch.device) -> None:
    """Forget what earlier folds of this process took, and keep what this one frees for its next batch."""
    keep_freed()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> int:
    """Return the most bytes of the GPU that were reserved since `start`; 0 on a CPU."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else 0


def total(device: torch.device) -> int:
    """Return the GPU's memory in bytes; 0 on a CPU."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0
