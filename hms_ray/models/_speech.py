"""Speech encoders of transformers as the body of a classifier: waves are sound, each channel on its own."""

from typing import ClassVar, Literal

import torch
from torch import nn
from transformers import Wav2Vec2Config, Wav2Vec2Model, WavLMConfig, WavLMModel

from hms_ray.models._leftover import besides, some
from hms_ray.models._pretrained import State

KINDS = {"wav2vec2": (Wav2Vec2Config, Wav2Vec2Model), "wavlm": (WavLMConfig, WavLMModel)}
UNMASKED = {"apply_spec_augment": False, "mask_time_prob": 0.0, "mask_feature_prob": 0.0, "layerdrop": 0.0}
RENAMED = {  # published files are older than torch's parametrizations
    "conv.weight_g": "conv.parametrizations.weight.original0",
    "conv.weight_v": "conv.parametrizations.weight.original1",
}
TINIEST = 1e-7  # variance, as in the published models' feature extractors

Encoder = Wav2Vec2Model | WavLMModel
Train = Literal["head", "encoder", "all"]
FROZEN: dict[Train, tuple[str, ...]] = {"head": ("encoder",), "encoder": ("encoder.feature_extractor",), "all": ()}


def encoder(kind: str, sizes: dict[str, object], drop_rate: float) -> Encoder:
    """Return an encoder with random weights: sound (B, T) at 16 kHz -> `last_hidden_state` (B, frames, D).

    Nothing is masked: a mask needs more frames than a short wave has, and the augmentations do it anyway.
    """
    config, network = KINDS[kind]
    dropout = dict.fromkeys(
        ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"), drop_rate
    )
    return network(config(**sizes, **dropout, **UNMASKED))


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


def resampled(x: torch.Tensor, steps: int) -> torch.Tensor:
    """Return waves (..., T) at so many steps, of the frequencies that both rates have.

    Each wave goes on as its mirror image, so that its end meets its beginning without a jump.
    """
    if steps == x.shape[-1]:
        return x
    spectrum = torch.fft.rfft(torch.cat([x, x.flip(-1)], -1))
    return torch.fft.irfft(spectrum, 2 * steps)[..., :steps] * (steps / x.shape[-1])


class Speech(nn.Module):
    """Waves (B, C, T) -> the mean over time of what the one encoder says of each channel.

    steps: of sound, to which a wave is resampled
    train: what is trained; the rest has no gradient, and no dropout in training either
    concat: (B, C D), channel by channel; else (B, D), their mean
    """

    LAYERS: ClassVar = {
        "stem": r"encoder\.(?:feature_|encoder\.pos_conv_embed|encoder\.layer_norm)",
        "blocks": r"encoder\.encoder\.layers\.(\d+)",
    }

    def __init__(self, network: Encoder, steps: int, train: Train, concat: bool) -> None:
        super().__init__()
        self.encoder, self.steps, self.concat = network, steps, concat
        self.frozen = FROZEN[train]
        for name in self.frozen:
            self.get_submodule(name).requires_grad_(False)
        network.feature_extractor._requires_grad = False  # asks for that of the sound, which only a leaf can grant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sound = resampled(x.flatten(0, 1), self.steps)  # (B C, steps)
        variance, mean = torch.var_mean(sound, -1, correction=0, keepdim=True)
        frames = self.encoder((sound - mean) / (variance + TINIEST).sqrt()).last_hidden_state  # (B C, frames, D)
        features = frames.mean(1).unflatten(0, x.shape[:2])  # (B, C, D)
        return features.flatten(1) if self.concat else features.mean(1)

    def train(self, mode: bool = True) -> "Speech":
        """Set the mode, but leave in evaluation what is frozen."""
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).eval()
        return self
