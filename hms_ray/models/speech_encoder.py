"""Wav2Vec2 and WavLM, trained on speech, on waves: channel by channel, as if they were sound of 16 kHz.

Each wave is standardised, as the encoders expect: how large it was is lost.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from pydantic import Field, model_validator
from torch import nn

from hms_ray.errors import ConfigError
from hms_ray.models import _pretrained, _speech
from hms_ray.models._heads import Classifier
from hms_ray.models._pretrained import Pretrained, Source, State
from hms_ray.specs import InputSpec

LAYOUT = "wave"
RATE_HZ = 16_000  # of the sound that the encoders know
MAX_FRAMES = 3000  # a minute of sound: attention grows with their square

Arch = Literal[
    "wavlm-base-plus", "wav2vec2-base", "wav2vec2-large", "wav2vec2-large-960h", "wavlm-tiny", "wav2vec2-tiny"
]


class Known(NamedTuple):
    """An encoder: of which kind, who published it, and where its sizes differ from those of transformers' default."""

    kind: str
    repository: str | None
    sizes: Mapping[str, object]


LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
TINY = {
    **{"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128},
    **{"conv_dim": (32,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4},
}
ENCODERS: dict[Arch, Known] = {
    "wavlm-base-plus": Known("wavlm", "microsoft/wavlm-base-plus", {}),
    "wav2vec2-base": Known("wav2vec2", "facebook/wav2vec2-base", {}),
    "wav2vec2-large": Known("wav2vec2", "facebook/wav2vec2-large", LARGE),
    "wav2vec2-large-960h": Known("wav2vec2", "facebook/wav2vec2-large-960h", LARGE),
    "wavlm-tiny": Known("wavlm", None, TINY),
    "wav2vec2-tiny": Known("wav2vec2", None, TINY),
}


class Params(Pretrained):
    """Which encoder, how the wave becomes sound, and what is trained."""

    arch: Arch = Field("wavlm-base-plus", description="the encoder; the tiny ones have no published weights")
    train: _speech.Train = Field(
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
    channels: Literal["mean", "concat"] = Field("mean", description="how what is said of each channel is put together")
    drop_rate: float = Field(0.1, ge=0, lt=1, description="dropout before the head")
    encoder_drop_rate: float = Field(0.1, ge=0, lt=1, description="dropout within the encoder, where it is trained")

    @model_validator(mode="after")
    def _is_published(self) -> "Params":
        if self.pretrained is True and not ENCODERS[self.arch].repository:
            raise ValueError(f"nobody has published weights of {self.arch!r}: say pretrained: false, or name a file")
        return self


def source(params: Params) -> Source | None:
    """Return where the encoder's weights are, None for random ones."""
    return _pretrained.source(params, lambda: _pretrained.from_hub(str(ENCODERS[params.arch].repository)))


def build(spec: InputSpec, n_outputs: int, params: Params, weights: State | None = None) -> nn.Module:
    """Return the encoder, the mean over time, and a head; weights: as published, with names of any age.

    Raises:
        ConfigError: the wave is too short or too long as sound, or the weights are another network's.
    """
    known = ENCODERS[params.arch]
    network = _speech.encoder(known.kind, dict(known.sizes), params.encoder_drop_rate)
    steps = _steps(spec, params, network)
    if weights is not None:
        _load(network, weights, params)
    concat = params.channels == "concat"
    body = _speech.Speech(network, steps, params.train, concat)
    width = network.config.hidden_size * (spec.shape[0] if concat else 1)
    return Classifier(body, width, n_outputs, params.drop_rate, body.LAYERS)


def _steps(spec: InputSpec, params: Params, network: _speech.Encoder) -> int:
    """Return how many steps of sound a wave becomes."""
    steps = spec.shape[-1]
    if params.speed is not None:
        steps = round(steps * RATE_HZ / (spec.rate_hz * params.speed))
    frames = int(network._get_feat_extract_output_lengths(steps))
    if not 1 <= frames <= MAX_FRAMES:
        raise ConfigError(
            f"model.speed {params.speed}: {spec.shape[-1]} steps at {spec.rate_hz:g} Hz become {steps} steps of sound, "
            f"which {params.arch!r} sees as {max(frames, 0)} frames; there must be 1 to {MAX_FRAMES}"
        )
    return steps


def _load(network: _speech.Encoder, weights: State, params: Params) -> None:
    try:
        _speech.load(network, weights)
    except ValueError as error:
        name = params.pretrained if isinstance(params.pretrained, str) else ENCODERS[params.arch].repository
        raise _pretrained.misfit(str(name), repr(params.arch), str(error)) from error
