"""Writes what workers send to the study folder, and publishes it."""

from hms_ray.core.errors import SearchAborted
from hms_ray.execution.events import (
    EpochDone,
    EpochWeights,
    FoldBegun,
    FoldDone,
    FoldFailed,
    FoldHalted,
    FoldPredicted,
    Message,
    StorageFailed,
)
from hms_ray.search.events import FoldScored, Publish, TrialScored
from hms_ray.study.trial_store import FoldRecord, TrialStore


class Recorder:
    """The one writer of a search.

    publish: is given each message once it is written
    failures: the last failure of each trial that has not begun again since
    halted_folds: the fold inside which a trial was stopped
    """

    def __init__(self, store: TrialStore, publish: Publish) -> None:
        self.store, self.publish = store, publish
        self.failures: dict[str, FoldFailed] = {}
        self.halted_folds: dict[str, int] = {}

    def handle(self, message: Message) -> None:
        """Write a message and publish it.

        Raises:
            SearchAborted: a worker's disk is full or broken.
        """
        match message:
            case FoldBegun(trial):
                self.failures.pop(trial, None)
            case EpochDone(trial, row):
                self.store.add_epoch(trial, row)
            case EpochWeights(trial, fold, epoch, content):
                self.store.write_weights(trial, fold, epoch, content)
            case FoldDone(trial, result):
                self.store.write_fold(trial, FoldRecord(result.fold, result.rows, result.probs, result.epochs))
                skipped = sum(row["skipped_steps"] for row in result.epochs)
                score, units = self._score(trial, [result.fold])
                self.publish(FoldScored(trial, result.fold, score, units, self.store.min_votes, skipped))
            case FoldPredicted(trial, fold, epoch, probs):
                self.store.add_predictions(trial, fold, epoch, probs)
            case FoldHalted(trial, stopped):
                self.store.replace_epochs(trial, stopped.fold, stopped.epochs)
                self.halted_folds[trial] = stopped.fold
            case FoldFailed(trial):
                self.failures[trial] = message
            case StorageFailed(trial, fold, cause):
                raise SearchAborted(
                    f"{trial} fold {fold} could not be written: {cause}. Free disk space there and rerun the command; "
                    "training resumes from the last checkpoint"
                )
        self.publish(message)

    def finish(self, trial: str) -> None:
        """Write the out-of-fold table of a trial in which every unit is predicted."""
        self.store.finish(trial)
        score, units = self._score(trial, list(range(self.store.n_folds)))
        self.publish(TrialScored(trial, score, units, self.store.min_votes))

    def _score(self, trial: str, folds: list[int]) -> tuple[float, int]:
        return self.store.score(trial, folds), sum(map(self.store.scored_units, folds))
