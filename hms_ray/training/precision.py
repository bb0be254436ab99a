"""In which precision a network computes: what `optim.precision` becomes on a device."""

from contextlib import AbstractContextManager
from typing import Literal

import torch

from hms_ray.training.distributed import Replica

Precision = Literal["auto", "float32", "bfloat16", "float16"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def decide(wanted: Precision, kind: str, has_bfloat16: bool) -> torch.dtype:
    """Return the type in which a network computes; "auto": half precision on every GPU, none on a CPU, which is slower
    in it.

    kind: of the device, "cuda" or "cpu"; has_bfloat16: whether the GPU itself computes in bfloat16, unlike a T4
    """
    if wanted != "auto":
        return DTYPES[wanted]
    if kind != "cuda":
        return torch.float32
    return torch.bfloat16 if has_bfloat16 else torch.float16


def of_device(wanted: Precision, device: torch.device) -> torch.dtype:
    """Return the type in which a network computes on this device."""
    return decide(wanted, device.type, _has_bfloat16(device))


def agreed(wanted: Precision, replica: Replica) -> torch.dtype:
    """Return the type in which all workers of a fold compute: "auto" is bfloat16 where every one of them has it.

    Gradients of several precisions cannot be averaged: those of float16 are scaled.
    """
    lacking = torch.tensor(float(not _has_bfloat16(replica.device)), device=replica.device)
    return decide(wanted, replica.device.type, replica.team.mean(lacking).item() == 0)


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[None]:
    """Compute in a half precision type what may be; float32: everything as it is."""
    half = dtype != torch.float32
    return torch.autocast(device.type, dtype if half else torch.bfloat16, enabled=half)


def _has_bfloat16(device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    with torch.cuda.device(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)
