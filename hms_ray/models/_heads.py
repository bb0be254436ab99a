"""The end that networks share: features of a body become logits, and the optimiser finds the layers."""

import re
from collections.abc import Mapping

import torch
from torch import nn

Numbered = tuple[str, tuple[int, ...] | None]  # a pattern, and what is added to the numbers that it finds
Patterns = Mapping[str, str | list[Numbered]]
CONSTANT = 1e-6  # of its mean: a deviation that is rounding
WITH_THE_LAST = (99999,)  # timm's sign for parameters that belong to the block before them


class Covariates(nn.Module):
    """Numbers about a unit (B, S), standardised by the training data's; what is not known, NaN, counts as their mean.

    What the training data has one value of, or none, says nothing: it is 0 whatever it is later.

    The statistics are buffers: they are saved with the weights, and whoever predicts needs no training data.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))  # infinite where there is nothing to be told

    def fit(self, values: torch.Tensor) -> None:
        """Take mean and deviation of the values (R, S) that are known."""
        known, values = values.isfinite(), values.double()
        mean = values.where(known, torch.nan).nanmean(0).nan_to_num(0.0)
        count = known.sum(0).clamp(min=1)
        scale = ((values - mean).where(known, 0.0).square().sum(0) / count).sqrt()
        constant = scale <= CONSTANT * mean.abs()
        self.mean.copy_(mean)
        self.scale.copy_(scale.masked_fill(constant, torch.inf))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return ((values - self.mean) / self.scale).nan_to_num(0.0)


def fit_covariates(network: nn.Module, values: torch.Tensor) -> None:
    """Let a network know the numbers (R, S) beside its training examples, and no others."""
    for part in network.modules():
        if isinstance(part, Covariates):
            part.fit(values)


def takes_covariates(network: nn.Module) -> bool:
    """Whether a network has a place for numbers beside its input."""
    return any(isinstance(part, Covariates) for part in network.modules())


def head(width: int, n_outputs: int, hidden: int = 0, drop_rate: float = 0.0) -> nn.Module:
    """Return a linear head (B, D) -> (B, K), or one with a hidden layer, batch norm and dropout."""
    if not hidden:
        return nn.Linear(width, n_outputs)
    inner = (nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(drop_rate))
    return nn.Sequential(*inner, nn.Linear(hidden, n_outputs))


class Classifier(nn.Module):
    """A body (B, *shape) -> features (B, D), then dropout and a head -> logits (B, K).

    It speaks timm's language, by which layers get rates of their own, `group_matcher` and `get_classifier`, and some
    are not decayed, `no_weight_decay`.

    layers: timm's patterns of the body's parameter names: `stem`, and `blocks` with the block's number as a group
    covariates: how many numbers are given beside x, which go to the head as they are
    hidden: of its hidden layer, if any
    """

    def __init__(
        self,
        body: nn.Module,
        width: int,
        n_outputs: int,
        drop_rate: float,
        layers: Patterns,
        covariates: int = 0,
        hidden: int = 0,
    ) -> None:
        super().__init__()
        self.body = body
        self.drop = nn.Dropout(drop_rate)
        self.covariates = Covariates(covariates) if covariates else None
        self.head = head(width + covariates, n_outputs, hidden, drop_rate)
        self.layers = dict(layers)

    def forward(self, x: torch.Tensor, covariates: torch.Tensor | None = None) -> torch.Tensor:
        features = self.drop(self.body(x))
        if self.covariates is not None:
            features = torch.cat([features, self.covariates(covariates)], 1)
        return self.head(features)

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
