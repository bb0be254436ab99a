"""Votes of experts over classes: softmax outputs and the Kullback-Leibler divergence, as the competition scores it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import rel_entr, softmax

from hms_ray.errors import DataError
from hms_ray.tasks import _base
from hms_ray.tasks._base import CLIP

if TYPE_CHECKING:
    import torch

SUM_TOLERANCE = 1e-3  # float16 and CSV round-offs pass, a forgotten softmax does not


class Task(_base.Task):
    """Targets are vote shares (N, K) whose rows sum to 1; the score is mean KL(votes || prediction)."""

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """KL(targets || softmax(logits)) of each example; float32, since half precision takes the log of 0."""
        import torch  # here and not above: the ensemble and the report use tasks without torch

        log_probs = torch.log_softmax(logits.float(), dim=-1)
        targets = targets.float()
        return (torch.special.xlogy(targets, targets) - targets * log_probs).sum(-1)  # (B,)

    def to_probs(self, logits: np.ndarray) -> np.ndarray:
        """Softmax in float64."""
        return softmax(np.asarray(logits, dtype=np.float64), axis=-1)

    def outcomes(self, probs: np.ndarray) -> np.ndarray:
        """Each row is one distribution over the classes already: (..., K) -> (..., K)."""
        return probs

    def from_outcomes(self, outcomes: np.ndarray) -> np.ndarray:
        """(..., K) -> (..., K)."""
        return outcomes

    def row_scores(self, targets: np.ndarray, probs: np.ndarray) -> np.ndarray:
        """KL of each row: predictions clipped, terms with a zero target count 0."""
        return rel_entr(targets, np.clip(probs, CLIP, 1 - CLIP)).sum(-1)

    def prior(self, targets: np.ndarray) -> np.ndarray:
        """The mean vote share of each class, which minimises the mean KL among constants."""
        return targets.mean(0)

    def check_targets(self, targets: np.ndarray, what: str) -> None:
        """Shares must be finite, not negative, and sum to 1."""
        _check_simplex(targets, f"{what}: targets")

    def check_probs(self, probs: np.ndarray, what: str) -> None:
        """Probabilities must be finite, not negative, and sum to 1."""
        _check_simplex(probs, f"{what}: predictions")


def _check_simplex(rows: np.ndarray, what: str) -> None:
    for bad, rule in (
        (~np.isfinite(rows).all(-1), "must be finite"),
        ((rows < 0).any(-1), "must not be negative"),
        (np.abs(rows.sum(-1) - 1) > SUM_TOLERANCE, "must sum to 1"),
    ):
        if bad.any():
            i = int(np.flatnonzero(bad)[0])
            values = ", ".join(f"{v:.6g}" for v in rows[i])
            raise DataError(f"{what} {rule} in each row; {int(bad.sum())} do not, the first is row {i}: [{values}]")
