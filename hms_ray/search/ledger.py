"""Writes what workers send: learning curves, finished folds and trial states, into the study folder and the journal."""

import logging
import time
from collections.abc import Sequence

import numpy as np
import pandas as pd

from hms_ray import files
from hms_ray.crossval import finished_folds, fold_table, write_epochs, write_fold
from hms_ray.execution.mailbox import EpochDone, FoldDone, FoldFailed, Message
from hms_ray.oof import OofTable
from hms_ray.search.study import Study

log = logging.getLogger(__name__)


class Ledger:
    """The one writer of trials/ and oof/.

    selected_on: the folds on whose scores configurations are chosen
    total: folds that the run under way is to train, for its estimate
    """

    def __init__(self, study: Study, selected_on: Sequence[int], total: int) -> None:
        self.study, self.selected_on, self.total = study, tuple(selected_on), total
        self.curves: dict[str, pd.DataFrame] = {}
        self.causes: dict[str, str] = {}
        self.done, self.started = 0, time.monotonic()

    def handle(self, message: Message) -> None:
        """Write one message."""
        match message:
            case EpochDone(trial, row):
                self._add_epochs(trial, pd.DataFrame([row]))
            case FoldDone(trial, result):
                self._add_epochs(trial, pd.DataFrame(result.epochs))
                space = trial.rpartition("-")[0]
                table = fold_table(result, self.study.labels, trial, space, self.selected_on)
                write_fold(self.study.folder.trial(trial).fold(result.fold), table, result.weights)
                self.done += 1
                log.info("%s fold %d: %s%s", trial, result.fold, self._scored([table]), self._left())
            case FoldFailed(trial, fold, cause):
                self.causes[trial] = cause
                log.warning("%s fold %d failed: %s", trial, fold, cause)

    def score(self, trial: str, folds: Sequence[int]) -> float:
        """Return a trial's score on the scored units of those folds; NaN where they have none."""
        targets, probs = self._population(self._tables(trial, folds))
        return self.study.labels.task.score(targets, probs) if len(targets) else float("nan")

    def reports(self, trial: str) -> list[tuple[int, float]]:
        """Return (epochs trained so far over the trial's folds, held-out score) of each epoch that has a score."""
        scores = self._column(trial, "score")
        return [(step, score) for step, score in enumerate(scores, start=1) if np.isfinite(score)]

    def seconds(self, trial: str) -> float:
        """Return the time that a trial has trained."""
        return sum(self._column(trial, "seconds"))

    def missing(self, trial: str, folds: Sequence[int]) -> list[int]:
        """Return those of the folds that are not finished."""
        finished = finished_folds(self.study.folder, trial, self.study.folds)
        return [fold for fold in folds if fold not in finished]

    def write_oof(self, trial: str) -> None:
        """Join all folds of a trial to its out-of-fold table."""
        tables = self._tables(trial, range(self.study.folds))
        whole = {
            name: np.concatenate([getattr(table, name) for table in tables])
            for name in ("unit_ids", "group_ids", "folds", "votes", "targets", "probs")
        }
        OofTable(**(vars(tables[0]) | whole)).write(self.study.folder.oof(trial))
        log.info("%s all folds: %s", trial, self._scored(tables))

    def _tables(self, trial: str, folds: Sequence[int]) -> list[OofTable]:
        return [OofTable.read(self.study.folder.trial(trial).fold(k).oof) for k in folds]

    def _population(self, tables: Sequence[OofTable]) -> tuple[np.ndarray, np.ndarray]:
        inside = [table.votes >= self.study.min_votes for table in tables]
        return (
            np.concatenate([t.targets[i] for t, i in zip(tables, inside, strict=True)]),
            np.concatenate([t.probs[i] for t, i in zip(tables, inside, strict=True)]),
        )

    def _scored(self, tables: Sequence[OofTable]) -> str:
        """Word a score with its population."""
        targets, probs = self._population(tables)
        if not len(targets):
            return f"trained; none of its units has {self.study.min_votes} votes, so it has no score"
        score = self.study.labels.task.score(targets, probs)
        return f"score {score:.4f} on {len(targets)} units with >= {self.study.min_votes} votes"

    def _left(self) -> str:
        each = (time.monotonic() - self.started) / self.done
        return f"; {self.done} of {self.total} folds, about {each * max(0, self.total - self.done):.0f} s left"

    def _column(self, trial: str, name: str) -> list[float]:
        """Return a column of a trial's curve; a trial that has not begun has an empty one."""
        return self._curve(trial).get(name, pd.Series(dtype=float)).tolist()

    def _curve(self, trial: str) -> pd.DataFrame:
        path = self.study.folder.trial(trial).epochs
        if trial not in self.curves:
            self.curves[trial] = files.read_table(path) if path.is_file() else pd.DataFrame()
        return self.curves[trial]

    def _add_epochs(self, trial: str, rows: pd.DataFrame) -> None:
        """A repeated epoch replaces its earlier row: a fold that was continued sends its whole curve."""
        curve = pd.concat([self._curve(trial), rows], ignore_index=True)
        self.curves[trial] = curve.drop_duplicates(["fold", "epoch"], keep="last")
        write_epochs(self.study.folder.trial(trial).epochs, self.curves[trial])
