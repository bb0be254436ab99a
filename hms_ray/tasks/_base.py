"""The base class of tasks: targets, probabilities, loss, a score (lower is better), and metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypedDict

import numpy as np
from scipy.special import entr, rel_entr

from hms_ray.core.errors import ConfigError, DataError
from hms_ray.tasks import _metrics
from hms_ray.tasks._metrics import Metrics

if TYPE_CHECKING:
    import torch

CLIP = 1e-15  # scores clip the probability of each outcome to [CLIP, 1 - CLIP], as the competition's metric does


class TaskDict(TypedDict):
    """A task in study.json."""

    kind: str
    classes: list[str]


@dataclass(frozen=True)
class Task(ABC):
    """Class names with their loss and score. N units, B batch, K classes."""

    classes: tuple[str, ...]
    min_classes: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if len(self.classes) < self.min_classes:
            count = f"{len(self.classes)}: {', '.join(self.classes) or 'none'}"
            raise ConfigError(
                f"the number of classes of a {self.kind} task must be {self.min_classes} or more; got {count}"
            )

    @property
    def kind(self) -> str:
        """The file name of the task, from which `tasks.from_dict` loads it."""
        return type(self).__module__.rsplit(".", 1)[-1]

    def to_dict(self) -> TaskDict:
        """Return the content of study.json."""
        return {"kind": self.kind, "classes": list(self.classes)}

    @property
    def asks_each_class(self) -> bool:
        """Whether each class is a yes-or-no question, so that several classes may hold for a unit."""
        probs = np.zeros((1, len(self.classes)))
        return self.outcomes(probs).ndim > probs.ndim

    @abstractmethod
    def loss(
        self, logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None, focal: float = 0.0
    ) -> torch.Tensor:
        """Return the training loss of each example, (B, K) and (B, K) -> (B,), in float32.

        weights: weight of each outcome, in the shape of one unit's outcomes; None: equal weights
        focal: gamma of the focal loss of Lin et al. (2017): each outcome's cross-entropy is multiplied by
            (1 - its probability)^gamma, which reduces the weight of good predictions; 0: no focal loss
        """

    @abstractmethod
    def to_probs(self, logits: np.ndarray) -> np.ndarray:
        """Return float64 probabilities (N, K) from logits (N, K)."""

    @abstractmethod
    def outcomes(self, probs: np.ndarray) -> np.ndarray:
        """Return the distributions of targets or probabilities (..., K); the last axis sums to 1.

        Several questions of a unit are on the axis before the last. The score is the mean cross-entropy over units and
        questions, less the entropy of the targets; an ensemble is fitted to it.
        """

    @abstractmethod
    def from_outcomes(self, outcomes: np.ndarray) -> np.ndarray:
        """Return probabilities (..., K), the inverse of `outcomes`."""

    @abstractmethod
    def row_scores(self, targets: np.ndarray, probs: np.ndarray) -> np.ndarray:
        """Return each unit's score, (N, K) and (N, K) -> (N,); lower is better."""

    @abstractmethod
    def decide(self, rows: np.ndarray, thresholds: np.ndarray | None = None) -> np.ndarray:
        """Return the classes of each row of targets or probabilities (N, K), bool (N, K).

        thresholds: (K,) as returned by `thresholds`, or (N, K), for each row those of its fold; None: one half, or if
            decisions need no threshold
        """

    @abstractmethod
    def confusion(self, targets: np.ndarray, probs: np.ndarray, thresholds: np.ndarray | None = None) -> np.ndarray:
        """Return counts of true by predicted decisions, (K, K), or (K, 2, 2) for K questions.

        thresholds: for the predictions, as in `decide`
        """

    @abstractmethod
    def prior(self, targets: np.ndarray) -> np.ndarray:
        """Return the constant prediction (K,) that scores best on these targets."""

    @abstractmethod
    def invalid_rows(self, rows: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return for each rule, such as "must be finite", which of the rows (N, K) violate it, bool (N,)."""

    def check_targets(self, targets: np.ndarray, name: str) -> None:
        """Raise DataError, with `name` and the first bad row, unless targets are valid rows (N, K)."""
        self._check(targets, f"{name}: targets")

    def check_probs(self, probs: np.ndarray, name: str) -> None:
        """Raise DataError, with `name` and the first bad row, unless probs are valid rows (N, K)."""
        self._check(probs, f"{name}: predictions")

    def balance(self, targets: np.ndarray) -> np.ndarray:
        """Return weights for `loss` that give the outcomes of a question equal total weight.

        targets (N, K) -> the shape of one unit's outcomes. A weight is 1 / (share * number of outcomes), so that the
        mean weight of a target is 1. An outcome that no target has gets 0 and is not counted.
        """
        shares = self.outcomes(targets).mean(0)
        present = shares > 0
        counts = present.sum(-1, keepdims=True)
        return np.divide(1, shares * counts, out=np.zeros_like(shares, np.float64), where=present)

    def thresholds(self, targets: np.ndarray, probs: np.ndarray) -> np.ndarray | None:
        """Return the best threshold (K,) of each class on these rows.

        None if decisions need no threshold, because the most probable class is predicted.
        """
        return None

    def smoothed(self, targets: np.ndarray, votes: np.ndarray, added: float) -> np.ndarray:
        """Return targets (N, K) after `added` more votes for each outcome of each question; votes (N,): counts."""
        outcomes = self.outcomes(targets)
        counts = outcomes * votes.reshape(-1, *[1] * (outcomes.ndim - 1)) + added
        return self.from_outcomes(counts / counts.sum(-1, keepdims=True))

    def score(self, targets: np.ndarray, probs: np.ndarray) -> float:
        """Return the mean score over units."""
        return float(self.row_scores(targets, probs).mean())

    def metrics(self, targets: np.ndarray, probs: np.ndarray, thresholds: np.ndarray | None = None) -> Metrics:
        """Return the metrics of predictions, (N, K) and (N, K); N is at least 1.

        thresholds: for the predictions, as in `decide`
        """
        assert len(targets), "metrics need a unit"
        score, outcomes = self.score(targets, probs), self.outcomes(targets)
        truth, predicted = self.decide(targets), self.decide(probs, thresholds)
        tied = np.isclose(outcomes, outcomes.max(-1, keepdims=True)).sum(-1) > 1  # (N,), or (N, K) for questions
        return Metrics(
            classes=self.classes,
            units=len(targets),
            ties=int(tied.reshape(len(targets), -1).any(-1).sum()),
            score=score,
            log_loss=score + float(entr(outcomes).sum(-1).mean()),
            confusion=self.confusion(targets, probs, thresholds),
            class_calibration=_metrics.calibration_errors(targets, probs),
            auroc=_metrics.aurocs(truth, probs),
            **_metrics.one_against_rest(truth, predicted),
            micro_f1=_metrics.micro_f1(truth, predicted),
        )

    def _divergences(self, targets: np.ndarray, probs: np.ndarray) -> np.ndarray:
        """Return KL(targets || probs) of each question; predictions are clipped, outcomes with target 0 count 0."""
        return rel_entr(self.outcomes(targets), np.clip(self.outcomes(probs), CLIP, 1 - CLIP)).sum(-1)

    def _check(self, rows: np.ndarray, name: str) -> None:
        if rows.shape[1:] != (len(self.classes),):
            columns = f"one column for each class ({', '.join(self.classes)})"
            raise DataError(f"{name} must have {columns}; their shape is {rows.shape}")
        for rule, bad in self.invalid_rows(rows).items():
            if bad.any():
                i = int(np.flatnonzero(bad)[0])
                values = ", ".join(f"{v:.6g}" for v in rows[i])
                raise DataError(f"{name} {rule} in each row; {int(bad.sum())} do not, the first is row {i}: [{values}]")
