"""Batches computed a few rows at a time."""

from collections.abc import Callable

import torch

DEVICE_ROWS = 32  # as many times the rows where there is no cache to fit and each launch costs


def in_pieces(eeg: torch.Tensor, rows: int, compute: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Return compute(eeg) of recordings (B, 20, T), `rows` at a time on a CPU: what they need stays in its cache."""
    size = rows if eeg.device.type == "cpu" else DEVICE_ROWS * rows
    return torch.cat([compute(piece) for piece in eeg.split(size)])
