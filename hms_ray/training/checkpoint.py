"""State after a finished epoch, written atomically and read without running anything it holds."""

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from hms_ray import files
from hms_ray.errors import DataError


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and plain values."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    files.write_bytes(path, buffer.getvalue())


def load(path: Path, of: str) -> dict[str, Any] | None:
    """Return the state, or None where there is none, it is unreadable, or it is `of` another run."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, EOFError, RuntimeError, pickle.UnpicklingError):
        return None
    return state if isinstance(state, dict) and state.get("of") == of else None


def pack(weights: Mapping[str, torch.Tensor]) -> bytes:
    """Return weights in the safetensors format."""
    return save_safetensors({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()})


def unpack(path: Path) -> dict[str, torch.Tensor]:
    """Read weights from a safetensors file."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; the weights of this fold were not kept")
    return load_safetensors(path.read_bytes())
