"""How a network sees an image: at a size of its own, and as one image or picture by picture."""

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
    """Images (B, C, F, T) at another size (F, T), smoothed where they shrink; None leaves them as they come."""

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
    """A network of timm that sees images (B, C, F, T) at another size."""

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
    """One headless network of timm sees each picture; a linear head joins what it found -> logits (B, K).

    pictures: where along T each picture lies; a whole image is one
    covariates: how many numbers are given beside x, which go to the head as they are
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
        found = self._features([self.resize(x[..., part]) for part in self.pictures])
        if self.covariates is not None:
            found = [*found, self.covariates(covariates)]
        return self.head(torch.cat(list(found), dim=1))

    def _features(self, seen: list[torch.Tensor]) -> Sequence[torch.Tensor]:
        """Pictures of one size make one batch: faster, and batch norm learns from what it will be used on."""
        if len({picture.shape for picture in seen}) == 1:
            return self.net(torch.cat(seen)).chunk(len(seen))
        return [self.net(picture) for picture in seen]

    def get_classifier(self) -> nn.Module:
        """Return the head."""
        return self.head

    def group_matcher(self, coarse: bool = False) -> Patterns:
        """Return timm's patterns of parameter names."""
        return below("net", self.net.group_matcher(coarse=coarse))

    def no_weight_decay(self) -> set[str]:
        """Return the names of what the network exempts from weight decay."""
        return exempt("net", self.net)
