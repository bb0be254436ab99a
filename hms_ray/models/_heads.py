"""The end that networks share: features of a body become logits, and the optimiser finds the layers."""

import re
from collections.abc import Mapping

import torch
from torch import nn

Numbered = tuple[str, tuple[int, ...] | None]  # a pattern, and what is added to the numbers that it finds
Patterns = Mapping[str, str | list[Numbered]]
WITH_THE_LAST = (99999,)  # timm's sign for parameters that belong to the block before them


class Classifier(nn.Module):
    """A body (B, *shape) -> features (B, D), then dropout and a linear head -> logits (B, K).

    It speaks timm's language, by which layers get rates of their own, `group_matcher` and `get_classifier`, and some
    are not decayed, `no_weight_decay`.

    layers: timm's patterns of the body's parameter names: `stem`, and `blocks` with the block's number as a group
    """

    def __init__(self, body: nn.Module, width: int, n_outputs: int, drop_rate: float, layers: Patterns) -> None:
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

    def group_matcher(self, coarse: bool = False) -> Patterns:
        """Return timm's patterns of parameter names, from the first layer to the last; what matches none is the end."""
        return below("body", self.layers)

    def no_weight_decay(self) -> set[str]:
        """Return the names of what is not decayed although it is no vector: position embeddings and the like."""
        return exempt("body", self.body)


def below(prefix: str, layers: Patterns) -> Patterns:
    """Return the patterns for a network that has become a part of that name."""
    return {part: _below(prefix, patterns) for part, patterns in layers.items()}


def exempt(prefix: str, part: nn.Module) -> set[str]:
    """Return what a network that has become a part of that name exempts from weight decay."""
    return {f"{prefix}.{name}" for name in getattr(part, "no_weight_decay", set)()}


def _below(prefix: str, patterns: str | list[Numbered]) -> str | list[Numbered]:
    if not isinstance(patterns, str):
        return [(_anchored(prefix, pattern), suffix) for pattern, suffix in patterns]
    return _anchored(prefix, patterns)


def _anchored(prefix: str, pattern: str) -> str:
    """An anchor inside an alternative would match nothing behind the prefix; that of a [^class] stays."""
    unanchored = re.sub(r"(?<!\[)\^", "", pattern)
    return rf"^{prefix}\.(?:{unanchored})"
