"""Spectrograms of heart sounds: the logarithm of power, frames centred at multiples of the hop, zeros before and after.

Levels are decibels of full scale squared per Hz, one-sided: white noise of deviation 0.01 is at -73 wherever one looks.
"""

from functools import lru_cache
from typing import Literal

import torch
from pydantic import Field, model_validator

from hms_ray.core.params import Params as Strict
from hms_ray.core.recordings import HEART_SOUND
from hms_ray.core.specs import InputSpec
from hms_ray.features import _filterbank, _heart
from hms_ray.features._bins import fill_gaps
from hms_ray.features._feature import Recordings
from hms_ray.features._pieces import in_pieces

ROWS = 4  # at a time
LINEAR_HZ = 1000.0  # up to here Slaney's mel scale is linear, as the bank has it
LEVEL_DB, SPREAD_DB = -80.0, 20.0  # about the mean and deviation of a heart's levels, for `standardise: none`
AXES = {"image": (1, 2), "band": (2,)}


class Params(Strict):
    """From sound to one image."""

    bank: Literal["mel", "log", "stft"] = Field(
        "mel",
        description="mel: triangles over the band, of equal width; log: wider the higher they are; stft: the bins",
    )
    seconds: float = Field(
        20.0, ge=1, le=HEART_SOUND.window_s, description="the middle so many seconds of what is there"
    )
    n_fft: int = Field(1024, ge=16, le=4096, multiple_of=2, description="samples of the transform, which sets its bins")
    window: int = Field(256, ge=16, le=4096, description="samples of 0.25 ms that a frame sees, under a Hann taper")
    frames: int = Field(512, ge=8, le=4096, description="columns; the hop is the steps of `seconds` // frames")
    n_bins: int = Field(
        128,
        ge=_filterbank.FEWEST_ROWS,
        le=256,
        description="rows of the image; stft has its bins and leaves this alone",
    )
    low_hz: float = Field(20.0, ge=0, le=1000, description="lower edge of the band")
    high_hz: float = Field(800.0, gt=0, le=2000, description="upper edge of the band; at most 1000 for mel")
    floor_db: float = Field(
        -120.0, ge=-200, le=-60, description="power is at least this, in decibels of full scale squared per Hz"
    )
    standardise: Literal["image", "band", "none"] = Field(
        "image",
        description="mean 0 and deviation 1 over what, where there is sound; none: (level + 80 dB) / 20 dB, which "
        "keeps how loud it was",
    )

    @model_validator(mode="after")
    def _fits(self) -> "Params":
        if faults := _faults(self):
            raise ValueError("; ".join(faults))
        return self


def _faults(params: Params) -> list[str]:
    """Say what does not go together; the bank is looked at where its band makes sense."""
    n_bins, steps = Params.model_fields["n_bins"].default, _steps(params)
    rules = (
        (params.low_hz < params.high_hz, f"low_hz={params.low_hz:g} must be below high_hz={params.high_hz:g}"),
        (params.window <= params.n_fft, f"window={params.window} must be at most n_fft={params.n_fft}"),
        (params.window <= steps, f"window={params.window} must be at most the {steps} steps of seconds"),
        (params.frames <= steps, f"frames={params.frames} must be at most the {steps} steps of seconds"),
        (
            params.bank != "mel" or params.high_hz <= LINEAR_HZ,
            f"high_hz={params.high_hz:g} must be at most {LINEAR_HZ:g} with bank=mel, linear up to there",
        ),
        (
            params.bank != "stft" or params.n_bins == n_bins,
            f"n_bins={params.n_bins} must stay at {n_bins} with bank=stft, whose rows are its bins",
        ),
        (params.bank != "log" or params.low_hz > 0, "low_hz=0 must be above 0 with bank=log"),
    )
    return [fault for kept, fault in rules if not kept] or _filterbank.empty_rows(_bank(params))


def spec(params: Params) -> InputSpec:
    """Return the shape of one image."""
    shape = (1, len(_bank(params).weights), params.frames)
    return InputSpec("image", shape, HEART_SOUND.rate_hz / _hop(params), kinds=(HEART_SOUND.name,), empty=(None,))


def compute(recordings: Recordings, params: Params) -> torch.Tensor:
    """Return images (B, 1, F, T) of heart sounds (B, 1, 80000), float32.

    Columns without sound, beyond a recording's end or in a gap, hold the smallest value of the image.
    """
    return in_pieces(recordings[HEART_SOUND.name], ROWS, lambda sound: _images(sound, params)[:, None])


def _images(recordings: torch.Tensor, params: Params) -> torch.Tensor:
    """Return images (B, F, T) of a few recordings."""
    sound, known = _heart.heard(recordings, _steps(params))
    level = _power(_heart.centred(sound, known), params).clamp(min=10 ** (params.floor_db / 10)).log10().mul(10)
    level = level.where(known[:, None, :: _hop(params)][..., : params.frames], torch.nan)
    return fill_gaps(_standardised(level, params), None, (1, 2))


def _power(sound: torch.Tensor, params: Params) -> torch.Tensor:
    """Return the density of power (B, F, T), full scale squared per Hz, of sound (B, steps).

    By matrix products and not by a convolution, which CUDA computes in TF32 by default: too coarse for 80 dB.
    """
    basis, weights = _filterbank.constants(_bank(params), sound.device)
    before = (params.window + 1) // 2
    padded = torch.nn.functional.pad(sound, (before, params.window - before))
    frames = padded.unfold(-1, params.window, _hop(params))[:, : params.frames]  # (B, frames, W)
    bins = (frames.reshape(-1, params.window) @ basis).square_().view(*frames.shape[:-1], 2, -1)
    return weights @ (bins[..., 0, :] + bins[..., 1, :]).mT * _density(params)


def _standardised(level: torch.Tensor, params: Params) -> torch.Tensor:
    """Shift and scale decibels (B, F, T), leaving NaN out."""
    if params.standardise == "none":
        return (level - LEVEL_DB) / SPREAD_DB
    axes = AXES[params.standardise]
    centred = level - level.nanmean(axes, keepdim=True)
    return centred / (centred.square().nanmean(axes, keepdim=True).sqrt() + 1e-3)


def _density(params: Params) -> float:
    """Return what makes a one-sided density of the bank's power; the triangles have area 1 in Hz."""
    per_bin = 2 / (HEART_SOUND.rate_hz * (_bank(params).taper ** 2).sum())
    return float(per_bin * (1 if params.bank == "stft" else HEART_SOUND.rate_hz / params.n_fft))


@lru_cache
def _bank(params: Params) -> _filterbank.Bank:
    """Return the filters that the parameters describe."""
    return _filterbank.Bank(
        params.bank, HEART_SOUND.rate_hz, params.n_fft, params.window, params.n_bins, params.low_hz, params.high_hz
    )


def _steps(params: Params) -> int:
    return round(params.seconds * HEART_SOUND.rate_hz)


def _hop(params: Params) -> int:
    return _steps(params) // params.frames
