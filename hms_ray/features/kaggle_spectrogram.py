"""The supplied ten-minute spectrograms as a log image.

Clip to [e^-4, e^8], log, standardise, NaN to 0: the public baseline of the competition.
"""

import math
from typing import Literal

import numpy as np
from pydantic import Field

from hms_ray.datasets import Dataset
from hms_ray.params import Params as Strict
from hms_ray.specs import InputSpec, Panels

KIND = "spectrogram"
PANELS, BINS, ROWS, ROW_S = ("LL", "LP", "RL", "RP"), 100, 300, 2.0
POWER_RANGE = (math.exp(-4), math.exp(8))  # plain floats: NumPy's would turn the image into float64


class Params(Strict):
    """How the four panels become one image."""

    arrange: Literal["stack", "channels"] = Field(
        "stack", description="stack: one image of 400 x 300; channels: four of 100 x 300"
    )
    standardise: Literal["image", "panel"] = Field("image", description="mean 0 and deviation 1 over what")
    pool: Literal[1, 2, 4] = Field(1, description="average pixels in squares of this side: smaller images train faster")


def spec(params: Params) -> InputSpec:
    """Return the shape of one image."""
    bins, rows, rate_hz = BINS // params.pool, ROWS // params.pool, 1 / (ROW_S * params.pool)
    if params.arrange == "stack":
        return InputSpec("image", (1, len(PANELS) * bins, rows), rate_hz, Panels("F", PANELS))
    return InputSpec("image", (len(PANELS), bins, rows), rate_hz, Panels("C", PANELS))


def compute(dataset: Dataset, i: int, params: Params) -> np.ndarray:
    """Return unit i's image (C, F, T), float32."""
    power = dataset.recording(KIND, i)  # (4, 100, 300), NaN where the recording has gaps
    image = np.log(np.clip(power, *POWER_RANGE))
    image = np.nan_to_num(_standardise(image, (1, 2) if params.standardise == "panel" else (0, 1, 2)))
    return _pool(image, params.pool).reshape(spec(params).shape)


def _standardise(image: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Shift and scale over `axes`, leaving NaN out; an image without any value stays NaN."""
    known = np.isfinite(image)
    count = np.maximum(known.sum(axes, keepdims=True, dtype=np.float32), 1)
    centred = image - np.where(known, image, 0).sum(axes, keepdims=True) / count
    variance = (np.where(known, centred, 0) ** 2).sum(axes, keepdims=True) / count
    return centred / (np.sqrt(variance) + 1e-6)


def _pool(image: np.ndarray, side: int) -> np.ndarray:
    """Average squares of `side` pixels, (P, F, T) -> (P, F // side, T // side)."""
    panels, bins, rows = image.shape
    return image.reshape(panels, bins // side, side, rows // side, side).mean((2, 4))
