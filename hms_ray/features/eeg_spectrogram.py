"""Spectrograms of the electrode pairs, as the competition's notebooks compute them with librosa, many times faster.

Frames are centred at multiples of the hop, zeros before and after; only the band is transformed; a picture's decibels
are relative to its pair's largest value. Beyond the notebooks: a pair's level is removed and its amplitude clipped; a
frame with clipped values is no reference for decibels, so that an artefact does not darken its pair; and a pair
without any signal is dark.
"""

import math
from functools import lru_cache
from typing import Literal

import torch
from pydantic import Field, model_validator

from hms_ray.core.params import Params as Strict
from hms_ray.core.recordings import EEG, PANELS
from hms_ray.core.specs import InputSpec
from hms_ray.core.specs import Panels as PanelAxis
from hms_ray.features import _filterbank, _montage
from hms_ray.features._feature import Recordings
from hms_ray.features._pieces import in_pieces

AMIN, TOP_DB = 1e-10, 80.0  # librosa's: the smallest power, and how far below the largest a picture reaches
DARKEST = (40 - TOP_DB) / 40
ROWS = 2  # at a time


class Params(Strict):
    """From waves to one image."""

    bank: Literal["mel", "stft"] = Field("mel", description="mel: triangles over the band; stft: the bins themselves")
    montage: Literal["chains", _montage.Banana] = Field(
        "chains", description="chains: four panels, the mean of each chain's spectrograms; else a panel for each pair"
    )
    windows_s: tuple[float, ...] = Field(
        (50.0,), min_length=1, max_length=3, description="pictures side by side: the middle so many seconds of each"
    )
    n_fft: int = Field(1024, ge=16, le=2048, multiple_of=2, description="samples of the transform, which sets its bins")
    window: int = Field(128, ge=8, le=2048, description="samples that a frame sees, under a Hann taper")
    frames: int = Field(256, ge=8, le=1024, description="columns of a picture; the hop is its steps // frames")
    n_bins: int = Field(
        128,
        ge=_filterbank.FEWEST_ROWS,
        le=256,
        description="rows of a mel panel; stft has its bins and leaves this alone",
    )
    low_hz: float = Field(0.0, ge=0, le=100, description="lower edge of the band")
    high_hz: float = Field(20.0, gt=0, description="upper edge of the band, at most 100")
    amplitude: Literal["db", "log1p"] = Field(
        "db",
        description="db: decibels below the pair's largest value, +40, / 40; log1p: log(1 + density / (uV^2/Hz)) / 4",
    )
    clip_uv: float = Field(1024.0, ge=10, le=50_000, description="a pair's values so far from its level are clipped")
    arrange: Literal["stack", "channels"] = Field("stack", description="panels below each other, or each a channel")

    @model_validator(mode="after")
    def _fits(self) -> "Params":
        if faults := _faults(self):
            raise ValueError("; ".join(faults))
        return self


def _faults(params: Params) -> list[str]:
    """Say what does not go together; the bank is looked at where its band makes sense."""
    low, high, nyquist = params.low_hz, params.high_hz, EEG.rate_hz / 2
    steps = min(_steps(min(max(seconds, 0), EEG.window_s)) for seconds in params.windows_s)
    shortest, n_bins = f"at most the {steps} steps of the shortest of windows_s", Params.model_fields["n_bins"].default
    inside = all(0 < seconds <= EEG.window_s for seconds in params.windows_s)
    rules = (
        (high <= nyquist, f"high_hz={high:g} must be at most the Nyquist frequency {nyquist:g}"),
        (low < high, f"low_hz={low:g} must be below high_hz={high:g}"),
        (params.window <= params.n_fft, f"window={params.window} must be at most n_fft={params.n_fft}"),
        (inside, f"windows_s={params.windows_s} must be above 0 and at most {EEG.window_s:g}"),
        (params.window <= steps, f"window={params.window} must be {shortest}"),
        (params.frames <= steps, f"frames={params.frames} must be {shortest}"),
        (
            params.bank == "mel" or params.n_bins == n_bins,
            f"n_bins={params.n_bins} must stay at {n_bins} with bank=stft, whose rows are its bins",
        ),
    )
    return [fault for kept, fault in rules if not kept] or _filterbank.empty_rows(_bank(params))


def spec(params: Params) -> InputSpec:
    """Return the shape of one image; the rate is that of the first picture."""
    names = PANELS if params.montage == "chains" else _montage.names(params.montage)
    rows, columns = len(_bank(params).weights), params.frames * len(params.windows_s)
    stacked = params.arrange == "stack"
    shape = (1, len(names) * rows, columns) if stacked else (len(names), rows, columns)
    spans = (params.frames,) * len(params.windows_s) if len(params.windows_s) > 1 else ()
    rate_hz = EEG.rate_hz / _hop(_steps(params.windows_s[0]), params)
    panels, empty = PanelAxis("F" if stacked else "C", names), (DARKEST if params.amplitude == "db" else 0.0,)
    return InputSpec("image", shape, rate_hz, panels, (EEG.name,), spans, empty=empty)


