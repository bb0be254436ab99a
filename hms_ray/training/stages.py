"""Stages of training: first on everything, then on the rows that many experts saw. The weights carry over."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from hms_ray.core.errors import TrialFailed
from hms_ray.core.params import Params as Strict
from hms_ray.tasks import Task

WEIGHTS = {
    "none": lambda votes: np.ones(len(votes)),
    "linear": lambda votes: votes / 20,
    "log": lambda votes: np.log(votes + 1),
    "capped": lambda votes: np.minimum(votes, 10),
}
OF_THE_FIRST = ("lr", "schedule", "warmup")  # what a stage that continues another has of it


class LowVotes(Strict):
    """A curriculum: units with few votes count less and less."""

    below: int = Field(10, ge=2, description="units with fewer votes are concerned")
    start: float = Field(0.5, ge=0, le=1, description="factor of their loss weight in the stage's first epoch")
    end: float = Field(0.02, ge=0, le=1, description="and in its last")

    def factor(self, votes: np.ndarray, progress: float) -> np.ndarray:
        """Return the factor (N,) of each unit's loss weight; progress: 0 in the first epoch, 1 in the last."""
        return np.where(votes < self.below, self.start + (self.end - self.start) * progress, 1.0)


class Pseudo(Strict):
    """Labels of units with few votes, in part made by models that never saw the patient.

    The training patients are dealt into `parts`; a teacher for each is trained on the others by the stages before. No
    teacher sees the held-out fold either, so that its labels reach neither the network nor its score.
    """

    below: int = Field(10, ge=2, description="units with fewer votes are concerned")
    share: float = Field(0.5, gt=0, le=1, description="of the label that the teachers decide; the votes have the rest")
    parts: int = Field(2, ge=2, le=20, description="parts of the training patients, and teachers")


class EarlyStopping(Strict):
    """Patients that a stage sets aside of its training patients, and its end and rate that follow from their score.

    The held-out fold is never asked: a score that also decided when to stop would be flattered by it. A stage before
    this one has trained on these patients, unless it is the first; there the watched score begins too low.
    """

    share: float = Field(0.15, gt=0, lt=0.5, description="of the stage's patients, one at least, that are watched")
    patience: int = Field(3, ge=1, le=1000, description="evaluations without a better score to the next lower rate")
    factor: float = Field(0.5, gt=0, lt=1, description="of the rate that a plateau schedule keeps, each time")
    stop: int | None = Field(
        8,
        ge=1,
        le=1000,
        description="evaluations without a better score after which the stage ends early, its network back at its "
        "best; null: never. A stage that runs to its last epoch keeps the network of that epoch",
    )


