"""The cross-entropy of outcomes, plain or focal, for the losses of all tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

SMALLEST = 1e-30  # lower bound of 1 - p: its powers and their derivatives are finite in float32


def cross_entropies(log_probs: torch.Tensor, targets: torch.Tensor, focal: float) -> torch.Tensor:
    """Return each outcome's term -target * log(p) of the cross-entropy, times (1 - p)^focal; all have the same shape.

    The last axis is a distribution. Where p rounds to 1, the gradient of the factor, infinite for 0 < focal < 1,
    is replaced by 0.
    """
    terms = -targets * log_probs
    if not focal:
        return terms
    rest = -log_probs.expm1()  # 1 - p, exact where p is small and where it is near 1
    return terms * rest.clamp_min(SMALLEST) ** focal
