"""The EEG itself: montage, band-pass without delay, fewer steps a second; no standardisation of single windows.

Values are clipped before the filter, around the channel's level. Filtering first would spread an artefact over the
seconds around it before it is clipped, and clipping around zero would erase a channel whose electrode has an offset.
"""

from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from scipy import signal

from hms_ray.core.params import Params as Strict
from hms_ray.core.recordings import EEG
from hms_ray.core.specs import InputSpec, Panels
from hms_ray.features import _montage
from hms_ray.features._feature import Recordings
from hms_ray.features._pieces import butterworth_gain, in_pieces

ORDER = 2
NOTCH_QUALITY = 30.0  # the notch's frequency over its width
ROWS = 4  # at a time
PAD = 2000  # steps of odd extension at either end, in which the filter settles


class Params(Strict):
    """From electrodes to channels of a wave."""

    montage: _montage.Montage = Field("banana_16", description="which electrodes are subtracted from which")
    low_hz: float | None = Field(0.5, ge=0.1, lt=100, description="lower edge of the band; none: open")
    high_hz: float | None = Field(20.0, gt=0, lt=100, description="upper edge of the band; none: open")
    notch_hz: Literal[50, 60] | None = Field(None, description="mains frequency to take out")
    clip_uv: float = Field(1024.0, ge=10, le=50_000, description="a channel's values so far from its level are clipped")
    decimate: Literal[1, 2, 4, 5, 8, 10] = Field(1, description="keep every so many-th step, after the filter")
    scale_uv: float = Field(32.0, ge=1, le=1000, description="divisor: this many microvolts become 1")
    seconds: int = Field(50, ge=1, le=50, description="the middle so many seconds")

    @model_validator(mode="after")
    def _fits(self) -> "Params":
        nyquist = EEG.rate_hz / 2 / self.decimate
        if self.decimate > 1 and (self.high_hz is None or self.high_hz > nyquist):
            limit = f"{nyquist:g}, the Nyquist frequency with decimate={self.decimate}"
            raise ValueError(f"high_hz={self.high_hz} must be at most {limit}")
        if self.low_hz and self.high_hz and self.low_hz >= self.high_hz:
            raise ValueError(f"low_hz={self.low_hz:g} must be below high_hz={self.high_hz:g}")
        return self


def spec(params: Params) -> InputSpec:
    """Return the shape of one wave."""
    names, rate_hz = _montage.names(params.montage), EEG.rate_hz / params.decimate
    return InputSpec("wave", (len(names), round(params.seconds * rate_hz)), rate_hz, Panels("C", names), (EEG.name,))


def compute(recordings: Recordings, params: Params) -> torch.Tensor:
    """Return waves (B, C, T) of EEG (B, 20, 10000) in microvolts, float32 in units of `scale_uv`."""
    return in_pieces(recordings[EEG.name], ROWS, lambda eeg: _waves(eeg, params))


def _waves(eeg: torch.Tensor, params: Params) -> torch.Tensor:
    """Return the waves (B, C, T) of a few recordings."""
    waves = _filtered(_montage.waves(eeg, params.montage, params.clip_uv), params)
    steps = round(params.seconds * EEG.rate_hz)
    middle = waves.narrow(-1, (EEG.steps - steps) // 2, steps)
    return middle[..., :: params.decimate] / params.scale_uv


def _filtered(waves: torch.Tensor, params: Params) -> torch.Tensor:
    """Filter (..., T) forwards and backwards: |H|^2 over the spectrum of an odd extension, as `sosfiltfilt` does."""
    first, last = waves[..., :1], waves[..., -1:]
    before, after = waves[..., 1 : PAD + 1].flip(-1), waves[..., -PAD - 1 : -1].flip(-1)
    extended = torch.cat([2 * first - before, waves, 2 * last - after], -1)
    spectrum = torch.fft.rfft(extended).mul_(_gain(params, waves.device))
    return torch.fft.irfft(spectrum, extended.shape[-1])[..., PAD:-PAD]


@lru_cache(maxsize=32)
def _gain(params: Params, device: torch.device) -> torch.Tensor:
    """Return |H|^2 of Butterworth filter and notch at the frequencies of the extended wave's spectrum."""
    hz = np.fft.rfftfreq(EEG.steps + 2 * PAD, 1 / EEG.rate_hz)
    gain = butterworth_gain(hz, ORDER, params.low_hz, params.high_hz, EEG.rate_hz)
    if params.notch_hz is not None:
        notch = signal.iirnotch(params.notch_hz, NOTCH_QUALITY, fs=EEG.rate_hz)
        gain = gain * np.abs(signal.freqz(*notch, hz, fs=EEG.rate_hz)[1]) ** 2
    return torch.tensor(gain, dtype=torch.float32, device=device)
