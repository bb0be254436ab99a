"""Mixup: blend each example and its target with another of the batch (Zhang et al., 2018, arXiv:1710.09412)."""

from dataclasses import replace

import numpy as np
import torch
from pydantic import Field

from hms_ray.augment._compose import Batch
from hms_ray.params import Params as Strict


class Params(Strict):
    """How often and how strongly."""

    p: float = Field(0.5, ge=0, le=1, description="share of the rows that are mixed")
    alpha: float = Field(0.4, gt=0, le=10, description="both parameters of the Beta law of the share kept")


def apply(batch: Batch, rng: np.random.Generator, params: Params) -> Batch:
    """Blend x, y and the loss weight with those of a partner row."""
    rows = len(batch.x)
    partner = torch.from_numpy(rng.permutation(rows)).to(batch.x.device)
    share = np.where(rng.random(rows) < params.p, rng.beta(params.alpha, params.alpha, rows), 1.0)
    if (share == 1).all():
        return batch
    share = torch.from_numpy(share).to(batch.x)  # (B,), what each row keeps of itself

    def blend(values: torch.Tensor) -> torch.Tensor:
        given = (1 - share).to(values.dtype).view(-1, *[1] * (values.ndim - 1))
        return torch.lerp(values, values.index_select(0, partner), given)

    return replace(batch, x=blend(batch.x), y=blend(batch.y), weight=blend(batch.weight))
