"""Mix Transformer, the encoder of SegFormer, on images (Xie et al. 2021, arXiv:2105.15203)."""

from typing import Literal

import torch
from pydantic import Field
from timm.models import adapt_input_conv
from torch import nn
from transformers import SegformerConfig, SegformerModel

from hms_ray.core.specs import InputSpec
from hms_ray.encoders import pretrained
from hms_ray.encoders.pretrained import Pretrained, Source, State, called
from hms_ray.models._heads import WITH_THE_LAST, Classifier, Patterns
from hms_ray.models._pictures import Resize, Size
from hms_ray.models._transformers import published

LAYOUT = "image"
NARROW, WIDE = (32, 64, 160, 256), (64, 128, 320, 512)
SIZES = {  # the widths and depths of the four stages
    "b0": (NARROW, (2, 2, 2, 2)),
    "b1": (WIDE, (2, 2, 2, 2)),
    "b2": (WIDE, (3, 4, 6, 3)),
    "b3": (WIDE, (3, 4, 18, 3)),
    "b4": (WIDE, (3, 8, 27, 3)),
    "b5": (WIDE, (3, 6, 40, 3)),
}
LEAST = 32  # rows and columns that the attention of the first stage needs
FIRST = "stages.0.patch_embeddings.proj.weight"
STAGE = r"net\.stages\.(\d+)"
LAYERS: Patterns = {
    "stem": r"net\.stages\.0\.patch_embeddings",
    "blocks": [
        (rf"{STAGE}\.blocks\.(\d+)", None),
        (rf"{STAGE}\.layer_norm", WITH_THE_LAST),
        (rf"{STAGE}\.patch_embeddings", None),
    ],
}


class Params(Pretrained):
    """The size, the weights, the input, and the regularisation."""

    arch: Literal["b0", "b1", "b2", "b3", "b4", "b5"] = Field("b0", description="the published size, mit-b0 to mit-b5")
    drop_rate: float = Field(0.0, ge=0, lt=1, description="dropout before the head")
    drop_path_rate: float = Field(0.1, ge=0, lt=1, description="stochastic depth of the last block")
    resize: Size = None


class MixTransformer(nn.Module):
    """The encoder and the mean of its last feature map: images (B, C, F, T) -> features (B, D)."""

    def __init__(self, net: SegformerModel, size: tuple[int, int]) -> None:
        super().__init__()
        self.resize = Resize(size)
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(self.resize(x)).last_hidden_state.mean((2, 3))  # (B, D, F, T) -> (B, D)


def source(params: Params) -> Source | None:
    """Return where the weights are, None for random ones."""
    return pretrained.source(params, lambda: pretrained.from_hub(_repository(params)))


def build(spec: InputSpec, n_outputs: int, params: Params, weights: State | None = None) -> nn.Module:
    """Return the encoder with a linear head, its first layer fitted to the image's channels; small images are enlarged.

    Raises:
        ConfigError: the weights belong to another network.
    """
    net = SegformerModel(_config(params, spec.shape[0]))
    if weights is not None:
        state = published(
            SegformerModel, _config(params), weights, called(params, _repository(params)), f"mit {params.arch}"
        )
        state[FIRST] = adapt_input_conv(spec.shape[0], state[FIRST])
        net.load_state_dict(state)
    frequencies, steps = params.resize or spec.shape[1:]
    body = MixTransformer(net, (max(frequencies, LEAST), max(steps, LEAST)))
    return Classifier(body, net.config.hidden_sizes[-1], n_outputs, params.drop_rate, LAYERS, len(spec.covariates))


def _config(params: Params, channels: int = 3) -> SegformerConfig:
    widths, depths = SIZES[params.arch]
    return SegformerConfig(
        num_channels=channels, hidden_sizes=widths, depths=depths, drop_path_rate=params.drop_path_rate
    )


def _repository(params: Params) -> str:
    return f"nvidia/mit-{params.arch}"
