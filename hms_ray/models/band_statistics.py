"""Statistics over time of each band of an image, and a small head: trains fastest, and ignores the order in time."""

import torch
from pydantic import Field
from torch import nn

from hms_ray.core.params import Params as Strict
from hms_ray.core.specs import InputSpec
from hms_ray.models._heads import Classifier

LAYOUT = "image"
SHARES = (0.1, 0.5, 0.9)  # the percentiles


class Params(Strict):
    """Parameters of the head."""

    hidden: int = Field(128, ge=0, le=4096, description="width of the head's hidden layer; 0: a linear head")
    drop_rate: float = Field(0.3, ge=0, lt=1, description="dropout before the head and within it")


def build(spec: InputSpec, n_outputs: int, params: Params) -> nn.Module:
    """Return the statistics, each standardised over the batch, then a head."""
    body = Statistics(spec.shape[0] * spec.shape[1])
    return Classifier(
        body, body.size, n_outputs, params.drop_rate, {"stem": r"norm"}, len(spec.covariates), params.hidden
    )


class Statistics(nn.Module):
    """Images (B, C, F, T) -> features (B, 6 C F): statistics of each of the C F bands.

    They are mean, deviation, percentiles, and the deviation of the differences of neighbouring columns.
    """

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.size = (3 + len(SHARES)) * bands
        self.norm = nn.BatchNorm1d(self.size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bands = x.flatten(1, 2)  # (B, C F, T)
        ordered, last = bands.sort(-1).values, bands.shape[-1] - 1
        percentiles = [ordered[..., round(share * last)] for share in SHARES]
        features = [bands.mean(-1), _deviation(bands), *percentiles, _deviation(bands.diff(dim=-1))]
        return self.norm(torch.cat(features, 1))


def _deviation(values: torch.Tensor) -> torch.Tensor:
    """Return the standard deviation over time, (..., T) -> (...); 1e-8 keeps the gradient of the root finite at 0."""
    return (values.var(-1, correction=0) + 1e-8).sqrt()
