"""Keep a narrower band of frequencies (after the band stop compared in Rommel et al., 2022, arXiv:2206.14483)."""

import numpy as np
import torch
from pydantic import Field, model_validator

from hms_ray.augment._compose import Batch, change_some, need
from hms_ray.core.params import Params as Strict
from hms_ray.core.specs import InputSpec


class Params(Strict):
    """How often, and between which frequencies the two edges of the band are drawn."""

    p: float = Field(0.2, ge=0, le=1, description="share of the rows that are filtered")
    low_from_hz: float = Field(0.5, gt=0, le=1000, description="the lower edge is at least this")
    low_to_hz: float = Field(3.0, gt=0, le=1000, description="the lower edge is at most this")
    high_from_hz: float = Field(8.0, gt=0, le=1000, description="the upper edge is at least this")
    high_to_hz: float = Field(20.0, gt=0, le=1000, description="the upper edge is at most this")

    @model_validator(mode="after")
    def _edges_rise(self) -> "Params":
        if not self.low_from_hz <= self.low_to_hz < self.high_from_hz <= self.high_to_hz:
            raise ValueError("low_from_hz <= low_to_hz < high_from_hz <= high_to_hz must hold")
        return self


def apply(batch: Batch, rng: np.random.Generator, params: Params) -> Batch:
    """Filter rows (C, T), each with edges of its own, each picture by itself."""
    _check(batch.spec, params)

    def filtered(x: torch.Tensor) -> torch.Tensor:
        low = _column(rng.uniform(params.low_from_hz, params.low_to_hz, len(x)), x)
        high = _column(rng.uniform(params.high_from_hz, params.high_to_hz, len(x)), x)
        return band(x, batch.spec, low, high)

    return change_some(batch, rng, params.p, filtered)


def band(x: torch.Tensor, spec: InputSpec, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Return x (n, C, T) with the frequencies between low and high, both (n, 1, 1) in Hz; phases stay.

    What is exactly 0 stays so: at either end of a wave it says that there is nothing.
    """
    bands = [_band(x[..., picture].float(), spec.rate_hz, low, high) for picture in spec.pictures]
    return torch.cat(bands, -1).to(x).masked_fill(x == 0, 0)


def _band(x: torch.Tensor, rate_hz: float, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    steps = x.shape[-1]
    hz = torch.fft.rfftfreq(steps, 1 / rate_hz, device=x.device)
    return torch.fft.irfft(torch.fft.rfft(x) * _rise(hz / low) * _rise(high / hz), steps)


def _rise(ratio: torch.Tensor) -> torch.Tensor:
    """Rise from 0 to 1 as half a cosine over the octave around a ratio of 1: a hard edge would ring."""
    octaves = (ratio.log2() + 0.5).clamp(0, 1)
    return (1 - torch.cos(torch.pi * octaves)) / 2


def _column(values: np.ndarray, x: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(values).to(x.device, torch.float32).view(-1, 1, 1)


def _check(spec: InputSpec, params: Params) -> None:
    need(spec.layout == "wave", "narrow_band", "waves; others have no waveform to filter")
    wanted = f"{2 * params.high_to_hz:g} steps a second to filter at {params.high_to_hz:g} Hz"
    need(2 * params.high_to_hz <= spec.rate_hz, "narrow_band", f"{wanted}; this feature has {spec.rate_hz:g}")
