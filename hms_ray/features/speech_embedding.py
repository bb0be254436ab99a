"""What a speech encoder says of heart sounds, left as it is: computed once, before training, whatever is trained on it.

The sound is that of heart_wave at 16 kHz: where a recording is shorter there is nothing, and no frame there counts.
"""

from functools import lru_cache
from threading import Lock
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import nn

from hms_ray.core.recordings import HEART_SOUND
from hms_ray.core.seeds import MAX_SEED
from hms_ray.core.specs import InputSpec
from hms_ray.encoders import speech
from hms_ray.encoders.pretrained import Source
from hms_ray.features import _heart, heart_wave
from hms_ray.features._feature import Recordings, Weights
from hms_ray.features._pieces import in_pieces

ROWS = 1  # at a time: 20 s are a thousand frames
BUILDING = Lock()  # one thread builds an encoder, the others wait for it


class Params(speech.Chosen, _heart.Band):
    """Which encoder hears what, and what is kept of what it says."""

    speed: float = Field(
        1.0, ge=0.5, le=16, description="the sound is played so many times as fast: a heart is lower than speech"
    )
    layers: Literal["last", "all"] = Field(
        "last", description="last: what the last layer says; all: each layer, and the frames before the first"
    )
    segments: int = Field(1, ge=1, le=100, description="mean of the frames in each of so many equal parts of the sound")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="of the random weights, for pretrained: false")

    @model_validator(mode="after")
    def _fits(self) -> "Params":
        nyquist, frames = speech.RATE_HZ / 2 / self.speed, speech.frames_of(_steps(self))
        if self.high_hz is not None and self.high_hz >= nyquist:
            limit = f"{nyquist:g}, above which nothing is heard at speed={self.speed:g}"
            raise ValueError(f"high_hz={self.high_hz:g} must be below {limit}")
        if self.segments > frames:
            raise ValueError(f"segments={self.segments} must be at most the {frames} frames of the sound")
        return self


def source(params: Params) -> Source | None:
    """Return where the encoder's weights are, None for random ones."""
    return speech.source(params, "feature")


def spec(params: Params) -> InputSpec:
    """Return the shape of one embedding: layers, parts of the sound, the encoder's width."""
    layers = params.known.depth + 1 if params.layers == "all" else 1
    shape = (layers, params.segments, params.known.width)
    return InputSpec("embedding", shape, params.segments / params.seconds, kinds=(HEART_SOUND.name,))


def compute(recordings: Recordings, params: Params, weights: Weights | None = None) -> torch.Tensor:
    """Return embeddings (B, L, T, D) of heart sounds (B, 1, 80000), float32.

    Raises:
        ConfigError: the weights are another network's.
    """
    assert (weights is None) == (params.pretrained is False), "whoever computes it has fetched its weights"
    wave = heart_wave.Params(**{name: getattr(params, name) for name in _heart.Band.model_fields})
    with torch.no_grad():
        sound = heart_wave.compute(recordings, wave)[:, 0]
        network = _encoder(params, weights, sound.device)
        return in_pieces(sound, ROWS, lambda piece: _said(network, piece, params))


def _said(network: speech.Encoder, sound: torch.Tensor, params: Params) -> torch.Tensor:
    """Return the embeddings (B, L, T, D) of a few sounds (B, steps)."""
    layers, counts = speech.encode(network, sound, _steps(params), params.layers == "all")
    shares = _shares(counts, params.segments)
    return torch.stack([shares @ frames for frames in layers], 1)


def _shares(counts: torch.Tensor, segments: int) -> torch.Tensor:
    """Return how much each frame counts in each part (B, parts, frames), of which frames (B, frames) count.

    Parts are those of adaptive pooling: where frames do not divide evenly, one belongs to two of them.
    """
    rank, number = counts.cumsum(1)[:, None] - 1, counts.sum(1)[:, None, None]
    part = torch.arange(segments, device=counts.device)[:, None]
    inside = (rank >= part * number // segments) & (rank < -(-(part + 1) * number // segments)) & counts[:, None]
    return inside / inside.sum(-1, keepdim=True)


def _encoder(params: Params, weights: Weights | None, device: torch.device) -> speech.Encoder:
    """Return the encoder, built once a process."""
    with BUILDING:
        return _built(params, weights, device)


@lru_cache(maxsize=1)
def _built(params: Params, weights: Weights | None, device: torch.device) -> speech.Encoder:
    """Build the encoder; its random weights are the same wherever that is, and nobody else's chance is touched."""
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(params.seed)  # that of the CPU alone, where weights are drawn
        network = speech.build(params, weights=weights and weights(), where="feature")
    return nn.Module.to(network, device).eval().requires_grad_(False)


def _steps(params: Params) -> int:
    """Return the steps of sound that the encoder hears."""
    return round(params.seconds * speech.RATE_HZ / params.speed)
