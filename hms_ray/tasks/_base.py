"""The contract of a task: targets, probabilities, a score of which lower is better, and metrics beside it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from scipy.special import entr, rel_entr

from hms_ray.core.errors import ConfigError, DataError
from hms_ray.tasks import _metrics
from hms_ray.tasks._metrics import Metrics

if TYPE_CHECKING:
    import torch

CLIP = 1e-15  # scores clip the probability of each outcome to [CLIP, 1 - CLIP], as the competition's metric does


@dataclass(frozen=True)
class Task(ABC):
    """Class names with the loss and score that belong to them. N units, B batch, K classes."""

    classes: tuple[str, ...]
    fewest: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if len(self.classes) < self.fewest:
            given = f"{len(self.classes)}: {', '.join(self.classes) or 'none'}"
            raise ConfigError(f"the number of classes of a {self.kind} task must be {self.fewest} or more; got {given}")

    @property
    def kind(self) -> str:
        """The file name of the task, by which `tasks.from_dict` finds it again."""
        return type(self).__module__.rsplit(".", 1)[-1]

    def to_dict(self) -> dict[str, Any]:
        """Return what study.json keeps."""
        return {"kind": self.kind, "classes": list(self.classes)}

    @property
    def asks_each_class(self) -> bool:
        """Whether each class is a yes-or-no question, so that several may hold, and no class is the one predicted."""
        probs = np.zeros((1, len(self.classes)))
        return self.outcomes(probs).ndim > probs.ndim

    @abstractmethod
    def loss(
        self, logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None, focal: float = 0.0
    ) -> torch.Tensor:
        """Return the training loss of each example, (B, K) and (B, K) -> (B,), in float32.

        weights: what each outcome counts, in the shape of one unit's outcomes; None: all alike
        focal: gamma of the focal loss of Lin et al. (2017): each outcome's cross-entropy is multiplied by
            (1 - its probability)^gamma, so that what is predicted well already counts less; 0: it is not
        """

    @abstractmethod
    def to_probs(self, logits: np.ndarray) -> np.ndarray:
        """Return float64 probabilities (N, K) from logits (N, K)."""

    @abstractmethod
    def outcomes(self, probs: np.ndarray) -> np.ndarray:
        """Return the distributions that targets or probabilities (..., K) stand for; the last axis sums to 1.

        A task that asks several questions of a unit puts them on the axis before the last. The score is the mean
        cross-entropy over units and questions, less the entropy of the targets; so this is what an ensemble fits.
        """

    @abstractmethod
    def from_outcomes(self, outcomes: np.ndarray) -> np.ndarray:
        """Return probabilities (..., K), the inverse of `outcomes`."""

    @abstractmethod
    def row_scores(self, targets: np.ndarray, probs: np.ndarray) -> np.ndarray:
        """Return each unit's score, (N, K) and (N, K) -> (N,); lower is better."""

    @abstractmethod
    def decide(self, rows: np.ndarray, thresholds: np.ndarray | None = None) -> np.ndarray:
        """Return which classes each row of targets or probabilities (N, K) stands for, bool (N, K).

        thresholds: as `thresholds` returns them, or (N, K), a row's own, of folds that have each their own; None: one
            half, or where a decision is no matter of a threshold
        """

    @abstractmethod
    def confusion(self, targets: np.ndarray, probs: np.ndarray, thresholds: np.ndarray | None = None) -> np.ndarray:
        """Return counts of decisions, the true by the predicted, (K, K) or, of K questions, (K, 2, 2).

        thresholds: for the predictions, as in `decide`
        """

    @abstractmethod
    def prior(self, targets: np.ndarray) -> np.ndarray:
        """Return the constant prediction (K,) that scores best on these targets."""

    @abstractmethod
    def check_targets(self, targets: np.ndarray, what: str) -> None:
        """Raise DataError, naming `what` and the first bad row, unless targets (N, K) can be scored."""

    @abstractmethod
    def check_probs(self, probs: np.ndarray, what: str) -> None:
        """Raise DataError, naming `what` and the first bad row, unless probs (N, K) are probabilities."""

    def balance(self, targets: np.ndarray) -> np.ndarray:
        """Return weights for `loss` by which the outcomes of a question count alike, as if all were equally frequent.

        targets (N, K) -> the shape of one unit's outcomes. Each is 1 / (share * how many outcomes the question has), so
        that the mean weight of a target is 1. An outcome that no target has gets 0, and is not one of these.
        """
        shares = self.outcomes(targets).mean(0)
        seen = shares > 0
        return np.divide(1, shares * seen.sum(-1, keepdims=True), out=np.zeros_like(shares, np.float64), where=seen)

    def thresholds(self, targets: np.ndarray, probs: np.ndarray) -> np.ndarray | None:
        """Return the threshold (K,) of each class above which it is best said to hold, judged by these rows.

        None where a decision is no matter of a threshold: the most probable class is the one.
        """
        return None

    def smoothed(self, targets: np.ndarray, votes: np.ndarray, added: float) -> np.ndarray:
        """Return targets (N, K) after so many votes more for each outcome of each question; votes (N,): those there
        are."""
        outcomes = self.outcomes(targets)
        counts = outcomes * votes.reshape(-1, *[1] * (outcomes.ndim - 1)) + added
        return self.from_outcomes(counts / counts.sum(-1, keepdims=True))

    def score(self, targets: np.ndarray, probs: np.ndarray) -> float:
        """Return the mean score over units."""
        return float(self.row_scores(targets, probs).mean())

    def metrics(self, targets: np.ndarray, probs: np.ndarray, thresholds: np.ndarray | None = None) -> Metrics:
        """Return what else is to be said of predictions, (N, K) and (N, K); N is at least 1.

        thresholds: for the predictions, as in `decide`
        """
        assert len(targets), "metrics need a unit"
        score, outcomes = self.score(targets, probs), self.outcomes(targets)
        tied = np.isclose(outcomes, outcomes.max(-1, keepdims=True)).sum(-1) > 1  # (N,) or, of questions, (N, K)
        return Metrics(
            classes=self.classes,
            units=len(targets),
            ties=int(tied.reshape(len(targets), -1).any(-1).sum()),
            score=score,
            log_loss=score + float(entr(outcomes).sum(-1).mean()),
            confusion=self.confusion(targets, probs, thresholds),
            class_calibration=_metrics.calibration_errors(targets, probs),
            auroc=_metrics.aurocs(self.decide(targets), probs),
            **_metrics.one_against_rest(self.decide(targets), self.decide(probs, thresholds)),
        )

    def _divergences(self, targets: np.ndarray, probs: np.ndarray) -> np.ndarray:
        """Return KL(targets || probs) of each question; predictions are clipped, outcomes of target 0 count 0."""
        return rel_entr(self.outcomes(targets), np.clip(self.outcomes(probs), CLIP, 1 - CLIP)).sum(-1)

    def _refuse_rows(self, rows: np.ndarray, what: str, faults: Mapping[str, np.ndarray]) -> None:
        """Raise DataError unless rows are (N, K) and none is bad; faults: rule, as in "must be finite" -> bad (N,)."""
        if rows.shape[1:] != (len(self.classes),):
            columns = f"one column for each class ({', '.join(self.classes)})"
            raise DataError(f"{what} must have {columns}; their shape is {rows.shape}")
        for rule, bad in faults.items():
            if bad.any():
                i = int(np.flatnonzero(bad)[0])
                values = ", ".join(f"{v:.6g}" for v in rows[i])
                raise DataError(f"{what} {rule} in each row; {int(bad.sum())} do not, the first is row {i}: [{values}]")
