"""Stages of training: first on everything, then on the rows that many experts saw. The weights carry over."""

from typing import Literal

import numpy as np
from pydantic import Field

from hms_ray.errors import TrialFailed
from hms_ray.params import Params as Strict

WEIGHTS = {
    "none": lambda votes: np.ones(len(votes)),
    "linear": lambda votes: votes / 20,
    "log": lambda votes: np.log(votes + 1),
    "capped": lambda votes: np.minimum(votes, 10),
}


class Stage(Strict):
    """One stage: which rows, for how long, how fast."""

    epochs: int = Field(ge=1, le=1000)
    lr: float = Field(gt=0, le=1, description="the schedule's largest learning rate")
    schedule: Literal["one_cycle", "cosine"] = "one_cycle"
    warmup: float = Field(0.25, ge=0, le=0.9, description="share of the stage's steps in which the rate rises")
    min_votes: int = Field(1, ge=1, description="train on units with at least so many votes")
    max_votes: int | None = Field(None, ge=1, description="and at most so many")
    weight: Literal["none", "linear", "log", "capped"] = Field(
        "none", description="loss weight: votes / 20, log(votes + 1), min(votes, 10)"
    )
    smooth: float = Field(0.0, ge=0, le=1, description="votes added to each class before they become shares")

    def rows(self, votes: np.ndarray, train: np.ndarray) -> np.ndarray:
        """Return those of the training units that the stage trains on."""
        upper = np.inf if self.max_votes is None else self.max_votes
        rows = train[(votes[train] >= self.min_votes) & (votes[train] <= upper)]
        if not len(rows):
            limits = f"min_votes {self.min_votes}, max_votes {self.max_votes}"
            raise TrialFailed(
                f"a stage with {limits} leaves no unit to train on; their votes are {_range(votes[train])}"
            )
        return rows

    def weights(self, votes: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return loss weights (N,) whose mean over the stage's rows is 1, so that the rate keeps its meaning."""
        weights = WEIGHTS[self.weight](votes.astype(np.float64))
        return weights / weights[rows].mean()

    def targets(self, targets: np.ndarray, votes: np.ndarray) -> np.ndarray:
        """Return vote shares (N, K) after adding `smooth` votes to each class."""
        counts = targets * votes[:, None] + self.smooth
        return counts / counts.sum(1, keepdims=True) if self.smooth else targets


def _range(votes: np.ndarray) -> str:
    return f"{votes.min()} to {votes.max()}" if len(votes) else "none"
