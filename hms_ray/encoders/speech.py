"""Wav2Vec2 and WavLM, trained on speech: waves become sound of 16 kHz, and sound frames of 25 ms, one each 20 ms.

Sound is standardised, as the encoders expect: how large it was is lost. Zeros at either end of a wave mean that there
is nothing; the encoder sees them, but its frames there are told from the others.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from transformers import Wav2Vec2Config, Wav2Vec2Model, WavLMConfig, WavLMModel

from hms_ray.encoders import pretrained
from hms_ray.encoders.leftover import besides, some
from hms_ray.encoders.pretrained import Pretrained, Source, State

RATE_HZ = 16_000  # of the sound that the encoders know
FRAME, HOP = 400, 320  # steps of sound that a frame sees, and from one frame to the next
MAX_FRAMES = 3000  # a minute of sound: attention grows with their square
KINDS = {"wav2vec2": (Wav2Vec2Config, Wav2Vec2Model), "wavlm": (WavLMConfig, WavLMModel)}
UNMASKED = {"apply_spec_augment": False, "mask_time_prob": 0.0, "mask_feature_prob": 0.0, "layerdrop": 0.0}
RENAMED = {  # published files are older than torch's parametrizations
    "conv.weight_g": "conv.parametrizations.weight.original0",
    "conv.weight_v": "conv.parametrizations.weight.original1",
}
TINIEST = 1e-7  # variance, as in the published models' feature extractors

Encoder = Wav2Vec2Model | WavLMModel
Arch = Literal[
    "wavlm-base-plus", "wav2vec2-base", "wav2vec2-large", "wav2vec2-large-960h", "wavlm-tiny", "wav2vec2-tiny"
]


class Known(NamedTuple):
    """An encoder: of which kind, who published it, and the sizes that differ between encoders."""

    kind: str
    repository: str | None
    sizes: Mapping[str, int | tuple[int, ...]]

    @property
    def width(self) -> int:
        """D, of a frame."""
        return self.size("hidden_size")

    @property
    def depth(self) -> int:
        """Layers after the first frames, which count as one more."""
        return self.size("num_hidden_layers")

    def size(self, name: str) -> int:
        """Return one of the sizes that are single numbers."""
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
    """The parameters that say which encoder, and from which weights."""

    arch: Arch = Field("wavlm-base-plus", description="the encoder; the tiny ones have no published weights")

    @model_validator(mode="after")
    def _is_published(self) -> "Chosen":
        if self.pretrained is True and not ENCODERS[self.arch].repository:
            raise ValueError(f"nobody has published weights of {self.arch!r}: say pretrained: false, or name a file")
        return self

    @property
    def known(self) -> Known:
        """The chosen encoder."""
        return ENCODERS[self.arch]


def source(params: Chosen, where: str = "model") -> Source | None:
    """Return where the encoder's weights are, None for random ones."""
    return pretrained.source(params, lambda: pretrained.from_hub(str(params.known.repository), where), where)


def build(params: Chosen, drop_rate: float = 0.0, weights: State | None = None, where: str = "model") -> Encoder:
    """Return the encoder: sound (B, T) at 16 kHz -> `last_hidden_state` (B, frames, D).

    Nothing is masked: a mask needs more frames than a short wave has, and the augmentations do it anyway.

    weights: as published, with names of any age; None: random ones

    Raises:
        ConfigError: they are another network's.
    """
    known = params.known
    config, kind = KINDS[known.kind]
    dropout = dict.fromkeys(
        ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"), drop_rate
    )
    network = kind(config(**known.sizes, **dropout, **UNMASKED))
    if weights is not None:
        try:
            load(network, weights)
        except ValueError as error:
            name = pretrained.called(params, str(known.repository))
            raise pretrained.misfit(name, repr(params.arch), str(error), where) from error
    return network


def load(network: Encoder, weights: State) -> None:
    """Load a published state, whatever heads it brings.

    Raises:
        ValueError: it has other tensors than the encoder; the message names some.
    """
    wanted, found = network.state_dict(), _of_encoder(weights, network.base_model_prefix)
    wrong = {
        "lacks": wanted.keys() - found,
        "has besides": besides(found, wanted),
        "has in other shapes": {key for key in wanted.keys() & found if wanted[key].shape != found[key].shape},
    }
    if any(wrong.values()):
        raise ValueError("; ".join(f"the file {what} {some(keys)}" for what, keys in wrong.items() if keys))
    network.load_state_dict({key: found[key] for key in wanted})


def _of_encoder(weights: State, prefix: str) -> State:
    """Return the tensors by the encoder's names: published with heads, they have a prefix, and old files old names."""
    found = {key.removeprefix(f"{prefix}."): tensor for key, tensor in weights.items()}
    for old, new in RENAMED.items():
        found = {key.replace(old, new): tensor for key, tensor in found.items()}
    return found


def encode(
    network: Encoder, x: torch.Tensor, steps: int, every_layer: bool = False
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """Return what layers say of waves (N, T), each (N, frames, D), and the frames (N, frames) where there is sound.

    steps: of sound, to which a wave is resampled
    every_layer: the frames before the first layer and after each, as SUPERB weighs them; else after the last alone

    The network gets no mask: these encoders normalise over time in their first convolution (feat_extract_norm
    "group") and were trained without one; transformers' documentation says to pad them with zeros and pass none.
    """
    sound, there = standardised(x, steps)
    found = network(sound, output_hidden_states=every_layer)
    states = found.hidden_states if every_layer else (found.last_hidden_state,)
    return states, frames_with_sound(there)


def standardised(x: torch.Tensor, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return waves (N, T) as sound (N, steps) of mean 0 and variance 1, and where it is: elsewhere it is 0.

    Without a value that is not 0 there is sound everywhere.
    """
    begin, end = _ends(x != 0)
    place = torch.arange(steps, device=x.device)
    there = (place >= begin * steps // x.shape[-1]) & (place < -(-end * steps // x.shape[-1]))
    sound, count = resampled(x, steps), there.sum(-1, keepdim=True)
    sound = (sound - (sound * there).sum(-1, keepdim=True) / count) * there
    variance = sound.square().sum(-1, keepdim=True) / count
    return sound / (variance + TINIEST).sqrt(), there


def frames_with_sound(there: torch.Tensor) -> torch.Tensor:
    """Return which frames (N, frames) see nothing but sound, of where sound (N, steps) is; all, where none does."""
    begin, end = _ends(there)
    first_step = HOP * torch.arange(frames_of(there.shape[-1]), device=there.device)
    found = (first_step >= begin) & (first_step + FRAME <= end)
    return found | ~found.any(-1, keepdim=True)


def frames_of(steps: int) -> int:
    """Return how many frames so many steps of sound make."""
    return max(0, (steps - FRAME) // HOP + 1)


def resampled(x: torch.Tensor, steps: int) -> torch.Tensor:
    """Return waves (..., T) at so many steps, of the frequencies that both rates have.

    Each wave goes on as its mirror image, so that its end meets its beginning without a jump.
    """
    if steps == x.shape[-1]:
        return x
    spectrum = torch.fft.rfft(torch.cat([x, x.flip(-1)], -1))
    return torch.fft.irfft(spectrum, 2 * steps)[..., :steps] * (steps / x.shape[-1])


def _ends(there: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first step (N, 1) of each row that is true, and the one after the last; the whole where none is."""
    begin = there.int().argmax(-1, keepdim=True)
    return begin, there.shape[-1] - there.flip(-1).int().argmax(-1, keepdim=True)
