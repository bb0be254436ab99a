"""Same-class CutMix: paste a strip of time from another example of the same class.

CutMix (Yun et al., 2019, arXiv:1905.04899) between rows that agree, and along time only: a strip has all frequencies
and all channels, for that is what a few seconds of another recording would be.
"""

from dataclasses import replace

import numpy as np
import torch
from pydantic import Field, model_validator

from hms_ray.augment._compose import Batch, need, need_signal
from hms_ray.core.params import Params as Strict
from hms_ray.core.specs import InputSpec

CLEAR = 0.5  # the share of its strongest class from which on a row belongs to that class


class Params(Strict):
    """How often and how wide."""

    p: float = Field(0.4, ge=0, le=1, description="share of the batches that are mixed, each as a whole")
    low: float = Field(25 / 300, gt=0, le=1, description="the narrowest strip's share of the time")
    high: float = Field(75 / 300, gt=0, le=1, description="the widest strip's share of the time")

    @model_validator(mode="after")
    def _low_to_high(self) -> "Params":
        if self.low > self.high:
            raise ValueError("low must not be above high")
        return self


def apply(batch: Batch, rng: np.random.Generator, params: Params) -> Batch:
    """Paste into rows (C, F, T) or (C, T) one strip of time a picture, of a partner whose strongest class is the same.

    A row's target and loss weight become its own and its partner's averaged by the strips' share of T. A row stays as
    it is when no class has half of its target, or when no other row has its class.
    """
    need_signal(batch.spec, "same_class_cutmix")
    need(
        batch.y.shape[1] > 1, "same_class_cutmix", "several classes; of one label, only who has it would find a partner"
    )
    if rng.random() >= params.p:
        return batch
    device, rows = batch.x.device, len(batch.x)
    partner = _partners(batch.y, torch.from_numpy(rng.permutation(rows)).to(device))
    strips = _strips(rng, rows, batch.spec, params)
    share = torch.from_numpy(strips.mean(1)).to(batch.y)
    pasted = torch.from_numpy(strips).to(device).view(rows, *[1] * (batch.x.ndim - 2), -1)
    return replace(
        batch,
        x=torch.where(pasted, batch.x[partner], batch.x),
        y=batch.y.lerp(batch.y[partner], share[:, None]),
        weight=batch.weight.lerp(batch.weight[partner], share.to(batch.weight)),
        owned=True,
    )


def _partners(y: torch.Tensor, shuffle: torch.Tensor) -> torch.Tensor:
    """Return for each row the next of its class (B,) in a shuffled order, the first after the last; or itself.

    All on the device: to look at the targets on the CPU would make it wait for them.
    """
    place = torch.arange(len(y), device=y.device)
    share, label = y[shuffle].max(1)
    label, order = torch.where(share >= CLEAR, label, y.shape[1] + place).sort(stable=True)  # the unclear are alone
    first, last = torch.searchsorted(label, label), torch.searchsorted(label, label, right=True) - 1
    rows = shuffle[order]
    return torch.empty_like(rows).index_copy(0, rows, rows[torch.where(place == last, first, place + 1)])


def _strips(rng: np.random.Generator, rows: int, spec: InputSpec, params: Params) -> np.ndarray:
    """Return (rows, T), true inside one strip a picture: of the same share in all of them, each somewhere else."""
    share, strips = rng.uniform(params.low, params.high, (rows, 1)), []
    for picture in spec.pictures:
        length = picture.stop - picture.start
        width = np.maximum(1, np.rint(share * length).astype(int))
        start, place = rng.integers(0, length - width + 1), np.arange(length)
        strips.append((place >= start) & (place < start + width))
    return np.concatenate(strips, 1)
