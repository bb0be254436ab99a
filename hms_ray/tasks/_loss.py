"""What the losses of all tasks share: the cross-entropy of outcomes, plain or focal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

SMALLEST = 1e-30  # of 1 - p: its powers, and their derivatives, are numbers of float32 all the same


def cross_entropies(log_probs: torch.Tensor, targets: torch.Tensor, focal: float) -> torch.Tensor:
    """Return each outcome's term -target * log(p) of the cross-entropy, times (1 - p)^focal; all of one shape.

    The last axis is a distribution. Where p rounds to 1 the factor's own gradient, infinite for 0 < focal < 1, is
    taken as 0.
    """
    terms = -targets * log_probs
    if not focal:
        return terms
    rest = -log_probs.expm1()  # 1 - p, exact where p is small and where it is near 1
    return terms * rest.clamp_min(SMALLEST) ** focal
