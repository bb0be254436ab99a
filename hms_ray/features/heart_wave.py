"""The sound of a heart as a wave: band-pass without delay, another rate, one loudness.

Zeros at either end of a wave mean that there is nothing: a recording that is shorter than `seconds` ends in exact
zeros, by which networks tell how long it is. Gaps inside are zeros, too, the mean of what is there.
"""

from typing import Literal

import torch
from pydantic import Field, model_validator

from hms_ray.core.recordings import HEART_SOUND
from hms_ray.core.specs import InputSpec
from hms_ray.features import _heart
from hms_ray.features._feature import Recordings
from hms_ray.features._pieces import in_pieces

ROWS = 4  # at a time


class Params(_heart.Band):
    """Which part, which band, at which rate, and how loud."""

    rate_hz: Literal[1000, 2000, 4000, 8000, 16000] = Field(
        16000, description="steps a second; 16000 is what speech encoders know, 4000 what was recorded"
    )
    normalise: Literal["recording", "none"] = Field(
        "recording",
        description="recording: mean 0 and deviation 1 over what is there of each; none: parts of full scale",
    )

    @model_validator(mode="after")
    def _is_below_nyquist(self) -> "Params":
        nyquist = min(self.rate_hz, HEART_SOUND.rate_hz) / 2
        if self.high_hz is not None and self.high_hz >= nyquist:
            limit = f"{nyquist:g}, the Nyquist frequency with rate_hz={self.rate_hz}"
            raise ValueError(f"high_hz={self.high_hz:g} must be below {limit}")
        return self


def spec(params: Params) -> InputSpec:
    """Return the shape of one wave; zeros at its ends mean that the recording is shorter."""
    shape = (1, _heart.steps_at(params.steps, params.rate_hz))
    return InputSpec("wave", shape, params.rate_hz, kinds=(HEART_SOUND.name,))


def compute(recordings: Recordings, params: Params) -> torch.Tensor:
    """Return waves (B, 1, T) of heart sounds (B, 1, 80000), float32, zeros where there is no sound."""
    return in_pieces(recordings[HEART_SOUND.name], ROWS, lambda sound: _waves(sound, params))


def _waves(sound: torch.Tensor, params: Params) -> torch.Tensor:
    """Return the waves (B, 1, T) of a few recordings."""
    wave, known = _heart.heard(sound, params.steps, params.low_hz, params.high_hz)
    wave, known = _heart.resampled(wave, params.rate_hz), _heart.known_at(known, params.rate_hz)
    wave = _heart.normalised(wave, known) if params.normalise == "recording" else wave.where(known, 0.0)
    return wave[:, None]
