"""The end that networks share: features of a body become logits, and the optimiser finds the layers."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class Classifier(nn.Module):
    """A body (B, *shape) -> features (B, D), then dropout and a linear head -> logits (B, K).

    It speaks timm's language, by which layers get rates of their own: `group_matcher` and `get_classifier`.

    layers: timm's patterns of the body's parameter names: `stem`, and `blocks` with the block's number as a group
    """

    def __init__(
        self, body: nn.Module, width: int, n_outputs: int, drop_rate: float, layers: Mapping[str, str]
    ) -> None:
        super().__init__()
        self.body = body
        self.drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(width, n_outputs)
        self.layers = dict(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(self.body(x)))

    def get_classifier(self) -> nn.Module:
        """Return the head."""
        return self.head

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return timm's patterns of parameter names, from the first layer to the last; what matches none is the end."""
        return {part: rf"^body\.(?:{pattern})" for part, pattern in self.layers.items()}