def compute(recordings: Recordings, params: Params) -> torch.Tensor:
    """Return images (B, C, F, T) of EEG (B, 20, 10000) in microvolts, float32."""
    images = in_pieces(recordings[EEG.name], ROWS, lambda eeg: _images(eeg, params))
    return images.reshape(-1, *spec(params).shape)


def _images(eeg: torch.Tensor, params: Params) -> torch.Tensor:
    """Return (B, panels, rows, columns): the pictures of each window side by side."""
    return torch.cat([_picture(eeg, _steps(seconds), params) for seconds in params.windows_s], -1)


def _picture(eeg: torch.Tensor, steps: int, params: Params) -> torch.Tensor:
    """Return (B, panels, rows, frames) of the middle `steps`."""
    middle = eeg.narrow(-1, (eeg.shape[-1] - steps) // 2, steps)
    waves = _montage.waves(middle, "banana_16" if params.montage == "chains" else params.montage, params.clip_uv)
    size = 4 if params.montage == "chains" else 1
    power = _power(waves, params).unflatten(1, (-1, size))  # (B, panels, size, rows, frames)
    if params.amplitude == "log1p":
        return _log1p(power, params)
    clipped = max(abs(float(end)) for end in waves.aminmax()) >= params.clip_uv
    return _decibels(power, _clean(waves, params).unflatten(1, (-1, size)) if clipped else None, params.frames)


def _power(waves: torch.Tensor, params: Params) -> torch.Tensor:
    """Return the bank's power (B, P, rows, frames) of waves (B, P, T): librosa.feature.melspectrogram.

    By matrix products and not by a convolution, which CUDA computes in TF32 by default: too coarse for 80 dB.
    """
    basis, weights = _filterbank.constants(_bank(params), waves.device)
    before = (params.window + 1) // 2
    padded = torch.nn.functional.pad(waves, (before, params.window - before))
    frames = padded.unfold(-1, params.window, _hop(waves.shape[-1], params))  # (B, P, frames, W)
    bins = (frames.reshape(-1, params.window) @ basis).square_().view(*frames.shape[:-1], 2, -1)
    return weights @ (bins[..., 0, :] + bins[..., 1, :]).mT


def _clean(waves: torch.Tensor, params: Params) -> torch.Tensor:
    """Return which frames (B, P, frames) hold no clipped value; of a pair whose every frame holds one, all of them."""
    before, hop = (params.window + 1) // 2, _hop(waves.shape[-1], params)
    clipped = (waves.abs() >= params.clip_uv).cumsum(-1, dtype=torch.int32)
    counts = torch.nn.functional.pad(clipped, (1, 0))  # [t]: of the values before step t
    first = torch.arange(waves.shape[-1] // hop + 1, device=waves.device) * hop - before
    starts, ends = (place.clamp(0, waves.shape[-1]) for place in (first, first + params.window))
    clean = counts[..., starts] == counts[..., ends]
    return clean | ~clean.any(-1, keepdim=True)


def _decibels(power: torch.Tensor, clean: torch.Tensor | None, frames: int) -> torch.Tensor:
    """Return the mean over a panel's pairs of their decibels: (B, panels, size, rows, T) -> (B, panels, rows, frames).

    They are relative to a pair's largest value in its clean frames (B, panels, size, T); None: all are. A pair's
    ratios are in [1e-8, 1], so the product of four is no less than 1e-32: one logarithm instead of four.
    """
    largest = power.amax((-2, -1)) if clean is None else power.amax(-2).where(clean, 0).amax(-1)
    largest = largest[..., None, None]
    ratio = power.clamp_(min=AMIN).div_(largest.clamp(min=AMIN).where(largest > AMIN, torch.inf))
    ratio = ratio.clamp_(10 ** (-TOP_DB / 10), 1)
    return ratio[..., :frames].prod(2).log_().mul_(10 / math.log(10) / power.shape[2] / 40).add_(1)


def _log1p(power: torch.Tensor, params: Params) -> torch.Tensor:
    """Return the mean over a panel's pairs of log(1 + density / (uV^2/Hz)) / 4, which reaches about 2."""
    return power[..., : params.frames].clamp(min=0).mul(_density(params)).log1p_().mean(2).div_(4)


def _density(params: Params) -> float:
    """Return what makes uV^2/Hz, one-sided, of the bank's power; librosa's triangles have area 1 in Hz."""
    per_bin = 2 / (EEG.rate_hz * (_bank(params).taper ** 2).sum())
    return float(per_bin * (EEG.rate_hz / params.n_fft if params.bank == "mel" else 1))


@lru_cache
def _bank(params: Params) -> _filterbank.Bank:
    """Return the filters that the parameters describe."""
    return _filterbank.Bank(
        params.bank, EEG.rate_hz, params.n_fft, params.window, params.n_bins, params.low_hz, params.high_hz
    )


def _steps(seconds: float) -> int:
    return round(seconds * EEG.rate_hz)


def _hop(steps: int, params: Params) -> int:
    return steps // params.frames
