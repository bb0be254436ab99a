"""Wav2Vec2 and WavLM, trained on speech: waves are resampled to 16 kHz, and encoded as frames of 25 ms every 20 ms.

Sound is standardised, as the encoders expect, so its amplitude is lost. Zeros at either end of a wave are padding: the
encoder sees them, but its frames there are marked.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from transformers import Wav2Vec2Config, Wav2Vec2Model, WavLMConfig, WavLMModel

from hms_ray.encoders import pretrained
from hms_ray.encoders.leftover import besides, some
from hms_ray.encoders.pretrained import Pretrained, Source, State

RATE_HZ = 16_000  # sampling rate of the encoders
FRAME, HOP = 400, 320  # samples of one frame, and from one frame to the next
MAX_FRAMES = 3000  # one minute; the cost of attention grows with the square
KINDS = {"wav2vec2": (Wav2Vec2Config, Wav2Vec2Model), "wavlm": (WavLMConfig, WavLMModel)}
UNMASKED = {"apply_spec_augment": False, "mask_time_prob": 0.0, "mask_feature_prob": 0.0, "layerdrop": 0.0}
RENAMED = {  # names in published files, from before torch's parametrizations
    "conv.weight_g": "conv.parametrizations.weight.original0",
    "conv.weight_v": "conv.parametrizations.weight.original1",
}
TINIEST = 1e-7  # variance, as in the published models' feature extractors

Encoder = Wav2Vec2Model | WavLMModel
Arch = Literal[
    "wavlm-base-plus", "wav2vec2-base", "wav2vec2-large", "wav2vec2-large-960h", "wavlm-tiny", "wav2vec2-tiny"
]


class Known(NamedTuple):
    """An encoder: its kind, the repository of its weights, and the sizes that differ between encoders."""

    kind: str
    repository: str | None
    sizes: Mapping[str, int | tuple[int, ...]]

    @property
    def width(self) -> int:
        """D, the features of a frame."""
        return self.size("hidden_size")

    @property
    def depth(self) -> int:
        """The number of layers, without the input frames."""
        return self.size("num_hidden_layers")

    def size(self, name: str) -> int:
        """Return a size that is a single number."""
        value = self.sizes[name]
        assert isinstance(value, int), f"{name} is {value}"
        return value


BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
TINY: dict[str, int | tuple[int, ...]] = {
    **{"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128},
    **{"conv_dim": (32,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4},
}
ENCODERS: dict[Arch, Known] = {
    "wavlm-base-plus": Known("wavlm", "microsoft/wavlm-base-plus", BASE),
    "wav2vec2-base": Known("wav2vec2", "facebook/wav2vec2-base", BASE),
    "wav2vec2-large": Known("wav2vec2", "facebook/wav2vec2-large", LARGE),
    "wav2vec2-large-960h": Known("wav2vec2", "facebook/wav2vec2-large-960h", LARGE),
    "wavlm-tiny": Known("wavlm", None, TINY),
    "wav2vec2-tiny": Known("wav2vec2", None, TINY),
}


class Chosen(Pretrained):
    """The parameters for the encoder and its weights."""

    arch: Arch = Field("wavlm-base-plus", description="the encoder; the tiny ones have no published weights")

    @model_validator(mode="after")
    def _is_published(self) -> "Chosen":
        if self.pretrained is True and not ENCODERS[self.arch].repository:
            raise ValueError(f"there are no published weights of {self.arch!r}: use pretrained: false, or name a file")
        return self

    @property
    def known(self) -> Known:
        """The chosen encoder."""
        return ENCODERS[self.arch]


def source(params: Chosen, where: str = "model") -> Source | None:
    """Return the source of the encoder's weights, None for random ones."""
    return pretrained.source(params, lambda: pretrained.from_hub(str(params.known.repository), where), where)


