"""Levels of heart sounds in bands, as waves: rows of `heart_spectrogram` are channels, for networks along time."""

import torch

from hms_ray.core.specs import InputSpec
from hms_ray.features import heart_spectrogram
from hms_ray.features._feature import Recordings


class Params(heart_spectrogram.Params):
    """The bands and their levels, as of the spectrogram."""


def spec(params: Params) -> InputSpec:
    """Return the shape of one wave, a channel a band."""
    image = heart_spectrogram.spec(params)
    return InputSpec("wave", image.shape[1:], image.rate_hz, kinds=image.kinds, empty=image.empty)


def compute(recordings: Recordings, params: Params) -> torch.Tensor:
    """Return waves (B, C, T) of heart sounds (B, 1, 80000), float32."""
    return heart_spectrogram.compute(recordings, params)[:, 0]
