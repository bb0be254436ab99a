"""Generalised mean pooling in the place of timm's average pooling (Radenovic et al. 2018, arXiv:1711.02512)."""

import torch
from timm.layers import SelectAdaptivePool2d
from torch import nn


class GeM(nn.Module):
    """Feature maps -> (mean of x ** p) ** (1 / p) over their places; p is learned: 1 is the mean, infinity the maximum.

    Takes (B, C, F, T), or (B, F, T, C) with `dims` (1, 2). Returns (B, C), or with `keepdim` the places as 1 x 1.
    """

    def __init__(self, p: float = 3.0, dims: tuple[int, int] = (2, 3), keepdim: bool = False, eps: float = 1e-6):
        super().__init__()
        self.p = nn.Parameter(torch.full((1,), p))
        self.dims, self.keepdim, self.eps = dims, keepdim, eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.clamp(min=self.eps).pow(self.p).mean(self.dims, keepdim=self.keepdim).pow(1 / self.p)


def generalise(net: nn.Module) -> bool:
    """Put GeM wherever the network pools with timm's layer; return whether it does anywhere."""
    places = [
        (name, layer)
        for name, layer in net.named_modules()
        if isinstance(layer, SelectAdaptivePool2d) and layer.pool_type
    ]
    for name, layer in places:
        net.set_submodule(name, _instead_of(layer))
    return bool(places)


def _instead_of(layer: SelectAdaptivePool2d) -> GeM:
    dims = getattr(layer.pool, "dim", None)  # timm's own means know their axes, and flatten themselves
    flat = isinstance(layer.flatten, nn.Flatten) or bool(dims and layer.pool.flatten)
    return GeM(dims=dims or (2, 3), keepdim=not flat)
