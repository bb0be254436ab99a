"""State after a finished epoch, written atomically and read without running anything it holds."""

import io
import logging
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from hms_ray.core import files
from hms_ray.core.errors import DataError

log = logging.getLogger(__name__)
DIGEST_BYTES = 16  # of files.fingerprint
ZIP = b"PK\x03\x04"
OLD_COVARIATES = re.compile(r"\bside\.(?=(mean|scale)$)")


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and plain values, behind a digest by which damage is seen before anything is parsed."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getvalue()
    files.write_bytes(path, files.fingerprint(content).encode() + content)


def load(path: Path, of: str) -> dict[str, Any] | None:
    """Return the state, or None where there is none, it is damaged, or it is `of` another run.

    A warning names a file that is damaged: the fold then begins anew.
    """
    if not path.is_file():
        return None
    written = path.read_bytes()
    digest, content = written[:DIGEST_BYTES], written[DIGEST_BYTES:]
    if digest != files.fingerprint(content).encode():
        log.warning("%s is damaged; the fold begins anew", path)
        return None
    try:
        if not content.startswith(ZIP):  # torch would try a reader of old formats, which fails in many ways
            raise pickle.UnpicklingError("not what torch.save writes")
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError):  # more than tensors and plain values, or a broken archive
        log.warning("%s holds no state that hms-ray wrote; the fold begins anew", path)
        return None
    return state if isinstance(state, dict) and state.get("of") == of else None


def pack(weights: Mapping[str, torch.Tensor]) -> bytes:
    """Return weights in the safetensors format, which wants no memory to be shared, as that of tied layers is."""
    own, taken = {}, set()
    for name, weight in weights.items():
        tensor = weight.detach().cpu().contiguous()
        memory = tensor.untyped_storage().data_ptr()
        own[name] = tensor.clone() if memory in taken else tensor
        taken.add(memory)
    return save_safetensors(own)


def unpack(path: Path) -> dict[str, torch.Tensor]:
    """Read weights from a safetensors file.

    Raises:
        DataError: the file is missing or broken.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; the weights of this fold were not kept")
    try:
        return unpacked(path.read_bytes())
    except SafetensorError as error:
        raise DataError(f"{path}: broken weights ({error})") from error


def unpacked(content: bytes) -> dict[str, torch.Tensor]:
    """Read what `pack` returned; covariates of studies from before version 0.2 have their present name."""
    return {OLD_COVARIATES.sub("covariates.", name): weight for name, weight in load_safetensors(content).items()}
