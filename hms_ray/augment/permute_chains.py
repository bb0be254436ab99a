"""Let whole chains of electrodes change places (after the shuffled channels of Saeed et al., 2020, arXiv:2010.13694).

A chain is the panels whose names share their first two letters: LL1 ... LL4 run from front to back, and stay in that
order. A class of the votes is told by what the chains show and hardly by which of them shows it.
"""

from functools import partial

import numpy as np
import torch
from pydantic import Field

from hms_ray.augment._compose import Batch, change_some, need, need_panels
from hms_ray.core.params import Params as Strict


class Params(Strict):
    """How often."""

    p: float = Field(0.5, ge=0, le=1, description="share of the rows whose chains are shuffled")


def apply(batch: Batch, rng: np.random.Generator, params: Params) -> Batch:
    """Shuffle the chains of rows (C, F, T) or (C, T); the midline stays."""
    panels = need_panels(batch.spec, "permute_chains", "a feature whose panels form chains")
    axis, chains = batch.spec.axis(panels.axis), _chains(panels.names)
    alike = len(chains) > 1 and len({len(chain) for chain in chains}) == 1
    need(alike, "permute_chains", "chains of equal length beside the midline, which single electrodes do not form")
    order = partial(_orders, rng, panels=len(panels.names), chains=np.array(chains))
    return change_some(batch, rng, params.p, lambda x: _placed(x, axis, order(rows=len(x))))


def _chains(names: tuple[str, ...]) -> list[list[int]]:
    """Return the panels of each chain but the midline's."""
    chains: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        if name[0] != "Z":
            chains.setdefault(name[:2], []).append(i)
    return list(chains.values())


def _orders(rng: np.random.Generator, rows: int, panels: int, chains: np.ndarray) -> np.ndarray:
    """Return (rows, panels): which panel comes to each place. chains: (chains, length)"""
    order = np.tile(np.arange(panels), (rows, 1))
    drawn = rng.permuted(np.tile(np.arange(len(chains)), (rows, 1)), axis=1)
    order[:, chains.ravel()] = chains[drawn].reshape(rows, -1)
    return order


def _placed(x: torch.Tensor, axis: int, order: np.ndarray) -> torch.Tensor:
    """Return x (n, *spec.shape) with the panels along an axis, of each row in its order (n, panels)."""
    blocks = x.unflatten(axis, (order.shape[1], -1))
    shape = [1] * blocks.ndim
    shape[0], shape[axis - 1] = order.shape
    return blocks.take_along_dim(torch.from_numpy(order).to(x.device).view(shape), axis - 1).reshape(x.shape)
