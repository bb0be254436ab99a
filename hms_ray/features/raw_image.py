"""The raw EEG folded into an image, so that a network of images sees waves: a channel's steps run down the rows first.

Step t of a channel is at row t % rows and column t // rows of its panel; time keeps running along T.
"""

import torch
from pydantic import Field, model_validator

from hms_ray.core.specs import InputSpec, Panels
from hms_ray.features import raw_eeg
from hms_ray.features._feature import Recordings


class Params(raw_eeg.Params):
    """The wave's parameters, and how it is folded."""

    rows: int = Field(10, ge=2, le=100, description="rows of a channel's panel; divides its steps")

    @model_validator(mode="after")
    def _folds(self) -> "Params":
        steps = raw_eeg.spec(self).shape[-1]
        if steps % self.rows:
            right = ", ".join(str(rows) for rows in range(2, 101) if steps % rows == 0)
            raise ValueError(f"rows={self.rows} must divide the wave's {steps} steps, as {right} do")
        return self


def spec(params: Params) -> InputSpec:
    """Return the shape of one image."""
    wave = raw_eeg.spec(params)
    channels, steps = wave.shape
    shape = (1, channels * params.rows, steps // params.rows)
    assert wave.panels is not None, "a raw wave has a panel for each channel"
    panels, rate_hz = Panels("F", wave.panels.names), wave.rate_hz / params.rows
    return InputSpec("image", shape, rate_hz, panels, wave.kinds, folded=True)


def compute(recordings: Recordings, params: Params) -> torch.Tensor:
    """Return images (B, 1, F, T) of EEG (B, 20, 10000) in microvolts, float32 in units of `scale_uv`."""
    wave = raw_eeg.compute(recordings, params)
    return wave.unflatten(-1, (-1, params.rows)).mT.reshape(-1, *spec(params).shape)
