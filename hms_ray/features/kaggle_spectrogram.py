"""The supplied ten-minute spectrograms as a log image.

Clip to [e^-4, e^8], log, standardise, NaN to 0: the public baseline of the competition.
"""

import math
from typing import Literal

import torch
from pydantic import Field

from hms_ray.features._feature import Recordings
from hms_ray.params import Params as Strict
from hms_ray.recordings import BINS_HZ, PANELS, SPECTROGRAM
from hms_ray.specs import InputSpec
from hms_ray.specs import Panels as PanelAxis

POWER_RANGE = (math.exp(-4), math.exp(8))


class Params(Strict):
    """How the four panels become one image."""

    arrange: Literal["stack", "channels"] = Field(
        "stack", description="stack: one image of 400 x 300; channels: four of 100 x 300"
    )
    standardise: Literal["image", "panel"] = Field("image", description="mean 0 and deviation 1 over what")
    pool: Literal[1, 2, 4] = Field(1, description="average pixels in squares of this side: smaller images train faster")


def spec(params: Params) -> InputSpec:
    """Return the shape of one image."""
    bins, steps = len(BINS_HZ) // params.pool, SPECTROGRAM.steps // params.pool
    stacked = params.arrange == "stack"
    shape = (1, len(PANELS) * bins, steps) if stacked else (len(PANELS), bins, steps)
    panels = PanelAxis("F" if stacked else "C", PANELS)
    return InputSpec("image", shape, SPECTROGRAM.rate_hz / params.pool, panels, (SPECTROGRAM.name,))


def compute(recordings: Recordings, params: Params) -> torch.Tensor:
    """Return images (B, C, F, T) of spectrograms (B, 400, 300), float32."""
    power = recordings[SPECTROGRAM.name].unflatten(1, (len(PANELS), -1))  # (B, 4, 100, 300), NaN where it has gaps
    image = power.clamp(*POWER_RANGE).log()
    image = _standardise(image, (2, 3) if params.standardise == "panel" else (1, 2, 3)).nan_to_num()
    image = torch.nn.functional.avg_pool2d(image, params.pool) if params.pool > 1 else image
    return image.reshape(-1, *spec(params).shape)


def _standardise(image: torch.Tensor, axes: tuple[int, ...]) -> torch.Tensor:
    """Shift and scale over `axes`, leaving NaN out; an image without any value stays NaN."""
    centred = image - image.nanmean(axes, keepdim=True)
    return centred / (centred.square().nanmean(axes, keepdim=True).sqrt() + 1e-6)