def build(params: Chosen, drop_rate: float = 0.0, weights: State | None = None, where: str = "model") -> Encoder:
    """Return the encoder: sound (B, T) at 16 kHz -> `last_hidden_state` (B, frames, D).

    There is no masking: it needs more frames than short waves have, and augmentations mask as well.

    weights: as published, with old or new names of tensors; None: random ones

    Raises:
        ConfigError: the weights belong to another network.
    """
    known = params.known
    config, network_type = KINDS[known.kind]
    dropout = dict.fromkeys(
        ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"), drop_rate
    )
    network = network_type(config(**known.sizes, **dropout, **UNMASKED))
    if weights is not None:
        try:
            load(network, weights)
        except ValueError as error:
            name = pretrained.called(params, str(known.repository))
            raise pretrained.misfit(name, repr(params.arch), str(error), where) from error
    return network


def load(network: Encoder, weights: State) -> None:
    """Load published weights, with or without heads.

    Raises:
        ValueError: the tensors are not those of the encoder; the message names some.
    """
    state = network.state_dict()
    # Files with heads have a prefix, and old files old names.
    published = {key.removeprefix(f"{network.base_model_prefix}."): tensor for key, tensor in weights.items()}
    for old, new in RENAMED.items():
        published = {key.replace(old, new): tensor for key, tensor in published.items()}
    wrong = {
        "lacks": state.keys() - published,
        "has besides": besides(published, state),
        "has in other shapes": {key for key in state.keys() & published if state[key].shape != published[key].shape},
    }
    if any(wrong.values()):
        raise ValueError("; ".join(f"the file {fault} {some(keys)}" for fault, keys in wrong.items() if keys))
    network.load_state_dict({key: published[key] for key in state})


def encode(
    network: Encoder, x: torch.Tensor, steps: int, every_layer: bool = False
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """Return outputs of layers for waves (N, T), each (N, frames, D), and which frames (N, frames) have sound.

    steps: number of samples to which a wave is resampled
    every_layer: the input of the first layer and the output of each, as in SUPERB; else only the output of the last

    The network gets no mask: these encoders normalise over time in their first convolution (feat_extract_norm
    "group") and were trained without one; the documentation of transformers recommends zero padding without a mask.
    """
    sound, has_sound = standardised(x, steps)
    output = network(sound, output_hidden_states=every_layer)
    states = output.hidden_states if every_layer else (output.last_hidden_state,)
    return states, frames_with_sound(has_sound)


def standardised(x: torch.Tensor, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return waves (N, T) as sound (N, steps) of mean 0 and variance 1, and a mask of the samples that are not padding.

    Padding is 0. A wave of zeros only has no padding.
    """
    begin, end = _ends(x != 0)
    place = torch.arange(steps, device=x.device)
    has_sound = (place >= begin * steps // x.shape[-1]) & (place < -(-end * steps // x.shape[-1]))
    sound, count = resampled(x, steps), has_sound.sum(-1, keepdim=True)
    sound = (sound - (sound * has_sound).sum(-1, keepdim=True) / count) * has_sound
    variance = sound.square().sum(-1, keepdim=True) / count
    return sound / (variance + TINIEST).sqrt(), has_sound


def frames_with_sound(has_sound: torch.Tensor) -> torch.Tensor:
    """Return which frames (N, frames) contain no padding, from a mask of samples (N, steps); all, if none does."""
    begin, end = _ends(has_sound)
    first_step = HOP * torch.arange(frames_of(has_sound.shape[-1]), device=has_sound.device)
    frames = (first_step >= begin) & (first_step + FRAME <= end)
    return frames | ~frames.any(-1, keepdim=True)


def frames_of(steps: int) -> int:
    """Return the number of frames of `steps` samples of sound."""
    return max(0, (steps - FRAME) // HOP + 1)


def resampled(x: torch.Tensor, steps: int) -> torch.Tensor:
    """Return waves (..., T) resampled to `steps`, with the frequencies that both rates contain.

    Each wave is extended by its mirror image, so that there is no jump between its end and its beginning.
    """
    if steps == x.shape[-1]:
        return x
    spectrum = torch.fft.rfft(torch.cat([x, x.flip(-1)], -1))
    return torch.fft.irfft(spectrum, 2 * steps)[..., :steps] * (steps / x.shape[-1])


def _ends(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first true step (N, 1) of each row, and the one after the last; the whole row if none is true."""
    begin = mask.int().argmax(-1, keepdim=True)
    return begin, mask.shape[-1] - mask.flip(-1).int().argmax(-1, keepdim=True)
