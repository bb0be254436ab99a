"""Wav2Vec2 and WavLM, trained on speech, on waves: channel by channel, as if they were sound of 16 kHz.

Each wave is standardised, as the encoders expect: how large it was is lost. Zeros at either end of it are padding, and
what is said of them counts for nothing.
"""

from typing import Literal

from pydantic import Field
from torch import nn

from hms_ray.core.errors import ConfigError
from hms_ray.core.specs import InputSpec
from hms_ray.encoders import speech
from hms_ray.encoders.pretrained import Source, State
from hms_ray.models._frames import Pool
from hms_ray.models._heads import Classifier
from hms_ray.models._speech import Speech, Train

LAYOUT = "wave"


class Params(speech.Chosen):
    """Which encoder, how the wave becomes sound, what is trained, and how what it says is put together."""

    train: Train = Field(
        "encoder",
        description="head: the encoder stays as it is; encoder: its convolutions stay; all: nothing does",
    )
    speed: float | None = Field(
        None,
        gt=0,
        le=10_000,
        description="the wave is played so many times as fast, and resampled to 16 kHz: at 80, the .5 to 20 Hz of an "
        "EEG are 40 to 1600 Hz, where speech is; none: each step of the wave is one of the sound",
    )
    layers: Literal["last", "mix"] = Field(
        "last", description="last: what the last layer says; mix: all layers, each by a weight that is learned"
    )
    pool: Pool = Field("mean", description="over time: mean of the frames, or by weights that are learned")
    channels: Literal["mean", "concat"] = Field("mean", description="how what is said of each channel is put together")
    hidden: int = Field(0, ge=0, le=4096, description="width of a hidden layer of the head, with batch norm; 0: none")
    drop_rate: float = Field(0.1, ge=0, lt=1, description="dropout before the head, and after its hidden layer")
    encoder_drop_rate: float = Field(0.1, ge=0, lt=1, description="dropout within the encoder, where it is trained")


def source(params: Params) -> Source | None:
    """Return where the encoder's weights are, None for random ones."""
    return speech.source(params)


def build(spec: InputSpec, n_outputs: int, params: Params, weights: State | None = None) -> nn.Module:
    """Return the encoder, what is said over time as one vector, and a head; weights: as published, names of any age.

    Raises:
        ConfigError: the wave is too short or too long as sound, or the weights are another network's.
    """
    network = speech.build(params, params.encoder_drop_rate, weights)
    steps, concat = _steps(spec, params), params.channels == "concat"
    body = Speech(network, steps, params.train, concat, params.pool, params.layers == "mix")
    width = params.known.width * (spec.shape[0] if concat else 1)
    return Classifier(body, width, n_outputs, params.drop_rate, body.LAYERS, len(spec.covariates), params.hidden)


def _steps(spec: InputSpec, params: Params) -> int:
    """Return how many steps of sound a wave becomes."""
    steps = spec.shape[-1]
    if params.speed is not None:
        steps = round(steps * speech.RATE_HZ / (spec.rate_hz * params.speed))
    frames = speech.frames_of(steps)
    if not 1 <= frames <= speech.MAX_FRAMES:
        raise ConfigError(
            f"model.speed {params.speed}: {spec.shape[-1]} steps at {spec.rate_hz:g} Hz become {steps} steps of sound, "
            f"which {params.arch!r} sees as {frames} frames; there must be 1 to {speech.MAX_FRAMES}"
        )
    return steps
