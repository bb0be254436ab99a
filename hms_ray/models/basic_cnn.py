"""A small convolutional network: the baseline for the others, and fast enough for a laptop."""

from itertools import pairwise

import torch
from pydantic import Field
from torch import nn

from hms_ray.core.params import Params as Strict
from hms_ray.core.specs import InputSpec
from hms_ray.models._heads import Classifier

LAYOUT = "image"


class Params(Strict):
    """Size and dropout."""

    width: int = Field(16, ge=4, le=256, description="channels of the first block; each block doubles them")
    depth: int = Field(4, ge=2, le=6, description="blocks; each halves the image")
    drop_rate: float = Field(0.1, ge=0, lt=1, description="dropout before the head")


def build(spec: InputSpec, n_outputs: int, params: Params) -> nn.Module:
    """Return blocks of convolution, batch norm and GELU, then the mean and the maximum over the image, then a head."""
    widths = [spec.shape[0], *(params.width * 2**i for i in range(params.depth))]
    blocks = []
    for i, (inputs, outputs) in enumerate(pairwise(widths)):
        kernel, stride = (7, 4) if i == 0 else (3, 2)
        conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
        blocks.append(nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.GELU()))
    body = nn.Sequential(*blocks, _MeanMax())
    return Classifier(body, 2 * widths[-1], n_outputs, params.drop_rate, {"blocks": r"(\d+)"}, len(spec.covariates))


class _MeanMax(nn.Module):
    """Pool (B, C, F, T) to (B, 2 C): the mean responds to lasting, the maximum to brief patterns."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)
