"""What several features compute with: batches in pieces, and the gain of a Butterworth filter."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from scipy import signal

DEVICE_ROWS = 32  # as many times the rows where there is no cache to fit and each launch costs


def in_pieces(eeg: torch.Tensor, rows: int, compute: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Return compute(eeg) of recordings (B, 20, T), `rows` at a time on a CPU: what they need stays in its cache."""
    size = rows if eeg.device.type == "cpu" else DEVICE_ROWS * rows
    return torch.cat([compute(piece) for piece in eeg.split(size)])


def butterworth_gain(
    hz: np.ndarray, order: int, low_hz: float | None, high_hz: float | None, rate_hz: float
) -> np.ndarray:
    """Return |H|^2 of a Butterworth filter at frequencies (F,); an edge that is None is open, both None pass all."""
    edges = [edge for edge in (low_hz, high_hz) if edge is not None]
    if not edges:
        return np.ones_like(hz)
    kind: Literal["bandpass", "lowpass", "highpass"] = (
        "bandpass" if len(edges) == 2 else "lowpass" if low_hz is None else "highpass"
    )
    sos = signal.butter(order, edges if len(edges) == 2 else edges[0], kind, fs=rate_hz, output="sos")
    return np.abs(signal.sosfreqz(sos, hz, fs=rate_hz)[1]) ** 2
