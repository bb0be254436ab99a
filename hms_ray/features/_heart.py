"""The sound of a heart: its middle seconds, band-passed without delay, at another rate; where there is none, zeros."""

import math
from functools import lru_cache

import numpy as np
import torch
from pydantic import Field, model_validator
from scipy import signal
from scipy.fft import next_fast_len

from hms_ray.core.params import Params as Strict
from hms_ray.core.recordings import HEART_SOUND
from hms_ray.features._pieces import butterworth_gain

ORDER = 2
PAD = 2000  # steps of real sound, or of odd extension, at either end, in which the filter settles
REACH = 10  # zero crossings of the resampling filter on either side, and its Kaiser window: scipy's defaults
KAISER = 5.0
QUIET = 1e-6  # of full scale, far below the last of 16 bits: what is flat is not made loud

Heard = tuple[torch.Tensor, torch.Tensor]  # sound (B, T), and (B, T): is there any


class Band(Strict):
    """Which part of a recording, and which frequencies of it."""

    seconds: float = Field(
        20.0, ge=1, le=HEART_SOUND.window_s, description="the middle so many seconds of what is there"
    )
    low_hz: float | None = Field(25.0, ge=5, lt=2000, description="lower edge of the band; none: open")
    high_hz: float | None = Field(800.0, gt=0, lt=2000, description="upper edge of the band; none: open")

    @model_validator(mode="after")
    def _edges_rise(self) -> "Band":
        if self.low_hz and self.high_hz and self.low_hz >= self.high_hz:
            raise ValueError(f"low_hz={self.low_hz:g} must be below high_hz={self.high_hz:g}")
        return self

    @property
    def steps(self) -> int:
        """Steps of so many seconds, as recorded."""
        return round(self.seconds * HEART_SOUND.rate_hz)


def heard(recordings: torch.Tensor, steps: int, low_hz: float | None = None, high_hz: float | None = None) -> Heard:
    """Return the middle `steps` of recordings (B, 1, T), filtered, and where they are known.

    A recording is what lies between its first and its last known value: one that is shorter begins at step 0, and
    what follows its end is not known. Gaps inside hold its mean while it is filtered.
    """
    sound = recordings[:, 0]
    known = ~sound.isnan()
    first, last = _ends(known)
    sound = torch.where(known, sound, sound.nanmean(-1, keepdim=True).nan_to_num())
    start = first + ((last + 1 - first - steps) // 2).clamp(min=0)  # (B, 1)
    length = next_fast_len(steps + 2 * PAD, real=True)
    place = start - PAD + torch.arange(length, device=sound.device)
    wave = _filtered(_extended(sound, place, first, last), low_hz, high_hz)[:, PAD : PAD + steps]
    inside = place[:, PAD : PAD + steps]
    known = known.gather(1, inside.clamp(max=known.shape[-1] - 1)) & (inside <= last)
    return wave.where(known, 0.0), known


def centred(sound: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Return sound (B, T) with mean 0 over what is known, and 0 elsewhere."""
    return (sound - _mean(sound, known)).where(known, 0.0)


def normalised(sound: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Return sound (B, T) with mean 0 and deviation 1 over what is known, and 0 elsewhere."""
    sound = centred(sound, known)
    return sound / (_mean(sound.square(), known).sqrt() + QUIET)


def _mean(values: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Return the mean (B, 1) of what is known; 0 where nothing is."""
    return values.where(known, 0.0).sum(-1, keepdim=True) / known.sum(-1, keepdim=True).clamp(min=1)


def resampled(sound: torch.Tensor, rate_hz: int) -> torch.Tensor:
    """Return sound (B, T) as recorded at another rate (B, ceil(T rate / 4000)): scipy.signal.resample_poly.

    One of the rates is a multiple of the other. Each of the `up` steps between two has coefficients of its own, so
    that nothing is multiplied by the zeros that resampling puts between steps.
    """
    up, down = _factors(rate_hz)
    if up == down:
        return sound
    taps = _taps(up, down, sound.device)  # (W, up)
    padded = torch.nn.functional.pad(sound, (len(taps) // 2, len(taps) // 2))
    return (padded.unfold(-1, len(taps), down) @ taps).flatten(1)  # a convolution would be TF32 on CUDA


def known_at(known: torch.Tensor, rate_hz: int) -> torch.Tensor:
    """Return what is known (B, T) of sound at another rate."""
    up, down = _factors(rate_hz)
    return known.repeat_interleave(up, -1)[:, ::down]


def steps_at(steps: int, rate_hz: int) -> int:
    """Return how many steps sound has at another rate."""
    up, down = _factors(rate_hz)
    return -(-steps * up // down)


def _factors(rate_hz: int) -> tuple[int, int]:
    """Return what 4000 steps a second are multiplied and divided by."""
    common = math.gcd(rate_hz, round(HEART_SOUND.rate_hz))
    return rate_hz // common, round(HEART_SOUND.rate_hz) // common


def _ends(known: torch.Tensor) -> Heard:
    """Return the first and last steps (B, 1) that are known; 0 and -1 where none is."""
    number = known.shape[-1]
    first = known.int().argmax(-1, keepdim=True)
    last = number - 1 - known.flip(-1).int().argmax(-1, keepdim=True)
    return first, last.where(known.any(-1, keepdim=True), -1)


def _extended(sound: torch.Tensor, place: torch.Tensor, first: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """Return the values at places (B, T); beyond either end the recording goes on turned about its last value."""
    number = sound.shape[-1] - 1
    nearest = place.clamp(first, last).clamp(0, number)
    mirrored = (2 * nearest - place).clamp(first, last).clamp(0, number)
    return torch.where(
        nearest == place, sound.gather(1, nearest), 2 * sound.gather(1, nearest) - sound.gather(1, mirrored)
    )


def _filtered(sound: torch.Tensor, low_hz: float | None, high_hz: float | None) -> torch.Tensor:
    """Filter (B, T) forwards and backwards: |H|^2 over the spectrum, as `sosfiltfilt` does."""
    if low_hz is None and high_hz is None:
        return sound
    gain = _gain(sound.shape[-1], low_hz, high_hz, sound.device)
    return torch.fft.irfft(torch.fft.rfft(sound).mul_(gain), sound.shape[-1])


@lru_cache(maxsize=32)
def _gain(steps: int, low_hz: float | None, high_hz: float | None, device: torch.device) -> torch.Tensor:
    """Return |H|^2 of a Butterworth filter at the frequencies of a spectrum."""
    hz = np.fft.rfftfreq(steps, 1 / HEART_SOUND.rate_hz)
    response = butterworth_gain(hz, ORDER, low_hz, high_hz, HEART_SOUND.rate_hz)
    return torch.tensor(response, dtype=torch.float32, device=device)


@lru_cache(maxsize=32)
def _taps(up: int, down: int, device: torch.device) -> torch.Tensor:
    """Return the coefficients (W, up) of the W steps around each of the `up` new ones."""
    larger = max(up, down)
    half = REACH * larger
    lowpass = up * signal.firwin(2 * half + 1, 1 / larger, window=("kaiser", KAISER))
    reach = -(-half // up)
    steps = np.arange(-reach, reach + 1)
    lag = np.arange(up)[:, None] - up * steps + half  # where in the filter a step lies that is so far away
    taps = np.where((lag >= 0) & (lag <= 2 * half), lowpass[lag.clip(0, 2 * half)], 0.0)
    return torch.tensor(taps.T, dtype=torch.float32, device=device)