class Stage(Strict):
    """One stage: which rows, for how long, how fast."""

    epochs: int = Field(ge=1, le=1000)
    lr: float | None = Field(None, gt=0, le=1, description="the schedule's largest learning rate")
    schedule: Literal["one_cycle", "cosine", "plateau"] = Field(
        "one_cycle",
        description="plateau: the largest rate after the warm-up, lowered while the score of `early_stopping` does not "
        "improve",
    )
    warmup: float = Field(0.25, ge=0, le=0.9, description="share of the schedule's steps in which the rate rises")
    continues: bool = Field(
        False, description="one schedule and one optimiser with the stage before: no lr, schedule or warmup of its own"
    )
    evaluations: int = Field(
        1, ge=1, le=20, description="evaluations an epoch; each counts as an epoch in curves and in their choice"
    )
    min_votes: int = Field(1, ge=1, description="train on units with at least so many votes")
    max_votes: int | None = Field(None, ge=1, description="and at most so many")
    weight: Literal["none", "linear", "log", "capped"] = Field(
        "none", description="loss weight: votes / 20, log(votes + 1), min(votes, 10)"
    )
    low_votes: LowVotes | None = None
    class_weight: Literal["none", "balanced"] = Field(
        "none", description="balanced: a class counts as if it were as frequent as any other in the stage's own labels"
    )
    focal: float = Field(
        0.0,
        ge=0,
        le=10,
        description="gamma of the focal loss: what is predicted well already counts less; 0: it does not",
    )
    smooth: float = Field(0.0, ge=0, le=1, description="votes added to each class or answer before they become shares")
    augment: dict[str, dict[str, Any]] | None = Field(None, description="instead of the run's; {}: none")
    pseudo: Pseudo | None = None
    early_stopping: EarlyStopping | None = Field(
        None, description="stop early, or lower the rate, by patients that are set aside"
    )

    @field_validator("augment", mode="before")
    @classmethod
    def _empty_is_default(cls, value: Any) -> Any:
        return defaulted(value)

    @model_validator(mode="after")
    def _has_a_rate(self) -> "Stage":
        if not self.continues and self.lr is None:
            raise ValueError("lr is missing; only a stage that `continues` another has none")
        defaults = {name: Stage.model_fields[name].default for name in OF_THE_FIRST}
        if self.continues and any(getattr(self, name) != value for name, value in defaults.items()):
            raise ValueError(f"a stage that continues another has its {', '.join(OF_THE_FIRST)}; leave out its own")
        if self.max_votes is not None and self.max_votes < self.min_votes:
            raise ValueError(f"max_votes {self.max_votes} is below min_votes {self.min_votes}: no unit is left")
        return self

    @model_validator(mode="after")
    def _is_watched(self) -> "Stage":
        """Refuse early stopping without effect, and a plateau schedule without early stopping."""
        plateau, stopping = self.schedule == "plateau", self.early_stopping
        if stopping is None:
            if plateau:
                raise ValueError("schedule plateau lowers the rate by a watched score; give the stage `early_stopping`")
            return self
        if self.continues:
            raise ValueError(
                "a stage that continues another cannot have early_stopping: their schedule could not end early"
            )
        if stopping.stop is None and not plateau:
            raise ValueError("early_stopping.stop is null and the schedule is no plateau: early_stopping has no effect")
        if stopping.stop is not None and plateau and stopping.stop <= stopping.patience:
            limits = f"early_stopping.stop {stopping.stop} is not above early_stopping.patience {stopping.patience}"
            raise ValueError(f"{limits}: the stage would end before its rate is ever lowered")
        return self

    @property
    def rounds(self) -> int:
        """Evaluations of the stage: rows of the learning curve."""
        return self.epochs * self.evaluations

    def select_units(self, votes: np.ndarray, train: np.ndarray) -> np.ndarray:
        """Return those of the training units that the stage trains on."""
        upper = np.inf if self.max_votes is None else self.max_votes
        units = train[(votes[train] >= self.min_votes) & (votes[train] <= upper)]
        if not len(units):
            limits = f"min_votes {self.min_votes}, max_votes {self.max_votes}"
            raise TrialFailed(
                f"a stage with {limits} leaves no unit to train on; their votes are {_range(votes[train])}"
            )
        return units

    def steps(self, rows: int, batch: int) -> int:
        """Return the batches of an epoch of so many rows, of which each evaluation has one at least."""
        steps = -(-rows // batch)
        if steps < self.evaluations:
            raise TrialFailed(f"{self.evaluations} evaluations an epoch need as many batches; there are {steps}")
        return steps

    def weights(self, votes: np.ndarray, rows: np.ndarray, epoch: int = 0) -> np.ndarray:
        """Return loss weights (N,) in an epoch of the stage, the first is 0; their mean over the stage's rows is 1, so
        that the rate keeps its meaning."""
        weights = WEIGHTS[self.weight](votes.astype(np.float64))
        if self.low_votes:
            weights = weights * self.low_votes.factor(votes, epoch / max(1, self.epochs - 1))
        mean = weights[rows].mean()
        if mean == 0:
            raise TrialFailed(f"low_votes gives every unit of epoch {epoch + 1} of its stage a loss weight of 0")
        return weights / mean

    def targets(self, task: Task, targets: np.ndarray, votes: np.ndarray) -> np.ndarray:
        """Return the targets (N, K) after adding `smooth` votes to each class, or to each answer of a question."""
        return task.smoothed(targets, votes, self.smooth) if self.smooth else targets


def schedule_group(stages: Sequence[Stage], number: int) -> range:
    """Return the numbers of the stages that share that one's schedule and optimiser."""
    first = max(n for n in range(number + 1) if not stages[n].continues)
    later = (n for n in range(number + 1, len(stages)) if not stages[n].continues)
    return range(first, next(later, len(stages)))


def effort(stages: Sequence[Stage]) -> int:
    """Return the epochs of a fold and of all its teachers, each evaluation counted as one."""
    teachers = (stage.pseudo.parts * effort(stages[:n]) for n, stage in enumerate(stages) if stage.pseudo)
    return sum(stage.rounds for stage in stages) + sum(teachers)


def order_faults(stages: Sequence[Stage]) -> list[str]:
    """Say which stages need one before them that is not there, or that they cannot continue."""
    first = stages[0]
    needs = {"continues": first.continues, "pseudo": first.pseudo is not None}
    found = [f"stages.0.{name}: the first stage has none before it" for name, wanted in needs.items() if wanted]
    watched = (n for n, stage in enumerate(stages[1:], 1) if stage.continues and stages[n - 1].early_stopping)
    return found + [
        f"stages.{n}.continues: the stage before has early_stopping, and may end before the schedule" for n in watched
    ]


def defaulted(augment: Any) -> Any:
    """`mixup:` without anything below is read as None and means the defaults."""
    return {k: {} if v is None else v for k, v in augment.items()} if isinstance(augment, dict) else augment


def _range(votes: np.ndarray) -> str:
    return f"{votes.min()} to {votes.max()}" if len(votes) else "none"
