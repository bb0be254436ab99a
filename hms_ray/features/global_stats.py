"""Where the four panels of the supplied spectrogram agree and differ: pixel-wise min, max, mean and max - min.

A strong variant of the competition's image (with EfficientNet-B2 its author's cross-validated KL fell from .7427 to
.7324): a generalised pattern is high in the minimum, a lateralised one in the range. The panels are standardised
first; one that has a gap is left out of that pixel, and a pixel without any is dark.
"""

import torch

from hms_ray.core.recordings import SPECTROGRAM
from hms_ray.core.specs import InputSpec
from hms_ray.features import kaggle_spectrogram
from hms_ray.features._feature import Recordings

STATISTICS = ("min", "max", "mean", "range")


class Params(kaggle_spectrogram.Shared):
    """How power becomes pixels, as in kaggle_spectrogram."""


def spec(params: Params) -> InputSpec:
    """Return the shape of one image: the statistics are its channels.

    It has no panels: every pixel is made of all four, so a left/right mirror leaves it as it is.
    """
    shape = (len(STATISTICS), *params.size)
    return InputSpec("image", shape, params.rate_hz, None, (SPECTROGRAM.name,), symmetric=True, empty=(None,))


def compute(recordings: Recordings, params: Params) -> torch.Tensor:
    """Return images (B, 4, F, T) of spectrograms (B, 400, 300), float32."""
    panels = kaggle_spectrogram.log_power(recordings, params)  # (B, 4, 100, columns)
    low = panels.nan_to_num(torch.inf).amin(1)
    high = panels.nan_to_num(-torch.inf).amax(1)
    levels = torch.stack([low, high, panels.nanmean(1)], 1)
    levels = levels.masked_fill(levels.isinf(), torch.nan)
    spread = high - low  # infinite where no panel has a value
    spread = spread.masked_fill(spread.isinf(), torch.nan)[:, None]
    levels = kaggle_spectrogram.framed(levels, params, params.empty, (2, 3))
    return torch.cat([levels, kaggle_spectrogram.framed(spread, params, 0.0)], 1)
