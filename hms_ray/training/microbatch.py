"""Parts of a batch whose gradients add up to the gradient of its mean loss, for where memory is short.

Batch norm sees the parts: there the result depends on their size.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hms_ray.augment._compose import Batch

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # logits and targets (B, K) -> each example's loss (B,)


def split(batch: Batch, rows: int) -> list[Batch]:
    """Split a batch into parts of near-equal size, at most that many rows each."""
    count = -(-len(batch.x) // rows)
    names = ["x", "y", "weight"] + (["covariates"] if batch.covariates is not None else [])
    columns = (torch.tensor_split(getattr(batch, name), count) for name in names)
    return [Batch(spec=batch.spec, **dict(zip(names, part, strict=True))) for part in zip(*columns, strict=True)]


def synced(network: nn.Module, is_last: bool) -> AbstractContextManager[None]:
    """Average gradients over the workers with the last part only: workers may have more or fewer parts."""
    if isinstance(network, DistributedDataParallel) and not is_last:
        context: AbstractContextManager[None] = network.no_sync()
        return context
    return nullcontext()


@contextmanager
def buffers_kept(network: nn.Module) -> Iterator[None]:
    """Restore the statistics of batch norm afterwards."""
    before = [buffer.clone() for buffer in network.buffers()]
    try:
        yield
    finally:
        for buffer, old in zip(network.buffers(), before, strict=True):
            buffer.copy_(old)
