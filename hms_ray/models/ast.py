"""Audio Spectrogram Transformer on images (Gong et al. 2021, arXiv:2104.01778)."""

from typing import Literal

import torch
from pydantic import Field, model_validator
from timm.layers import resample_abs_pos_embed
from timm.models import adapt_input_conv
from torch import nn
from transformers import ASTConfig, ASTModel

from hms_ray.core.errors import ConfigError
from hms_ray.core.specs import InputSpec
from hms_ray.encoders import pretrained
from hms_ray.encoders.pretrained import Pretrained, Source, State, called
from hms_ray.models._heads import WITH_THE_LAST, Classifier, Patterns
from hms_ray.models._pictures import Resize, Size
from hms_ray.models._transformers import published

LAYOUT = "image"
PATCH = 16
REPOSITORY = "MIT/ast-finetuned-audioset-10-10-0.4593"  # size base, for images (128, 1024)
WIDTHS = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}  # with the number of heads
FIRST, PLACES = "embeddings.patch_embeddings.projection.weight", "embeddings.position_embeddings"
TOKENS = 2  # before the patches: one for the class, one for distillation
LAYERS: Patterns = {
    "stem": r"net\.embeddings",
    "blocks": [(r"net\.layers\.(\d+)", None), (r"net\.layernorm", WITH_THE_LAST)],
}


class Params(Pretrained):
    """The size, the weights, the input, and the regularisation."""

    size: Literal["tiny", "small", "base"] = Field("base", description="the width: 192, 384 or 768; published: base")
    depth: int = Field(12, ge=1, le=12, description="number of layers, the first ones of the published 12")
    stride: int = Field(10, ge=1, le=PATCH, description=f"steps from one patch to the next; they are {PATCH} wide")
    drop_rate: float = Field(0.0, ge=0, lt=1, description="dropout before the head")
    resize: Size = None

    @model_validator(mode="after")
    def _has_weights(self) -> "Params":
        if self.pretrained is True and self.size != "base":
            raise ValueError(
                f"there are no published weights of ast {self.size}: use pretrained: false, or name a file"
            )
        return self


class Patches(nn.Module):
    """Images (B, C, F, T) -> overlapping patches (B, N, D); those of the library take one channel only."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(channels, width, PATCH, stride)
        nn.init.trunc_normal_(self.projection.weight, std=0.02)
        nn.init.zeros_(self.projection.get_parameter("bias"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.projection(x).flatten(2).transpose(1, 2)


class SpectrogramTransformer(nn.Module):
    """The encoder and the mean of its two tokens: images (B, C, F, T) -> features (B, D)."""

    def __init__(self, net: ASTModel, size: tuple[int, int] | None) -> None:
        super().__init__()
        self.resize = Resize(size)
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(self.resize(x)).pooler_output

    def no_weight_decay(self) -> set[str]:
        """Return the names of tokens and position embeddings; weight decay would shrink them, as no norm follows."""
        return {f"net.embeddings.{name}" for name in ("cls_token", "distillation_token", "position_embeddings")}


def source(params: Params) -> Source | None:
    """Return where the weights are, None for random ones."""
    return pretrained.source(params, lambda: pretrained.from_hub(REPOSITORY))


def build(spec: InputSpec, n_outputs: int, params: Params, weights: State | None = None) -> nn.Module:
    """Return the encoder with a linear head; first layer and position embeddings are fitted to the image.

    Raises:
        ConfigError: the image is smaller than a patch, or the weights belong to another network.
    """
    size = params.resize or (spec.shape[1], spec.shape[2])
    if min(size) < PATCH:
        raise ConfigError(f"model: images of {size[0]} x {size[1]} are smaller than a patch of {PATCH}: use resize")
    net = ASTModel(_config(params, size, params.stride))
    patches = Patches(spec.shape[0], net.config.hidden_size, params.stride)
    net.set_submodule("embeddings.patch_embeddings", patches)
    if weights is not None:
        config = _config(params)
        state = published(ASTModel, config, weights, called(params, REPOSITORY), f"ast {params.size}", cut="layers")
        state[FIRST] = adapt_input_conv(spec.shape[0], state[FIRST], base_chans=1)
        old, new = net.embeddings.get_shape(config), net.embeddings.get_shape(net.config)  # grids of patches
        state[PLACES] = resample_abs_pos_embed(state[PLACES], list(new), list(old), num_prefix_tokens=TOKENS)
        net.load_state_dict(state)
    body = SpectrogramTransformer(net, params.resize)
    return Classifier(body, net.config.hidden_size, n_outputs, params.drop_rate, LAYERS, len(spec.covariates))


def _config(params: Params, size: tuple[int, int] = (128, 1024), stride: int = 10) -> ASTConfig:
    """Return the library's configuration; by default that of the published network."""
    width, heads = WIDTHS[params.size]
    return ASTConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_attention_heads=heads,
        num_hidden_layers=params.depth,
        frequency_stride=stride,
        time_stride=stride,
        num_mel_bins=size[0],
        max_length=size[1],
    )
