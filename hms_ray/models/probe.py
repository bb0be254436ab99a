"""A probe on embeddings: weights of layers, pooling over time, and a head; it trains in seconds.

Like the probes of SUPERB on frozen encoders (Yang et al. 2021, arXiv:2105.01051).
"""

from typing import Literal

import torch
from pydantic import Field
from torch import nn

from hms_ray.core.params import Params as Strict
from hms_ray.core.specs import InputSpec
from hms_ray.models._frames import FramePool, LayerMix, Pool
from hms_ray.models._heads import Classifier

LAYOUT = "embedding"


class Params(Strict):
    """Pooling of the embedding, and the head."""

    pool: Pool = Field("mean", description="pooling over time: mean, or attention with learned weights")
    standardise: Literal["batch", "layer", "none"] = Field(
        "batch",
        description="batch: each feature by its mean and deviation over the training data; layer: each vector by its "
        "own; none: unchanged",
    )
    hidden: int = Field(0, ge=0, le=4096, description="width of a hidden layer of the head, with batch norm; 0: none")
    drop_rate: float = Field(0.1, ge=0, lt=1, description="dropout before the head, and after its hidden layer")


class Probe(nn.Module):
    """Embeddings (B, L, T, D) -> vectors (B, D): a weighted mean of layers, pooled over time, standardised."""

    def __init__(self, spec: InputSpec, params: Params) -> None:
        super().__init__()
        layers, _, width = spec.shape
        self.mix = LayerMix(layers) if layers > 1 else None
        self.pool = FramePool(width, params.pool)
        self.norm: nn.Module = nn.Identity()
        if params.standardise == "batch":
            self.norm = nn.BatchNorm1d(width, affine=False)
        elif params.standardise == "layer":
            self.norm = nn.LayerNorm(width, elementwise_affine=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        layers = x.unbind(1)
        return self.norm(self.pool(layers[0] if self.mix is None else self.mix(layers)))


def build(spec: InputSpec, n_outputs: int, params: Params) -> nn.Module:
    """Return the probe; for layer-wise learning rates all of it is the last layer."""
    return Classifier(
        Probe(spec, params), spec.shape[-1], n_outputs, params.drop_rate, {}, len(spec.covariates), params.hidden
    )
