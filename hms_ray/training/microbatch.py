"""The gradient of a batch's mean loss: of all rows at once, or in parts that add up to the same where memory is short.

Batch norm sees the parts: there the result depends on their size. In float16 small gradients would become 0: the loss
is multiplied by a scale before the backward pass, and the gradient divided by it. A scale that is too large makes the
gradient infinite; then the step is skipped and the scale halved.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hms_ray.augment._compose import Batch
from hms_ray.training import memory
from hms_ray.training.distributed import Replica
from hms_ray.training.precision import autocast

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # logits and targets (B, K) -> each example's loss (B,)


class Gradient:
    """Computes gradients of a network; `rows` go through it at a time, fewer once the device ran out of memory.

    loss: may be replaced by another from stage to stage
    precision: in which the network computes; gradients of float16 are scaled until `step` takes them
    """

    def __init__(
        self, network: nn.Module, loss: Loss, replica: Replica, rows: int, precision: torch.dtype = torch.float32
    ) -> None:
        self.network, self.loss, self.replica, self.rows = network, loss, replica, rows
        self.precision = precision
        self.scaler = torch.amp.GradScaler(replica.device.type, enabled=precision == torch.float16)
        self.shared = replica.team.wrap(network)

    def step(self, optimizer: torch.optim.Optimizer, largest: float) -> bool:
        """Take a step along the gradient, clipped to that norm, and return True; False: it is infinite, so no step.

        All workers of a team have the same gradient and the same scale, so they skip the same steps. Only float16
        skips: elsewhere an infinite gradient is no fault of a scale, and another one would not mend it.
        """
        scale = self.scaler.get_scale()
        self.scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(self.network.parameters(), largest)
        self.scaler.step(optimizer)
        self.scaler.update()
        return self.scaler.get_scale() >= scale

    @property
    def is_out_of_range(self) -> bool:
        """Whether gradients were infinite until they were scaled down: the network does not fit float16."""
        return self.scaler.get_scale() < 1

    def __call__(self, batch: Batch) -> torch.Tensor:
        """Leave the gradient in the parameters, the mean over the team's, and return this worker's loss.

        Raises:
            TrialFailed: the memory does not suffice for one row.
            torch.OutOfMemoryError: in a team, whose other workers then wait in the middle of sharing their gradients.
        """
        if self.replica.size > 1:
            return self._backward(self.shared, batch, self.rows)
        return self._fitted(batch, self._backward)

    def rehearse(self, batch: Batch) -> None:
        """Find how many rows fit before a team shares its first gradient; the network stays as it is.

        Raises:
            TrialFailed: on every worker, where one has not the memory for one row.
        """
        self.network.train()
        with self.replica.together(), _buffers_kept(self.network):
            self._fitted(batch, self._beside_optimizer)
        self.network.zero_grad(set_to_none=True)

    def _beside_optimizer(self, model: nn.Module, batch: Batch, rows: int) -> torch.Tensor:
        """Compute a gradient while as much memory is taken as Adam's state will be."""
        state = [torch.empty_like(p) for p in model.parameters() for _ in range(2)]
        loss = self._backward(model, batch, rows)
        del state
        return loss

    def _fitted(self, batch: Batch, backward: Callable[[nn.Module, Batch, int], torch.Tensor]) -> torch.Tensor:
        """Compute this worker's own gradient in as many parts as it takes."""
        rows = min(self.rows, len(batch.x))
        loss, fitted = memory.attempt(partial(backward, self.network, batch), rows, self.replica.device)
        if fitted < rows:
            self.rows = fitted
        return loss

    def _backward(self, model: nn.Module, batch: Batch, rows: int) -> torch.Tensor:
        self.network.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.replica.device)
        *first, last = _parts(batch, rows)
        for part in first:
            with _not_shared(model):
                total += self._add(model, part, len(batch.x))
        return total + self._add(model, last, len(batch.x))

    def _add(self, model: nn.Module, part: Batch, rows: int) -> torch.Tensor:
        """Add the gradient of a part's share in the mean over that many rows."""
        with autocast(self.replica.device, self.precision):
            logits = model(*part.inputs)
        loss = (part.weight * self.loss(logits.float(), part.y)).sum() / rows
        self.scaler.scale(loss).backward()
        return loss.detach()


def _parts(batch: Batch, rows: int) -> list[Batch]:
    """Cut a batch into parts of near-equal size, at most that many rows each."""
    count = -(-len(batch.x) // rows)
    names = ["x", "y", "weight"] + (["covariates"] if batch.covariates is not None else [])
    columns = (torch.tensor_split(getattr(batch, name), count) for name in names)
    return [Batch(spec=batch.spec, **dict(zip(names, part, strict=True))) for part in zip(*columns, strict=True)]


def _not_shared(model: nn.Module) -> AbstractContextManager[None]:
    """Let gradients add up without sharing them: workers may have more or fewer parts, but share once a batch."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    """Put back the statistics of batch norm afterwards."""
    before = [buffer.clone() for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, old in zip(model.buffers(), before, strict=True):
            buffer.copy_(old)
