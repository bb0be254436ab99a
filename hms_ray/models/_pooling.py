"""Generalised mean pooling instead of timm's average pooling (Radenovic et al. 2018, arXiv:1711.02512)."""

import torch
from timm.layers import SelectAdaptivePool2d
from torch import nn


class GeM(nn.Module):
    """(mean of x ** p) ** (1 / p) over positions of feature maps; p is learned: 1 is the mean, infinity the maximum.

    Takes (B, C, F, T), or (B, F, T, C) with `dims` (1, 2). Returns (B, C), or (B, C, 1, 1) with `keepdim`.
    """

    def __init__(self, p: float = 3.0, dims: tuple[int, int] = (2, 3), keepdim: bool = False, eps: float = 1e-6):
        super().__init__()
        self.p = nn.Parameter(torch.full((1,), p))
        self.dims, self.keepdim, self.eps = dims, keepdim, eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.clamp(min=self.eps).pow(self.p).mean(self.dims, keepdim=self.keepdim).pow(1 / self.p)


def generalise(net: nn.Module) -> bool:
    """Replace each pooling layer of timm in the network by GeM; return whether there was one."""
    modules = [(name, m) for name, m in net.named_modules() if isinstance(m, SelectAdaptivePool2d) and m.pool_type]
    for name, layer in modules:
        dims = getattr(layer.pool, "dim", None)  # timm's own mean layers know their axes, and flatten by themselves
        flat = isinstance(layer.flatten, nn.Flatten) or bool(dims and layer.pool.flatten)
        net.set_submodule(name, GeM(dims=dims or (2, 3), keepdim=not flat))
    return bool(modules)
