"""Inputs of image networks: resized, and as one image or picture by picture."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn
from torch.nn.functional import interpolate

from hms_ray.models._heads import Covariates, Patterns, below, exempt

Size = Annotated[
    tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None,
    Field(description="the size (F, T) that images are brought to before the network, bilinearly; null: as they come"),
]


class Resize(nn.Module):
    """Resize images (B, C, F, T) to a size (F, T), with antialiasing where they shrink; None: unchanged."""

    def __init__(self, size: tuple[int, int] | None) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.size is None or x.shape[-2:] == self.size:
            return x
        shrinks = x.shape[-2] > self.size[0] or x.shape[-1] > self.size[1]
        return interpolate(x, self.size, mode="bilinear", antialias=shrinks)


class TimmNetwork(nn.Module):
    """The members of timm's networks that nn.Module does not declare; for annotations, never instantiated."""

    get_classifier: Callable[[], nn.Module]
    group_matcher: Callable[..., Patterns]
    set_grad_checkpointing: Callable[[], None]
    head_hidden_size: int
    pretrained_cfg: dict[str, Any]


class Resized(nn.Module):
    """A network of timm on resized images (B, C, F, T)."""

    def __init__(self, net: TimmNetwork, size: tuple[int, int]) -> None:
        super().__init__()
        self.resize = Resize(size)
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(self.resize(x))

    def get_classifier(self) -> nn.Module:
        """Return the network's head."""
        return self.net.get_classifier()

    def group_matcher(self, coarse: bool = False) -> Patterns:
        """Return timm's patterns of parameter names."""
        return below("net", self.net.group_matcher(coarse=coarse))

    def no_weight_decay(self) -> set[str]:
        """Return the names of what the network exempts from weight decay."""
        return exempt("net", self.net)


class Fused(nn.Module):
    """A headless network of timm on each picture, then a linear head on all features -> logits (B, K).

    pictures: slices of T; one for a whole image
    covariates: number of covariates, which are passed to the head directly
    """

    def __init__(
        self,
        net: TimmNetwork,
        pictures: Sequence[slice],
        size: tuple[int, int] | None,
        width: int,
        n_outputs: int,
        covariates: int = 0,
    ) -> None:
        super().__init__()
        self.resize = Resize(size)
        self.net = net
        self.pictures = tuple(pictures)
        self.covariates = Covariates(covariates) if covariates else None
        self.head = nn.Linear(width * len(pictures) + covariates, n_outputs)

    def forward(self, x: torch.Tensor, covariates: torch.Tensor | None = None) -> torch.Tensor:
        pictures = [self.resize(x[..., part]) for part in self.pictures]
        if len({picture.shape for picture in pictures}) == 1:  # one batch: faster, and one statistic of batch norm
            features = [*self.net(torch.cat(pictures)).chunk(len(pictures))]
        else:
            features = [self.net(picture) for picture in pictures]
        if self.covariates is not None:
            features.append(self.covariates(covariates))
        return self.head(torch.cat(features, dim=1))

    def get_classifier(self) -> nn.Module:
        """Return the head."""
        return self.head

    def group_matcher(self, coarse: bool = False) -> Patterns:
        """Return timm's patterns of parameter names."""
        return below("net", self.net.group_matcher(coarse=coarse))

    def no_weight_decay(self) -> set[str]:
        """Return the names of what the network exempts from weight decay."""
        return exempt("net", self.net)
