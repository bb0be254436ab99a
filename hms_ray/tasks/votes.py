"""Votes of experts over classes: softmax outputs and the Kullback-Leibler divergence, as the competition scores it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import softmax

from hms_ray.tasks import _base, _loss, _metrics

if TYPE_CHECKING:
    import torch

SUM_TOLERANCE = 1e-3  # float16 and CSV round-offs pass, a forgotten softmax does not


class Task(_base.Task):
    """Targets are vote shares (N, K) whose rows sum to 1; the score is mean KL(votes || prediction)."""

    fewest = 2  # of one class the softmax is 1 whatever the model says

    def loss(
        self, logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None, focal: float = 0.0
    ) -> torch.Tensor:
        """KL(targets || softmax(logits)) of each example; float32, since half precision takes the log of 0.

        weights (K,) are of the terms of its sum; `focal` leaves the targets' own entropy, a constant, as it is.
        """
        import torch  # here and not above: the ensemble and the report use tasks without torch

        targets = targets.float()
        terms = _loss.cross_entropies(torch.log_softmax(logits.float(), dim=-1), targets, focal)
        terms = torch.special.xlogy(targets, targets) + terms  # (B, K)
        return (terms if weights is None else terms * weights.float()).sum(-1)  # (B,)

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
        """KL of each row."""
        return self._divergences(targets, probs)

    def decide(self, rows: np.ndarray, thresholds: np.ndarray | None = None) -> np.ndarray:
        """Each row stands for the class with the largest share, the first of several that tie."""
        assert thresholds is None, "the largest share is no matter of a threshold"
        return np.arange(len(self.classes)) == rows.argmax(-1)[:, None]

    def confusion(self, targets: np.ndarray, probs: np.ndarray, thresholds: np.ndarray | None = None) -> np.ndarray:
        """Return counts (K, K): rows are the class with most votes, columns the most probable class."""
        truth, predicted = self.decide(targets).argmax(-1), self.decide(probs, thresholds).argmax(-1)
        return _metrics.confusion(truth, predicted, len(self.classes))

    def prior(self, targets: np.ndarray) -> np.ndarray:
        """The mean vote share of each class, which minimises the mean KL among constants."""
        return targets.mean(0)

    def check_targets(self, targets: np.ndarray, what: str) -> None:
        """Shares must be finite, not negative, and sum to 1."""
        self._check(targets, f"{what}: targets")

    def check_probs(self, probs: np.ndarray, what: str) -> None:
        """Probabilities must be finite, not negative, and sum to 1."""
        self._check(probs, f"{what}: predictions")

    def _check(self, rows: np.ndarray, what: str) -> None:
        faults = {
            "must be finite": ~np.isfinite(rows).all(-1),
            "must not be negative": (rows < 0).any(-1),
            "must sum to 1": np.abs(rows.sum(-1) - 1) > SUM_TOLERANCE,
        }
        self._refuse_rows(rows, what, faults)
