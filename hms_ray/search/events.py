"""What a search decides and finds, for who shows it: published by the recorder, the queue and the driver."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from hms_ray.execution.events import Message


@dataclass(frozen=True)
class FoldScored:
    """A finished fold is written; score: over `units` scored units, NaN where there are none."""

    trial: str
    fold: int
    score: float
    units: int
    min_votes: int
    skipped_steps: int


@dataclass(frozen=True)
class TrialScored:
    """The out-of-fold table of a trial with all its folds is written; fields as in FoldScored."""

    trial: str
    score: float
    units: int
    min_votes: int


@dataclass(frozen=True)
class TrialStopped:
    """Pruning stopped a trial inside a fold, or between two: None; folds_saved: not trained, parts included."""

    trial: str
    fold: int | None
    cause: str
    folds_saved: float


@dataclass(frozen=True)
class TrialRejected:
    """A trial cannot be trained at all."""

    trial: str
    cause: str


@dataclass(frozen=True)
class TrialEnded:
    """A trial is recorded as ended."""

    trial: str
    state: Literal["COMPLETE", "PRUNED", "FAIL"]


@dataclass(frozen=True)
class BestTrial:
    """The best single trial so far."""

    trial: str
    score: float


@dataclass(frozen=True)
class EnsembleSoFar:
    """The ensemble so far; optimistic, since its weights are fitted to the units that it is scored on."""

    score: float
    members: int
    units: int
    patients: int


@dataclass(frozen=True)
class FoldsToCome:
    """The trials, or a round, are over; so many folds of chosen configurations follow, as far as is known."""

    folds: int


SearchEvent = (
    FoldScored | TrialScored | TrialStopped | TrialRejected | TrialEnded | BestTrial | EnsembleSoFar | FoldsToCome
)
Publish = Callable[[Message | SearchEvent], None]
