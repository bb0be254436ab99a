"""Speech encoders as the body of a classifier: each channel of a wave is encoded separately as sound."""

from typing import ClassVar, Literal

import torch
from torch import nn

from hms_ray.encoders.speech import Encoder, encode
from hms_ray.models._frames import FramePool, LayerMix, Pool

Train = Literal["head", "encoder", "all"]
FROZEN: dict[Train, tuple[str, ...]] = {"head": ("encoder",), "encoder": ("encoder.feature_extractor",), "all": ()}


class Speech(nn.Module):
    """Waves (B, C, T) -> pooled frames of each channel, where it has sound.

    steps: number of samples of sound to which a wave is resampled
    train: the trained part; the rest has no gradient, and no dropout in training
    concat: return (B, C D), channel by channel; else (B, D), the mean of the channels
    mix: use all layers with learned weights; else only the last
    """

    LAYERS: ClassVar = {
        "stem": r"encoder\.(?:feature_|encoder\.pos_conv_embed|encoder\.layer_norm)",
        "blocks": r"encoder\.encoder\.layers\.(\d+)",
    }

    def __init__(self, network: Encoder, steps: int, train: Train, concat: bool, pool: Pool, mix: bool) -> None:
        super().__init__()
        self.encoder, self.steps, self.concat = network, steps, concat
        self.mix = LayerMix(network.config.num_hidden_layers + 1) if mix else None
        self.pool = FramePool(network.config.hidden_size, pool)
        self.frozen = FROZEN[train]
        for name in self.frozen:
            self.get_submodule(name).requires_grad_(False)
        network.feature_extractor._requires_grad = False  # else it sets requires_grad on the sound, which is not a leaf

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        layers, counts = encode(self.encoder, x.flatten(0, 1), self.steps, self.mix is not None)  # (B C, frames, D)
        frames = layers[-1] if self.mix is None else self.mix(layers)
        features = self.pool(frames, counts).unflatten(0, x.shape[:2])  # (B, C, D)
        return features.flatten(1) if self.concat else features.mean(1)

    def train(self, mode: bool = True) -> "Speech":
        """Set the mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).eval()
        return self
