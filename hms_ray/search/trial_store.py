"""Writes what workers send: learning curves, finished folds and their weights, into the study folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from hms_ray.core import files
from hms_ray.core.errors import SearchAborted
from hms_ray.core.sizes import in_words
from hms_ray.execution.events import (
    EpochDone,
    EpochWeights,
    FoldBegun,
    FoldDone,
    FoldFailed,
    FoldHalted,
    FoldPredicted,
    Message,
    Note,
    StorageFailed,
    TeacherEpochDone,
)
from hms_ray.search.console import ConsoleView
from hms_ray.search.open_study import Study
from hms_ray.study import epoch_selection, oof
from hms_ray.study.oof import OofTable, optimism
from hms_ray.training.crossval import finished_folds, fold_table, write_epochs, write_fold

REMEMBERED = 1024  # folds whose predictions stay in memory: each is compared with many others


@dataclass(frozen=True)
class Scored:
    """One trial's predictions on the scored units of some folds: targets, probs (N, K); groups, folds (N,)."""

    targets: np.ndarray
    probs: np.ndarray
    groups: np.ndarray
    folds: np.ndarray


class TrialStore:
    """The one writer of trials/ and oof/.

    selected_on: the folds on whose scores trials are chosen; the table of each fold says so
    disk_gb: how large the study may grow; None: without limit
    rounds_on: the folds on whose scores rounds choose; the table of all folds says so as well
    """

    def __init__(
        self,
        study: Study,
        selected_on: Sequence[int],
        console_view: ConsoleView,
        disk_gb: float | None = None,
        rounds_on: Sequence[int] = (),
    ) -> None:
        self.study, self.selected_on, self.console_view = study, tuple(selected_on), console_view
        self.rounds_on = tuple(rounds_on)
        self.curves: dict[str, pd.DataFrame] = {}
        self.failures: dict[str, FoldFailed] = {}
        self.halted: dict[str, int] = {}
        self.disk_gb = disk_gb
        self._scored = lru_cache(REMEMBERED)(self._read_scored)

    def handle(self, message: Message) -> None:
        """Write one message and show it.

        Raises:
            SearchAborted: a worker's disk is full or broken.
        """
        match message:
            case FoldBegun(trial, fold, epochs, _):
                self.failures.pop(trial, None)
                if epochs:
                    self.console_view.started(trial, fold, epochs)
            case EpochDone(trial, row):
                self._add_epochs(trial, pd.DataFrame([row]))
                self.console_view.epoch(trial, row["fold"], row["epoch"], row["score"], row["memory_gb"] or None)
            case TeacherEpochDone(trial, fold):
                self.console_view.taught(trial, fold)
            case EpochWeights(trial, fold, epoch, content):
                self.study.folder.trial(trial).fold(fold).write_weights(epoch, content)
            case FoldDone(trial, result):
                self._write(trial, message)
                self._drop_unchosen(trial)
                skipped = sum(row["skipped_steps"] for row in result.epochs)
                note = f"; {skipped} steps skipped: their gradients were infinite in float16" if skipped else ""
                self.console_view.fold_done(trial, result.fold, self._worded(trial, [result.fold]) + note)
            case FoldPredicted(trial, fold, epoch, probs):
                self._complete(trial, fold, epoch, probs)
            case FoldHalted(trial, stopped):
                self._replace_epochs(trial, stopped.fold, stopped.epochs)
                self.halted[trial] = stopped.fold
            case FoldFailed(trial, fold, cause):
                self.failures[trial] = message
                self.console_view.failed(trial, fold, cause)
            case Note(sentence):
                self.console_view.note(sentence)
            case StorageFailed(trial, fold, cause):
                raise SearchAborted(
                    f"{trial} fold {fold} could not be written: {cause}. Make room; it goes on from there"
                )

    def scored(self, trial: str, folds: Sequence[int]) -> Scored:
        """Return a trial's predictions on the scored units of folds that it has finished.

        Each fold at its epoch, chosen among these folds alone: so trials are compared with the same knowledge, whatever
        else they have trained.
        """
        epochs = self._epochs(trial, folds)
        parts = [self._scored(trial, fold, epochs[fold]) for fold in folds]
        return Scored(*(np.concatenate([getattr(part, name) for part in parts]) for name in Scored.__annotations__))

    def score(self, trial: str, folds: Sequence[int]) -> float:
        """Return a trial's score on the scored units of those folds; NaN where they have none."""
        scored = self.scored(trial, folds)
        return self.study.labels.task.score(scored.targets, scored.probs) if len(scored.targets) else float("nan")

    def curve(self, trial: str, fold: int) -> np.ndarray:
        """Return the held-out score after each epoch of a fold (epochs,)."""
        curve = self._curve(trial)
        return curve["score"][curve["fold"] == fold].to_numpy() if len(curve) else np.empty(0)

    def stages(self, trial: str, fold: int) -> tuple[int, ...]:
        """Return how many epochs of a fold each stage has trained."""
        curve = self._curve(trial)
        return tuple(np.bincount(curve["stage"][curve["fold"] == fold]).tolist()) if len(curve) else ()

    def reports(self, trial: str) -> list[tuple[int, float]]:
        """Return (epochs trained so far over the trial's folds, held-out score) of each epoch that has a score."""
        scores = self._column(trial, "score")
        return [(step, score) for step, score in enumerate(scores, start=1) if np.isfinite(score)]

    def seconds(self, trial: str) -> float:
        """Return the time that a trial has trained."""
        return sum(self._column(trial, "seconds"))

    def epochs(self, trial: str) -> int:
        """Return how many epochs a trial has trained, over all folds."""
        return len(self._curve(trial))

    def missing(self, trial: str, folds: Sequence[int]) -> list[int]:
        """Return those of the folds that are not finished."""
        finished = finished_folds(self.study.folder, trial, self.study.folds)
        return [fold for fold in folds if fold not in finished]

    def without_weights(self, trial: str) -> list[int]:
        """Return the folds of a trial that cannot predict: they are not finished, or weights that may be chosen, or
        are, were dropped."""
        folder = self.study.folder.trial(trial)
        finished = finished_folds(self.study.folder, trial, self.study.folds)
        known = len(finished) == self.study.folds or self.study.folder.oof(trial).is_file()
        chosen = self._chosen(trial) if known else {}
        kept = {k: [chosen[k]] if known else self._reachable(trial, k) for k in finished}
        there = [k for k in finished if all(folder.fold(k).weights(epoch).is_file() for epoch in kept[k])]
        return [k for k in range(self.study.folds) if k not in there]

    def unpredicted(self, trial: str) -> dict[int, int]:
        """Return the folds of a trial with all its folds in which not every unit is predicted after the epoch that was
        chosen, and that epoch: while it is trained, only scored units are, since it is not known."""
        epochs = self._chosen(trial)
        return {fold: epoch for fold, epoch in epochs.items() if np.isnan(self._probs(trial, fold, epoch)).any()}

    def is_whole(self, trial: str) -> bool:
        """Whether a trial has all that it is to have: weights of all folds, and a table no older than any of them."""
        folder, table = self.study.folder, self.study.folder.oof(trial)
        if self.without_weights(trial) or not table.is_file():
            return False
        newest = max(folder.trial(trial).fold(k).oof.stat().st_mtime_ns for k in range(self.study.folds))
        return newest <= table.stat().st_mtime_ns

    def finish(self, trial: str) -> None:
        """Write the out-of-fold table of a trial that has all its folds, in which every unit is predicted."""
        self._write_oof(trial)
        self._drop_unchosen(trial)  # a kill may have come before it was done

    def drop_weights(self, trial: str) -> None:
        """Delete the weights of a trial that is no candidate of the ensemble; its predictions stay."""
        for fold in range(self.study.folds):
            self.study.folder.trial(trial).fold(fold).drop_weights()

    def release(self, trials: Sequence[str]) -> None:
        """Delete the weights of all these trials but of candidates of the ensemble: those with a table of all
        folds."""
        for trial in trials:
            if not self.study.folder.oof(trial).is_file():
                self.drop_weights(trial)

    def check_disk(self) -> None:
        """Refuse to go on when the study has outgrown its budget.

        Raises:
            SearchAborted: it has; the message says by how much.
        """
        root, limit = self.study.folder.root, self.disk_gb
        if limit is not None and (used := files.size_of(root)) > limit * 1e9:
            raise SearchAborted(
                f"{root} has {in_words(used)}, more than budget.disk_gb: {limit:g}; raise it, or make room there: "
                "nothing is read back from its ray/ folder. The same command then goes on"
            )

    def _write_oof(self, trial: str) -> None:
        """Join all folds of a trial to its out-of-fold table."""
        folds, epochs = tuple(range(self.study.folds)), self._chosen(trial)
        assert not self.unpredicted(trial), f"{trial} has units that are not predicted after epochs {epochs}"
        tables = [self._table(trial, fold, epochs[fold]) for fold in folds]
        whole = {
            name: np.concatenate([getattr(table, name) for table in tables])
            for name in ("unit_ids", "group_ids", "folds", "votes", "targets", "probs")
        }
        selected_on = tuple(sorted({*self.selected_on, *self.rounds_on}))
        chosen = {"selected_on": selected_on, "epoch_rule": self.study.epoch, "epochs": tuple(epochs.values())}
        OofTable(**(vars(tables[0]) | whole | chosen)).write(self.study.folder.oof(trial))
        self.console_view.note(f"{trial} all folds: {self._worded(trial, folds)}")

    def _write(self, trial: str, done: FoldDone) -> None:
        self._replace_epochs(trial, done.fold, done.result.epochs)
        table = fold_table(done.result, self.study.labels, trial, trial.rpartition("-")[0], self.selected_on)
        write_fold(self.study.folder.trial(trial).fold(done.fold), table, done.result.probs)
        self._scored.cache_clear()

    def _drop_unchosen(self, trial: str) -> None:
        """Delete the weights of epochs that were not chosen, once a trial has all folds and they are known.

        Not while a fold lacks the chosen ones: it may be in training for them, and its checkpoint would go as well.
        """
        if not self.without_weights(trial):
            for fold, epoch in self._chosen(trial).items():
                self.study.folder.trial(trial).fold(fold).drop_weights(but=epoch)

    def _complete(self, trial: str, fold: int, epoch: int, probs: np.ndarray) -> None:
        """Write the predictions of the units that are not scored after an epoch, (n, K)."""
        path = self.study.folder.trial(trial).fold(fold).by_epoch
        by_epoch = np.load(path)
        by_epoch[epoch - 1][np.isnan(by_epoch[epoch - 1]).any(1)] = probs
        files.write_array(path, by_epoch)
        self._scored.cache_clear()

    def _chosen(self, trial: str) -> dict[int, int]:
        """Return the epoch of each fold of a trial with all its folds.

        Where there is a table, a fold was trained again for its weights: its epochs stay, others have no weights left.
        """
        path = self.study.folder.oof(trial)
        if path.is_file():
            return dict(enumerate(oof.epochs_of(path)))
        return self._epochs(trial, range(self.study.folds))

    def _epochs(self, trial: str, folds: Sequence[int]) -> dict[int, int]:
        """Return the epoch of each of those finished folds, by the study's rule."""
        curves = np.stack([self.curve(trial, fold) for fold in folds])
        units = np.array([self.study.scored_units(fold) for fold in folds])
        epochs = epoch_selection.choose(self.study.epoch, self.study.candidates, curves, units)
        return dict(zip(folds, epochs, strict=True))

    def _reachable(self, trial: str, fold: int) -> list[int]:
        """Return the epochs of a finished fold that may be chosen."""
        curve = self.curve(trial, fold)
        return epoch_selection.reachable(self.study.epoch, self.study.candidates, curve, len(curve))

    def _table(self, trial: str, fold: int, epoch: int) -> OofTable:
        """Return the out-of-fold rows of a finished fold after an epoch, NaN of units that were not predicted then."""
        table = OofTable.read(self.study.folder.trial(trial).fold(fold).oof)
        return replace(table, probs=self._probs(trial, fold, epoch))

    def _probs(self, trial: str, fold: int, epoch: int) -> np.ndarray:
        """Return the predictions (units, K) of a finished fold after an epoch."""
        return np.load(self.study.folder.trial(trial).fold(fold).by_epoch, mmap_mode="r")[epoch - 1]

    def _read_scored(self, trial: str, fold: int, epoch: int) -> Scored:
        table = self._table(trial, fold, epoch)
        inside = table.votes >= self.study.min_votes
        return Scored(table.targets[inside], table.probs[inside], table.group_ids[inside], table.folds[inside])

    def _worded(self, trial: str, folds: Sequence[int]) -> str:
        """Word a score with its population."""
        units, score = len(self.scored(trial, folds).targets), self.score(trial, folds)
        where, least = f"{trial} fold {folds[0]}: " if len(folds) == 1 else "", self.study.min_votes
        if not units:
            return f"{where}trained; none of its units has {least} votes, so it has no score"
        mark = f", {said}" if (said := optimism(self.study.epoch)) else ""
        votes = f" with >= {least} votes" if least > 1 else ""
        return f"{where}score {score:.4f} on {units} units{votes}{mark}"

    def _column(self, trial: str, name: str) -> list[float]:
        """Return a column of a trial's curve; a trial that has not begun has an empty one."""
        return self._curve(trial).get(name, pd.Series(dtype=float)).tolist()

    def _curve(self, trial: str) -> pd.DataFrame:
        path = self.study.folder.trial(trial).epochs
        if trial not in self.curves:
            self.curves[trial] = files.read_table(path) if path.is_file() else pd.DataFrame()
        return self.curves[trial]

    def _replace_epochs(self, trial: str, fold: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """A fold that has ended sends its whole curve; what was known of it may be of an attempt that was given up."""
        curve = self._curve(trial)
        self.curves[trial] = curve[curve["fold"] != fold] if len(curve) else curve
        self._add_epochs(trial, pd.DataFrame(rows))

    def _add_epochs(self, trial: str, rows: pd.DataFrame) -> None:
        """A repeated epoch replaces its earlier row."""
        curve = pd.concat([self._curve(trial), rows], ignore_index=True)
        curve = curve.drop_duplicates(["fold", "epoch"], keep="last")
        self.curves[trial] = curve.sort_values(["fold", "epoch"], ignore_index=True)
        write_epochs(self.study.folder.trial(trial).epochs, self.curves[trial])
