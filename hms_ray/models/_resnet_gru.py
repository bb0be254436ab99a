"""ResNet and GRU: parallel kernels, residual blocks that shorten the wave, then a recurrence over the rest.

After the ResNet1D-GRU of the competition's public notebooks, whose GRU ran over the batch instead of time.
"""

from typing import ClassVar

import torch
from timm.layers import DropPath
from torch import nn
from torch.nn import functional as F

from hms_ray.core.specs import InputSpec
from hms_ray.models._strides import strides

KERNELS = 3, 5, 7, 9  # of the stem, side by side
KERNEL = 7  # of the blocks
STEPS = 160  # at most so many for the GRU


class ResnetGru(nn.Module):
    """Waves (B, C, T) -> features (B, 3 width): the last states of both directions of the GRU, and the mean."""

    LAYERS: ClassVar = {"stem": "stem", "blocks": r"blocks\.(\d+)", "gru": "norm|gru"}

    def __init__(self, spec: InputSpec, width: int, depth: int, drop_rate: float, drop_path_rate: float) -> None:
        super().__init__()
        first, *others = strides(spec.shape[-1], depth + 1, STEPS)
        paths = [drop_path_rate * i / depth for i in range(1, depth + 1)]
        self.stem = _Parallel(spec.shape[0], width, first)
        self.blocks = nn.Sequential(*(_Block(width, s, drop_rate, p) for s, p in zip(others, paths, strict=True)))
        self.norm = nn.BatchNorm1d(width)
        self.gru = nn.GRU(width, width, batch_first=True, bidirectional=True)
        self.features = 3 * width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.blocks(self.stem(x))))  # (B, width, steps)
        _, ends = self.gru(x.transpose(1, 2))  # (2, B, width): the state of each direction after its last step
        return torch.cat([*ends, x.mean(-1)], dim=1)


class _Parallel(nn.Module):
    """Convolutions of several lengths side by side."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        each = outputs // len(KERNELS)
        self.convs = nn.ModuleList(nn.Conv1d(inputs, each, k, stride, k // 2, bias=False) for k in KERNELS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([conv(x) for conv in self.convs], dim=1)


class _Block(nn.Module):
    """A residual block with norm and activation before each convolution."""

    def __init__(self, width: int, stride: int, drop_rate: float, drop_path_rate: float) -> None:
        super().__init__()
        self.stride = stride
        self.residual = nn.Sequential(
            *(nn.BatchNorm1d(width), nn.ReLU(), _conv(width, stride)),
            *(nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(drop_rate), _conv(width, 1)),
        )
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = F.max_pool1d(x, self.stride, ceil_mode=True) if self.stride > 1 else x
        return shortcut + self.drop_path(self.residual(x))


def _conv(width: int, stride: int) -> nn.Conv1d:
    return nn.Conv1d(width, width, KERNEL, stride, KERNEL // 2, bias=False)
