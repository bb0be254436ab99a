"""Pool the frames of several layers of an encoder into one vector: weights of layers, and weights of frames."""

from collections.abc import Sequence
from functools import reduce
from typing import Literal

import torch
from torch import nn

Pool = Literal["mean", "attention"]


class LayerMix(nn.Module):
    """L layers of frames (B, T, D) -> their weighted mean (B, T, D), the weights a softmax, equal at the beginning.

    The probes of SUPERB use all layers of an encoder in this way (Yang et al. 2021, arXiv:2105.01051).
    """

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(layers))

    def forward(self, layers: Sequence[torch.Tensor]) -> torch.Tensor:
        shares = self.weight.softmax(0).unbind()
        return reduce(torch.add, (share * frames for share, frames in zip(shares, layers, strict=True)))


class FramePool(nn.Module):
    """Frames (B, T, D) -> (B, D): the mean over the frames that count, or their sum by learned weights.

    Attention is a softmax over one score per frame (Safari et al. 2020, arXiv:2008.01077); initially it is the mean.
    """

    def __init__(self, width: int, pool: Pool) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1, bias=False) if pool == "attention" else None  # a bias would change nothing
        if self.score is not None:
            nn.init.zeros_(self.score.weight)

    def forward(self, frames: torch.Tensor, counts: torch.Tensor | None = None) -> torch.Tensor:
        """Pool frames; counts (B, T): which frames count, at least one in each row; None: all."""
        if self.score is None and counts is None:
            return frames.mean(1)
        scores = frames.new_zeros(frames.shape[:2]) if self.score is None else self.score(frames)[..., 0]  # (B, T)
        if counts is not None:
            scores = scores.masked_fill(~counts, -torch.inf)
        shares = scores.float().softmax(1)[..., None]
        return (shares * frames).sum(1)  # not a matrix product, which is imprecise in half precision
