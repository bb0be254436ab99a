"""Wav2Vec2 and WavLM, trained on speech, applied to each channel of a wave as if it were sound of 16 kHz.

Each wave is standardised, as the encoders expect, so its amplitude is lost. Zeros at either end are padding; their
frames are not pooled.
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
    """The encoder, the conversion of waves to sound, the trained part, and the pooling."""

    train: Train = Field(
        "encoder",
        description="head: the encoder is frozen; encoder: only its convolutions are frozen; all: nothing is frozen",
    )
    speed: float | None = Field(
        None,
        gt=0,
        le=10_000,
        description="factor by which the wave is played faster before it is resampled to 16 kHz: at 80, the .5 to "
        "20 Hz of an EEG become 40 to 1600 Hz, as in speech; none: each step of the wave is one sample of sound",
    )
    layers: Literal["last", "mix"] = Field(
        "last", description="last: the last layer; mix: all layers, with learned weights"
    )
    pool: Pool = Field("mean", description="pooling over time: mean, or attention with learned weights")
    channels: Literal["mean", "concat"] = Field("mean", description="how the features of the channels are combined")
    hidden: int = Field(0, ge=0, le=4096, description="width of a hidden layer of the head, with batch norm; 0: none")
    drop_rate: float = Field(0.1, ge=0, lt=1, description="dropout before the head, and after its hidden layer")
    encoder_drop_rate: float = Field(0.1, ge=0, lt=1, description="dropout within the trained part of the encoder")


def source(params: Params) -> Source | None:
    """Return where the encoder's weights are, None for random ones."""
    return speech.source(params)


def build(spec: InputSpec, n_outputs: int, params: Params, weights: State | None = None) -> nn.Module:
    """Return the encoder, pooling over time, and a head; weights: as published, with old or new names of tensors.

    Raises:
        ConfigError: the wave is too short or too long as sound, or the weights belong to another network.
    """
    network = speech.build(params, params.encoder_drop_rate, weights)
    steps, concat = spec.shape[-1], params.channels == "concat"
    if params.speed is not None:
        steps = round(steps * speech.RATE_HZ / (spec.rate_hz * params.speed))
    frames = speech.frames_of(steps)
    if not 1 <= frames <= speech.MAX_FRAMES:
        raise ConfigError(
            f"model.speed {params.speed}: {spec.shape[-1]} steps at {spec.rate_hz:g} Hz become {steps} steps of sound, "
            f"which {params.arch!r} sees as {frames} frames; there must be 1 to {speech.MAX_FRAMES}"
        )
    body = Speech(network, steps, params.train, concat, params.pool, params.layers == "mix")
    width = params.known.width * (spec.shape[0] if concat else 1)
    return Classifier(body, width, n_outputs, params.drop_rate, body.LAYERS, len(spec.covariates), params.hidden)
