"""Squeezeformer: alternating attention and convolution over a wave that a grouped stem has shortened.

Kim et al. 2022, "Squeezeformer: An Efficient Transformer for Automatic Speech Recognition": scaled input, residual,
then norm. The stem, of each channel, of pairs of neighbours, and of all channels, follows competition solutions.
"""

import math
from itertools import pairwise
from typing import ClassVar

import torch
from timm.layers import DropPath
from torch import nn
from torch.nn import functional as F

from hms_ray.core.specs import InputSpec
from hms_ray.models._strides import strides

STEPS = 320  # at most so many for attention, whose cost grows with their square
HEADS = 4
KERNEL = 31  # of the depthwise convolution
PER_CHANNEL = 8  # features of the stem


class Squeezeformer(nn.Module):
    """Waves (B, C, T) -> features (B, width), the mean over time."""

    LAYERS: ClassVar = {"stem": "stem", "blocks": r"blocks\.(\d+)"}

    def __init__(self, spec: InputSpec, width: int, depth: int, drop_rate: float, drop_path_rate: float) -> None:
        super().__init__()
        paths = [drop_path_rate * i / depth for i in range(1, depth + 1)]
        channels = spec.shape[0]
        # The stem sees each channel, then pairs of neighbours where their number is even, then all.
        groups = channels, channels // 2 if channels % 2 == 0 else channels, 1
        widths = pairwise((channels, PER_CHANNEL * channels, PER_CHANNEL * channels, width))
        stem = []
        for (inputs, outputs), stride, g in zip(widths, strides(spec.shape[-1], 3, STEPS), groups, strict=True):
            conv = nn.Conv1d(inputs, outputs, 4 * stride + 1, stride, 2 * stride, groups=g, bias=False)
            stem.append(nn.Sequential(conv, nn.BatchNorm1d(outputs), nn.SiLU()))
        self.stem = nn.Sequential(*stem)
        blocks = []
        for path in paths:
            parts = (
                *(_Attention(width, drop_rate), _feed(width, drop_rate)),
                *(_Convolution(width, drop_rate), _feed(width, drop_rate)),
            )
            blocks.append(nn.Sequential(*(_Residual(part, width, path) for part in parts)))
        self.blocks = nn.Sequential(*blocks)
        self.features = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).transpose(1, 2)  # (B, steps, width)
        steps, width = x.shape[1:]
        # Sines and cosines (steps, width) of the position, as in "Attention Is All You Need".
        pace = torch.exp(torch.arange(0, width, 2, device=x.device) * (-math.log(10_000) / width))
        angle = torch.arange(steps, device=x.device)[:, None] * pace
        return self.blocks(x + torch.cat([angle.sin(), angle.cos()], dim=1)).mean(1)


class _Residual(nn.Module):
    """norm(x + part(scale x + shift)) of (B, steps, width)."""

    def __init__(self, part: nn.Module, width: int, drop_path_rate: float) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.part, self.drop_path, self.norm = part, DropPath(drop_path_rate), nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x + self.drop_path(self.part(x * self.scale + self.shift)))


class _Attention(nn.Module):
    """Attention between all steps."""

    def __init__(self, width: int, drop_rate: float) -> None:
        super().__init__()
        self.qkv, self.out, self.drop = nn.Linear(width, 3 * width), nn.Linear(width, width), nn.Dropout(drop_rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)  # each (B, HEADS, steps, width)
        return self.drop(self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)))


class _Convolution(nn.Module):
    """Convolution over neighbouring steps."""

    def __init__(self, width: int, drop_rate: float) -> None:
        super().__init__()
        self.into, self.out = nn.Conv1d(width, width, 1), nn.Conv1d(width, width, 1)
        self.depthwise = nn.Conv1d(width, width, KERNEL, padding=KERNEL // 2, groups=width, bias=False)
        self.norm, self.drop = nn.BatchNorm1d(width), nn.Dropout(drop_rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.depthwise(F.silu(self.into(x.transpose(1, 2))))
        return self.drop(self.out(F.silu(self.norm(x)))).transpose(1, 2)


def _feed(width: int, drop_rate: float) -> nn.Sequential:
    inner = nn.Linear(width, 4 * width), nn.SiLU(), nn.Dropout(drop_rate)
    return nn.Sequential(*inner, nn.Linear(4 * width, width), nn.Dropout(drop_rate))
