"""Votes of experts over classes: softmax outputs and the Kullback-Leibler divergence, as the competition scores it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import softmax

from hms_ray.tasks import _base, _loss, _metrics

if TYPE_CHECKING:
    import torch

SUM_TOLERANCE = 1e-3  # more than rounding in float16 and CSV, less than the effect of a missing softmax


class Task(_base.Task):
    """Targets are vote shares (N, K) whose rows sum to 1; the score is mean KL(votes || prediction)."""

    min_classes = 2  # the softmax of one class is always 1

    def loss(
        self, logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None, focal: float = 0.0
    ) -> torch.Tensor:
        """KL(targets || softmax(logits)) of each example, in float32: half precision would take the log of 0.

        weights (K,): of the terms of the sum; `focal` does not change the targets' entropy, which is constant.
        """
        import torch  # imported here: the ensemble and the report use tasks without torch

        targets = targets.float()
        terms = _loss.cross_entropies(torch.log_softmax(logits.float(), dim=-1), targets, focal)
        terms = torch.special.xlogy(targets, targets) + terms  # (B, K)
        return (terms if weights is None else terms * weights.float()).sum(-1)  # (B,)

    def to_probs(self, logits: np.ndarray) -> np.ndarray:
        """Softmax in float64."""
        return softmax(np.asarray(logits, dtype=np.float64), axis=-1)

    def outcomes(self, probs: np.ndarray) -> np.ndarray:
        """Each row is a distribution over the classes: (..., K) -> (..., K)."""
        return probs

    def from_outcomes(self, outcomes: np.ndarray) -> np.ndarray:
        """(..., K) -> (..., K)."""
        return outcomes

    def row_scores(self, targets: np.ndarray, probs: np.ndarray) -> np.ndarray:
        """KL of each row."""
        return self._divergences(targets, probs)

    def decide(self, rows: np.ndarray, thresholds: np.ndarray | None = None) -> np.ndarray:
        """The class with the largest share, the first one of a tie."""
        assert thresholds is None, "the largest share needs no threshold"
        return np.arange(len(self.classes)) == rows.argmax(-1)[:, None]

    def confusion(self, targets: np.ndarray, probs: np.ndarray, thresholds: np.ndarray | None = None) -> np.ndarray:
        """Return counts (K, K): rows are the class with most votes, columns the most probable class."""
        truth, predicted = self.decide(targets).argmax(-1), self.decide(probs, thresholds).argmax(-1)
        return _metrics.confusion(truth, predicted, len(self.classes))

    def prior(self, targets: np.ndarray) -> np.ndarray:
        """The mean vote share of each class, which minimises the mean KL among constants."""
        return targets.mean(0)

    def invalid_rows(self, rows: np.ndarray) -> Mapping[str, np.ndarray]:
        """Finite values that are not negative and sum to 1."""
        return {
            "must be finite": ~np.isfinite(rows).all(-1),
            "must not be negative": (rows < 0).any(-1),
            "must sum to 1": np.abs(rows.sum(-1) - 1) > SUM_TOLERANCE,
        }
