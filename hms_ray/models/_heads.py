"""The head that networks share: from features of a body to logits, and names of layers for the optimiser."""

import re
from collections.abc import Mapping

import torch
from torch import nn

Numbered = tuple[str, tuple[int, ...] | None]  # a pattern, and what is appended to the numbers that it matches
Patterns = Mapping[str, str | list[Numbered]]
CONSTANT = 1e-6  # a deviation below this share of the mean is rounding
WITH_THE_LAST = (99999,)  # with it, timm assigns parameters to the block before them


class Covariates(nn.Module):
    """Covariates of units (B, S), standardised by the training data; an unknown value, NaN, becomes the mean.

    A covariate with one value, or none, in the training data becomes 0 for every input. The statistics are buffers:
    they are saved with the weights, so that prediction needs no training data.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))  # infinite for a covariate without variation

    def fit(self, values: torch.Tensor) -> None:
        """Compute mean and deviation of the known values (R, S)."""
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
    """Fit the statistics of a network's covariates to those of its training examples (R, S) only."""
    for part in network.modules():
        if isinstance(part, Covariates):
            part.fit(values)


def takes_covariates(network: nn.Module) -> bool:
    """Return whether a network takes covariates."""
    return any(isinstance(part, Covariates) for part in network.modules())


def head(width: int, n_outputs: int, hidden: int = 0, drop_rate: float = 0.0) -> nn.Module:
    """Return a linear head (B, D) -> (B, K), or one with a hidden layer, batch norm and dropout."""
    if not hidden:
        return nn.Linear(width, n_outputs)
    inner = (nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(drop_rate))
    return nn.Sequential(*inner, nn.Linear(hidden, n_outputs))


class Classifier(nn.Module):
    """A body (B, *shape) -> features (B, D), then dropout and a head -> logits (B, K).

    Like timm's networks it has `group_matcher` and `get_classifier`, for layer-wise learning rates, and
    `no_weight_decay`.

    layers: timm's patterns of the body's parameter names: `stem`, and `blocks` with the block's number as a group
    covariates: number of covariates, which are passed to the head directly
    hidden: width of the head's hidden layer; 0: none
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
        """Return timm's patterns of parameter names, from the first layer to the last; other parameters come last."""
        return below("body", self.layers)

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters without weight decay that are not vectors, such as position embeddings."""
        return exempt("body", self.body)


def below(prefix: str, layers: Patterns) -> Patterns:
    """Return the patterns for a network that is the submodule `prefix` of another."""

    def anchored(pattern: str) -> str:  # "^" inside an alternative would never match after the prefix; [^class] stays
        unanchored = re.sub(r"(?<!\[)\^", "", pattern)
        return rf"^{prefix}\.(?:{unanchored})"

    return {
        part: anchored(patterns) if isinstance(patterns, str) else [(anchored(p), number) for p, number in patterns]
        for part, patterns in layers.items()
    }


def exempt(prefix: str, part: nn.Module) -> set[str]:
    """Return the parameters without weight decay of a network that is the submodule `prefix` of another."""
    return {f"{prefix}.{name}" for name in getattr(part, "no_weight_decay", set)()}
