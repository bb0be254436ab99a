"""Morlet scalograms of the electrode pairs: the wavelet transform's amplitude at frequencies in geometric steps.

Each wavelet is a Gaussian around its frequency, of gain 1 there on the analytic signal: a sine of A uV gives A.
"""

import math
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from scipy.fft import next_fast_len

from hms_ray.core.params import Params as Strict
from hms_ray.core.recordings import EEG
from hms_ray.core.specs import InputSpec, Panels
from hms_ray.features import _montage
from hms_ray.features._feature import Recordings
from hms_ray.features._pieces import in_pieces

REACH = 4.0  # deviations of the longest wavelet's Gaussian that are reflected at either end
NEGLIGIBLE = 1e-9  # gain below which a wavelet does not reach a frequency
ROWS = 2  # at a time: a row needs about 20 MB


class Params(Strict):
    """Which wavelets, and at which steps."""

    montage: _montage.Banana = Field("banana_18", description="electrode pairs, a panel each")
    low_hz: float = Field(0.5, ge=0.25, le=100, description="frequency of the first row")
    high_hz: float = Field(40.0, gt=0, le=90, description="frequency of the last row")
    scales: int = Field(40, ge=2, le=128, description="rows of a panel, from low_hz to high_hz in geometric steps")
    stride: int = Field(16, ge=2, le=200, description="EEG steps per column; divides 10000")
    cycles: float = Field(6.0, ge=3, le=12, description="w0 of the Morlet wavelet: more resolve frequency, fewer time")
    clip_uv: float = Field(1024.0, ge=10, le=50_000, description="a pair's values so far from its level are clipped")
    arrange: Literal["stack", "channels"] = Field("stack", description="panels below each other, or each a channel")

    @model_validator(mode="after")
    def _fits(self) -> "Params":
        if EEG.steps % self.stride:
            raise ValueError(f"stride={self.stride} must divide the {EEG.steps} steps of a window, as 8, 10 and 16 do")
        if self.low_hz >= self.high_hz:
            raise ValueError(f"low_hz={self.low_hz:g} must be below high_hz={self.high_hz:g}")
        return self


def spec(params: Params) -> InputSpec:
    """Return the shape of one image."""
    names, columns = _montage.names(params.montage), EEG.steps // params.stride
    stacked = params.arrange == "stack"
    shape = (1, len(names) * params.scales, columns) if stacked else (len(names), params.scales, columns)
    return InputSpec("image", shape, EEG.rate_hz / params.stride, Panels("F" if stacked else "C", names), (EEG.name,))


def compute(recordings: Recordings, params: Params) -> torch.Tensor:
    """Return images (B, C, F, T) of EEG (B, 20, 10000) in microvolts, float32: log(1 + amplitude / uV) / 2."""
    images = in_pieces(recordings[EEG.name], ROWS, lambda eeg: amplitude(eeg, params).log1p_().div_(2))
    return images.reshape(-1, *spec(params).shape)


def amplitude(eeg: torch.Tensor, params: Params) -> torch.Tensor:
    """Return (B, P, scales, columns) in microvolts.

    Every stride-th value of an inverse transform is the inverse transform of the spectrum folded into 1 / stride of
    its length, so what lies between the columns is never computed.
    """
    before, blocks = _padding(params)
    after = blocks * params.stride - EEG.steps - before
    waves = _montage.waves(eeg, params.montage, params.clip_uv)
    spectrum = torch.fft.rfft(torch.nn.functional.pad(waves, (before, after), mode="reflect"))
    gains = _gains(params, eeg.device)
    folds = torch.nn.functional.pad(spectrum, (0, len(gains) * blocks - spectrum.shape[-1])).unflatten(-1, (-1, blocks))
    folded = spectrum.new_zeros(*spectrum.shape[:2], params.scales, blocks)
    for (first, gain), fold in zip(gains, folds.unbind(2), strict=True):
        folded[:, :, first:].addcmul_(fold[:, :, None], gain)
    analytic = torch.fft.ifft(folded)
    start = before // params.stride
    return analytic[..., start : start + EEG.steps // params.stride].abs()


def _padding(params: Params) -> tuple[int, int]:
    """Return steps that are reflected before the window, and the whole length in strides, one that transforms fast."""
    strides = math.ceil(REACH * params.cycles / (2 * math.pi * params.low_hz) * EEG.rate_hz / params.stride)
    return strides * params.stride, next_fast_len(EEG.steps // params.stride + 2 * strides)


@lru_cache(maxsize=32)
def _gains(params: Params, device: torch.device) -> tuple[tuple[int, torch.Tensor], ...]:
    """Return for each fold of the spectrum the first wavelet that reaches it, and the gains from there on.

    A gain (scales, blocks) is a Gaussian less what it has at 0 Hz, so that no offset is seen; twice, for the negative
    half of an analytic signal is zero; over the stride, for the shorter transform.
    """
    _, blocks = _padding(params)
    hz = np.arange((params.stride // 2 + 1) * blocks) * EEG.rate_hz / (blocks * params.stride)
    ratio = hz / np.geomspace(params.low_hz, params.high_hz, params.scales)[:, None]
    gauss, offset = (np.exp(-0.5 * params.cycles**2 * square) for square in ((ratio - 1) ** 2, ratio**2 + 1))
    gains = (gauss - offset) * (hz <= EEG.rate_hz / 2)
    folds = gains.reshape(params.scales, -1, blocks).swapaxes(0, 1)
    firsts = [int(np.argmax(np.append((fold > NEGLIGIBLE).any(1), True))) for fold in folds]  # or none: an empty rest
    return tuple(
        (first, torch.tensor(2 / params.stride * fold[first:], dtype=torch.complex64, device=device))
        for first, fold in zip(firsts, folds, strict=True)
    )
