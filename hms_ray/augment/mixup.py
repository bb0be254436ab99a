"""Mixup: blend each example and its target with another of the batch (Zhang et al., 2018, arXiv:1710.09412)."""

from dataclasses import replace

import numpy as np
import torch
from pydantic import Field

from hms_ray.augment._compose import Batch, put, select
from hms_ray.core.params import Params as Strict


class Params(Strict):
    """How often and how strongly."""

    p: float = Field(0.5, ge=0, le=1, description="share of the rows that are mixed")
    alpha: float = Field(0.4, gt=0, le=10, description="both parameters of the Beta law of the share kept")


def apply(batch: Batch, rng: np.random.Generator, params: Params) -> Batch:
    """Blend x, what is beside it, y and the loss weight with those of a partner row."""
    partner = rng.permutation(len(batch.x))
    given = np.where(rng.random(len(partner)) < params.p, 1 - rng.beta(params.alpha, params.alpha, len(partner)), 0.0)
    rows = np.flatnonzero(given)
    if len(rows) == 0:
        return batch

    def blend(values: torch.Tensor) -> torch.Tensor:
        share = torch.from_numpy(given[rows]).to(values).view(-1, *[1] * (values.ndim - 1))
        return torch.lerp(select(values, rows), select(values, partner[rows]), share)

    def blended(values: torch.Tensor) -> torch.Tensor:
        values, new = values.clone(), blend(values)
        values[rows] = new
        return values

    covariates = None if batch.covariates is None else blended(batch.covariates)
    mixed = put(batch, rows, blend(batch.x))
    return replace(mixed, y=blended(batch.y), weight=blended(batch.weight), covariates=covariates)
