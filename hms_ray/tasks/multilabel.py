"""Several labels per unit: sigmoid outputs and the log loss, one yes-or-no question for each label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

from hms_ray.tasks import _base, _loss, _metrics

if TYPE_CHECKING:
    import torch

HALF = 0.5


class Task(_base.Task):
    """Targets (N, K) are 0, 1 or soft labels between; the score is the log loss, mean over units and labels.

    For soft labels it is KL(label || prediction), the log loss less the label's entropy, so that a perfect prediction
    scores 0.
    """

    def loss(
        self, logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None, focal: float = 0.0
    ) -> torch.Tensor:
        """Binary cross-entropy of each example, mean over labels, in float32: half precision would take the log of 0.

        weights (K, 2): weight of a label that holds, and of one that does not.
        """
        import torch  # imported here: the ensemble and the report use tasks without torch

        logits, held = logits.float(), targets.float()
        log_outcomes = torch.nn.functional.logsigmoid(torch.stack([logits, -logits], dim=-1))  # (B, K, 2)
        terms = _loss.cross_entropies(log_outcomes, torch.stack([held, 1 - held], dim=-1), focal)
        return (terms if weights is None else terms * weights.float()).sum(-1).mean(-1)  # (B,)

    def to_probs(self, logits: np.ndarray) -> np.ndarray:
        """Sigmoid in float64."""
        return expit(np.asarray(logits, dtype=np.float64))

    def outcomes(self, probs: np.ndarray) -> np.ndarray:
        """Whether each label holds or not: (..., K) -> (..., K, 2), float64."""
        held = np.asarray(probs, dtype=np.float64)
        return np.stack([held, 1 - held], axis=-1)

    def from_outcomes(self, outcomes: np.ndarray) -> np.ndarray:
        """(..., K, 2) -> (..., K)."""
        return outcomes[..., 0]

    def row_scores(self, targets: np.ndarray, probs: np.ndarray) -> np.ndarray:
        """KL of each label, mean over the labels of a unit; for labels of 0 and 1 this is the log loss."""
        return self._divergences(targets, probs).mean(-1)

    def decide(self, rows: np.ndarray, thresholds: np.ndarray | None = None) -> np.ndarray:
        """A label above its threshold holds; the default threshold is one half."""
        return rows > (HALF if thresholds is None else thresholds)

    def thresholds(self, targets: np.ndarray, probs: np.ndarray) -> np.ndarray:
        """Return the threshold (K,) of each label with the largest F1 on these rows, as `_metrics.threshold` does."""
        columns = zip(self.decide(targets).T, probs.T, strict=True)
        return np.array([_metrics.threshold(truth, column, HALF) for truth, column in columns])

    def confusion(self, targets: np.ndarray, probs: np.ndarray, thresholds: np.ndarray | None = None) -> np.ndarray:
        """Return counts (K, 2, 2), a table for each label: rows are the truth, columns the prediction."""
        columns = zip(self.decide(targets).T, self.decide(probs, thresholds).T, strict=True)
        return np.stack([_metrics.confusion(truth, predicted, 2) for truth, predicted in columns])

    def prior(self, targets: np.ndarray) -> np.ndarray:
        """The share of units with each label, which minimises the mean log loss among constants."""
        return targets.mean(0)

    def invalid_rows(self, rows: np.ndarray) -> Mapping[str, np.ndarray]:
        """Finite values within [0, 1]; predictions need not sum to 1."""
        return {
            "must be finite": ~np.isfinite(rows).all(-1),
            "must be within [0, 1]": ((rows < 0) | (rows > 1)).any(-1),
        }
