"""EEGNet (Lawhern et al. 2018): temporal filters, spatial filters for each of them, then separable convolutions.

Kernels and pools have the lengths of the paper in seconds, at any rate. The paper passes every step of one or two
seconds to the head; here a long wave is averaged to a few pieces first.
"""

import math
from typing import ClassVar

import torch
from torch import nn

from hms_ray.core.specs import InputSpec

SPATIAL = 2  # spatial filters for each temporal one: D in the paper
MAX_NORM = 1.0
COARSE_HZ = 32  # rate after the first pool; the second divides it by 8
PIECES = 16  # at most so many pieces of time for the head


class EegNet(nn.Module):
    """Waves (B, C, T) -> features (B, width x pieces). width: F2 in the paper, twice F1."""

    LAYERS: ClassVar = {"temporal": "temporal", "spatial": "spatial", "blocks": r"separable\.(\d+)"}

    def __init__(self, spec: InputSpec, width: int, depth: int, drop_rate: float) -> None:
        super().__init__()
        filters, half_second = width // SPATIAL, int(spec.rate_hz) // 2 | 1
        pool = max(1, round(spec.rate_hz / COARSE_HZ))
        self.temporal = nn.Sequential(_along_time(1, filters, half_second), nn.BatchNorm2d(filters))
        self.spatial = nn.Sequential(_Spatial(filters, spec.shape[0]), *_end(width, pool, drop_rate))
        kernel, separable = COARSE_HZ // 2 | 1, []  # half a second again
        for i in range(depth):
            convs = _along_time(width, width, kernel, groups=width), nn.Conv2d(width, width, 1, bias=False)
            separable.append(nn.Sequential(*convs, *_end(width, 8 if i == 0 else 1, drop_rate)))
        self.separable = nn.Sequential(*separable)
        steps = math.ceil(math.ceil(spec.shape[-1] / pool) / 8)
        piece = math.ceil(steps / PIECES)
        self.pieces = nn.AvgPool2d((1, piece), ceil_mode=True)
        self.features = width * math.ceil(steps / piece)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.spatial(self.temporal(x.unsqueeze(1)))  # (B, width, 1, steps)
        return self.pieces(self.separable(x)).flatten(1)


class _Spatial(nn.Conv2d):
    """Weights over the channels for each filter; the norm of a filter is at most `MAX_NORM`, as in the paper."""

    def __init__(self, filters: int, channels: int) -> None:
        super().__init__(filters, SPATIAL * filters, (channels, 1), groups=filters, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(x, torch.renorm(self.weight, 2, 0, MAX_NORM), None)


def _along_time(inputs: int, outputs: int, kernel: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, (1, kernel), padding=(0, kernel // 2), groups=groups, bias=False)


def _end(width: int, pool: int, drop_rate: float) -> tuple[nn.Module, ...]:
    return nn.BatchNorm2d(width), nn.ELU(), nn.AvgPool2d((1, pool), ceil_mode=True), nn.Dropout(drop_rate)
