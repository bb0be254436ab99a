"""The supplied ten-minute spectrograms as a log image.

Clip to [e^-4, e^8], log, standardise: the public baseline of the competition. It standardises the whole ten minutes,
then takes the middle 256 columns and pads each panel to 128 rows; `columns` and `bins` do so too. Where it writes 0 for
a gap and around a panel, the middle of the scale, here is the dark end of it, as of a region whose power is 0.
https://www.kaggle.com/code/cdeotte/efficientnetb0-starter-lb-0-43
"""

import math
from typing import Literal

import torch
from pydantic import Field, ValidationInfo, field_validator

from hms_ray.core.params import Params as Strict
from hms_ray.core.recordings import BINS_HZ, PANELS, SPECTROGRAM
from hms_ray.core.specs import InputSpec
from hms_ray.core.specs import Panels as PanelAxis
from hms_ray.features._bins import fill_gaps, pad_bins
from hms_ray.features._feature import Recordings

LOWEST, HIGHEST = -4.0, 8.0  # of the log power
POWER_RANGE = (math.exp(LOWEST), math.exp(HIGHEST))
FLAT = 1e-4  # deviation of the log power up to which there is but one value: rounding makes that much
AXES = {"image": (1, 2, 3), "panel": (2, 3)}


class Shared(Strict):
    """How power becomes pixels."""

    standardise: Literal["image", "panel", "global", "none"] = Field(
        "image",
        description="mean 0 and deviation 1 over what; global: the same shift and scale for every recording;"
        " none: the log power as it is",
    )
    mean: float = Field(
        -0.8, ge=-4, le=8, description="of the log power, for global; the default is that of a few recordings"
    )
    deviation: float = Field(
        1.9, ge=0.1, le=12, description="of the log power, for global; the default is that of a few recordings"
    )
    columns: int = Field(300, ge=16, le=SPECTROGRAM.steps, description="the middle so many of 300 steps of 2 s")
    bins: int = Field(
        len(BINS_HZ), ge=len(BINS_HZ), le=128, description="rows a panel: 100, and empty ones below and above"
    )
    pool: Literal[1, 2, 4] = Field(1, description="average pixels in squares of this side: smaller images train faster")

    @field_validator("pool")
    @classmethod
    def _divides(cls, pool: int, info: ValidationInfo) -> int:
        for name in ("bins", "columns"):
            if info.data.get(name, 0) % pool:
                raise ValueError(f"must divide {name} ({info.data[name]})")
        return pool

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of one panel."""
        return self.bins // self.pool, self.columns // self.pool

    @property
    def empty(self) -> float | None:
        """The value of a pixel without power, the smallest there is; None: the smallest of its image."""
        if self.standardise == "none":
            return LOWEST
        return (LOWEST - self.mean) / self.deviation if self.standardise == "global" else None

    @property
    def rate_hz(self) -> float:
        """Columns a second."""
        return SPECTROGRAM.rate_hz / self.pool


class Params(Shared):
    """How the four panels become one image."""

    arrange: Literal["stack", "channels"] = Field(
        "stack", description="stack: one image of 400 x 300; channels: each panel is a channel of 100 x 300"
    )


def spec(params: Params) -> InputSpec:
    """Return the shape of one image."""
    bins, columns = params.size
    stacked = params.arrange == "stack"
    shape = (1, len(PANELS) * bins, columns) if stacked else (len(PANELS), bins, columns)
    panels = PanelAxis("F" if stacked else "C", PANELS)
    return InputSpec("image", shape, params.rate_hz, panels, (SPECTROGRAM.name,), empty=(params.empty,))


def compute(recordings: Recordings, params: Params) -> torch.Tensor:
    """Return images (B, C, F, T) of spectrograms (B, 400, 300), float32."""
    panels = log_power(recordings, params)
    return framed(panels, params, params.empty, (1, 2, 3)).reshape(-1, *spec(params).shape)


def log_power(recordings: Recordings, params: Shared) -> torch.Tensor:
    """Return the panels (B, 4, 100, columns), clipped, in logarithms and standardised; NaN where there is a gap."""
    power = recordings[SPECTROGRAM.name].unflatten(1, (len(PANELS), -1))  # (B, 4, 100, 300)
    image = _standardise(power.clamp(*POWER_RANGE).log(), params)
    first = (image.shape[-1] - params.columns) // 2
    return image[..., first : first + params.columns]


def framed(image: torch.Tensor, params: Shared, empty: float | None, axes: tuple[int, ...] = ()) -> torch.Tensor:
    """Return images (B, N, 100, columns) as (B, N, *params.size): rows added, gaps filled, pooled.

    empty: the value of gaps and added rows; None: the smallest over those axes
    """
    image = fill_gaps(pad_bins(image, params.bins), empty, axes)
    return torch.nn.functional.avg_pool2d(image, params.pool) if params.pool > 1 else image


def _standardise(image: torch.Tensor, params: Shared) -> torch.Tensor:
    """Shift and scale, leaving NaN out; where there is nothing but one value, as of a dead region, all becomes NaN."""
    if params.standardise == "none":
        return image
    if params.standardise == "global":
        return (image - params.mean) / params.deviation
    axes = AXES[params.standardise]
    centred = image - image.nanmean(axes, keepdim=True)
    deviation = centred.square().nanmean(axes, keepdim=True).sqrt()
    return centred / deviation.where(deviation > FLAT, torch.nan)
