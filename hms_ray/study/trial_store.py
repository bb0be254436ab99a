"""Reads and writes what trials leave in a study folder: learning curves, folds, weights, and out-of-fold tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from hms_ray.core import files
from hms_ray.core.errors import DataError
from hms_ray.study import epoch_selection, oof, tables
from hms_ray.study.epoch_selection import Candidates, Rule
from hms_ray.study.folder import FoldFolder, StudyFolder
from hms_ray.study.labels import Labels
from hms_ray.study.oof import OofTable

REMEMBERED = 1024  # folds whose predictions stay in memory: each is compared with many others
CurveRow = Mapping[str, float | None]  # fold, stage, epoch, score, ...: one evaluation of a fold


@dataclass(frozen=True)
class FoldRecord:
    """A finished fold.

    units: (n,) positions of its held-out units
    probs: (epochs, n, K) their predictions after each epoch, NaN of units that were not predicted then
    curve: one row an epoch
    """

    fold: int
    units: np.ndarray
    probs: np.ndarray
    curve: Sequence[CurveRow]


@dataclass(frozen=True)
class Scored:
    """One trial's predictions on the scored units of some folds: targets, probs (N, K); groups, folds (N,)."""

    targets: np.ndarray
    probs: np.ndarray
    groups: np.ndarray
    folds: np.ndarray


class TrialStore:
    """The files in trials/ and oof/ of one study; one process, the driver, writes them.

    epoch_rule, candidates: how the epoch of a fold is selected, and among which
    min_votes: units with so many votes are scored
    selected_on: the folds on whose scores trials are chosen; the table of each fold holds them
    rounds_on: the folds on whose scores rounds choose; the table of all folds holds them too
    """

    def __init__(
        self,
        folder: StudyFolder,
        labels: Labels,
        epoch_rule: Rule,
        candidates: Candidates,
        min_votes: int,
        selected_on: Sequence[int] = (),
        rounds_on: Sequence[int] = (),
    ) -> None:
        self.folder, self.labels, self.min_votes = folder, labels, min_votes
        self.epoch_rule, self.candidates = epoch_rule, candidates
        self.selected_on, self.rounds_on = tuple(selected_on), tuple(rounds_on)
        self.curves: dict[str, pd.DataFrame] = {}
        self._scored = lru_cache(REMEMBERED)(self._read_scored)

    @property
    def n_folds(self) -> int:
        """The number of the study's folds."""
        return self.labels.n_folds

    def scored_units(self, fold: int) -> int:
        """Return how many units of a fold are scored."""
        return int(((self.labels.folds == fold) & (self.labels.votes >= self.min_votes)).sum())

    def scored_folds(self) -> list[int]:
        """Return all folds, those that hold scored units first: a trial without any could not be compared."""
        scored = np.unique(self.labels.folds[self.labels.votes >= self.min_votes])
        return sorted(range(self.n_folds), key=lambda k: (k not in scored, k))

    def add_epoch(self, trial: str, row: CurveRow) -> None:
        """Write one more epoch of a learning curve; a repeated epoch replaces its earlier row."""
        self._write_curve(trial, self._curve(trial), [row])

    def replace_epochs(self, trial: str, fold: int, rows: Sequence[CurveRow]) -> None:
        """Write the whole curve of a fold that has ended; rows from before may be of an attempt that was given up."""
        curve = self._curve(trial)
        self._write_curve(trial, curve[curve["fold"] != fold] if len(curve) else curve, rows)

    def write_weights(self, trial: str, fold: int, epoch: int, content: bytes) -> None:
        """Write the packed weights after an epoch that may be selected."""
        self.folder.trial(trial).fold(fold).write_weights(epoch, content)

    def write_fold(self, trial: str, record: FoldRecord) -> None:
        """Write a finished fold whose weights are written; its table last, since that marks it as finished."""
        self.replace_epochs(trial, record.fold, record.curve)
        folder = self.folder.trial(trial).fold(record.fold)
        files.write_array(folder.by_epoch, record.probs)
        table = self.labels.table(record.probs[-1], trial, trial.rpartition("-")[0], record.units)
        replace(table, selected_on=self.selected_on, epoch_rule="last", epochs=(len(record.probs),)).write(folder.oof)
        folder.drop_checkpoint()
        self._scored.cache_clear()
        self._drop_unselected(trial)

    def add_predictions(self, trial: str, fold: int, epoch: int, probs: np.ndarray) -> None:
        """Write predictions (n, K) after an epoch of the n units of a finished fold that are not scored."""
        folder = self.folder.trial(trial).fold(fold)
        by_epoch = np.array(_read_probs(folder))
        by_epoch[epoch - 1][np.isnan(by_epoch[epoch - 1]).any(1)] = probs
        files.write_array(folder.by_epoch, by_epoch)
        self._scored.cache_clear()

    def finish(self, trial: str) -> None:
        """Write the out-of-fold table of a trial that has all its folds, in which every unit is predicted."""
        epochs = self._selected(trial)
        assert not self.unpredicted(trial), f"{trial} has units that are not predicted after epochs {epochs}"
        parts = [self._table(trial, fold, epochs[fold]) for fold in range(self.n_folds)]
        table = replace(
            parts[0],
            unit_ids=np.concatenate([part.unit_ids for part in parts]),
            group_ids=np.concatenate([part.group_ids for part in parts]),
            folds=np.concatenate([part.folds for part in parts]),
            votes=np.concatenate([part.votes for part in parts]),
            targets=np.concatenate([part.targets for part in parts]),
            probs=np.concatenate([part.probs for part in parts]),
            selected_on=tuple(sorted({*self.selected_on, *self.rounds_on})),
            epoch_rule=self.epoch_rule,
            epochs=tuple(epochs.values()),
        )
        table.write(self.folder.oof(trial))
        self._drop_unselected(trial)  # a kill may have come before it was done

    def drop_weights(self, trial: str) -> None:
        """Delete the weights of a trial that is no candidate of the ensemble; its predictions stay."""
        for fold in range(self.n_folds):
            self.folder.trial(trial).fold(fold).drop_weights()

    def release(self, trials: Sequence[str]) -> None:
        """Delete the weights of trials without a table of all folds: they are no candidates of the ensemble."""
        for trial in trials:
            if not self.folder.oof(trial).is_file():
                self.drop_weights(trial)

    def scored(self, trial: str, folds: Sequence[int]) -> Scored:
        """Return a trial's predictions on the scored units of folds that it has finished.

        Each fold at its epoch, selected among these folds alone: so trials are compared with the same knowledge,
        whatever else they have trained.
        """
        epochs = self._select(trial, folds)
        parts = [self._scored(trial, fold, epochs[fold]) for fold in folds]
        return Scored(*(np.concatenate([getattr(part, name) for part in parts]) for name in Scored.__annotations__))

    def score(self, trial: str, folds: Sequence[int]) -> float:
        """Return a trial's score on the scored units of those folds; NaN where they have none."""
        scored = self.scored(trial, folds)
        return self.labels.task.score(scored.targets, scored.probs) if len(scored.targets) else float("nan")

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
        curve = self._curve(trial)
        scores = curve["score"].tolist() if len(curve) else []
        return [(step, score) for step, score in enumerate(scores, start=1) if np.isfinite(score)]

    def seconds(self, trial: str) -> float:
        """Return the time that a trial has trained."""
        curve = self._curve(trial)
        return float(curve["seconds"].sum()) if len(curve) else 0.0

    def epochs(self, trial: str) -> int:
        """Return how many epochs a trial has trained, over all folds."""
        return len(self._curve(trial))

    def missing(self, trial: str, folds: Sequence[int]) -> list[int]:
        """Return those of the folds that are not finished."""
        return [fold for fold in folds if not self.folder.trial(trial).fold(fold).oof.is_file()]

    def without_weights(self, trial: str) -> list[int]:
        """Return the folds of a trial that cannot predict: not finished, or without weights that may be selected, or
        are."""
        everything = range(self.n_folds)
        unfinished = self.missing(trial, everything)
        selected = self._selected(trial) if not unfinished or self.folder.oof(trial).is_file() else {}
        lacking = list(unfinished)
        for fold in (fold for fold in everything if fold not in unfinished):
            curve = self.curve(trial, fold)
            epochs = [selected[fold]] if selected else self._reachable(curve)
            if not all(self.folder.trial(trial).fold(fold).weights(epoch).is_file() for epoch in epochs):
                lacking.append(fold)
        return sorted(lacking)

    def unpredicted(self, trial: str) -> dict[int, int]:
        """Return the folds of a trial with all its folds in which not every unit is predicted after the selected epoch,
        and that epoch: in training only scored units are predicted, since it is not known."""
        epochs = self._selected(trial)
        return {fold: epoch for fold, epoch in epochs.items() if np.isnan(self._probs(trial, fold, epoch)).any()}

    def is_whole(self, trial: str) -> bool:
        """Whether a trial has all that it is to have: weights of all folds, and a table no older than any of them."""
        table = self.folder.oof(trial)
        if self.without_weights(trial) or not table.is_file():
            return False
        newest = max(self.folder.trial(trial).fold(k).oof.stat().st_mtime_ns for k in range(self.n_folds))
        return newest <= table.stat().st_mtime_ns

    def _drop_unselected(self, trial: str) -> None:
        """Delete the weights of epochs that were not selected, once a trial has all folds and they are known.

        Not while a fold lacks the selected ones: it may be in training for them, and its checkpoint would go as well.
        """
        if not self.without_weights(trial):
            for fold, epoch in self._selected(trial).items():
                self.folder.trial(trial).fold(fold).drop_weights(but=epoch)

    def _selected(self, trial: str) -> dict[int, int]:
        """Return the epoch of each fold of a trial with all its folds.

        Where there is a table, a fold was trained again for its weights: its epochs stay, others have no weights left.
        """
        path = self.folder.oof(trial)
        if not path.is_file():
            return self._select(trial, range(self.n_folds))
        epochs = oof.epochs_of(path)
        if len(epochs) != self.n_folds:
            raise DataError(f"{path}: must name the epoch of each of {self.n_folds} folds, but names {epochs}")
        return dict(enumerate(epochs))

    def _select(self, trial: str, folds: Sequence[int]) -> dict[int, int]:
        """Return the epoch of each of those finished folds, by the study's rule.

        Raises:
            DataError: the learning curves lack a fold or an epoch.
        """
        scores = stacked_scores({fold: self.curve(trial, fold) for fold in folds}, self.folder.trial(trial).epochs)
        units = np.array([self.scored_units(fold) for fold in folds])
        epochs = epoch_selection.choose(self.epoch_rule, self.candidates, scores, units)
        return dict(zip(folds, epochs, strict=True))

    def _reachable(self, curve: np.ndarray) -> Sequence[int]:
        """Return the epochs of a finished fold that may be selected."""
        return epoch_selection.reachable(self.epoch_rule, self.candidates, curve.tolist(), len(curve))

    def _table(self, trial: str, fold: int, epoch: int) -> OofTable:
        """Return the out-of-fold rows of a finished fold after an epoch, NaN of units that were not predicted then."""
        folder = self.folder.trial(trial).fold(fold)
        return after_epoch(OofTable.read(folder.oof), folder, epoch)

    def _probs(self, trial: str, fold: int, epoch: int) -> np.ndarray:
        """Return the predictions (units, K) of a finished fold after an epoch."""
        return _probs_after(self.folder.trial(trial).fold(fold), epoch)

    def _read_scored(self, trial: str, fold: int, epoch: int) -> Scored:
        table = self._table(trial, fold, epoch)
        inside = table.votes >= self.min_votes
        return Scored(table.targets[inside], table.probs[inside], table.group_ids[inside], table.folds[inside])

    def _curve(self, trial: str) -> pd.DataFrame:
        """Return the learning curves of a trial; one that has not begun has an empty table."""
        if trial not in self.curves:
            path = self.folder.trial(trial).epochs
            self.curves[trial] = tables.read_curves(path) if path.exists() else pd.DataFrame()
        return self.curves[trial]

    def _write_curve(self, trial: str, curve: pd.DataFrame, rows: Sequence[CurveRow]) -> None:
        """Write learning curves with more rows, sorted by fold and epoch."""
        curve = pd.concat([curve, pd.DataFrame(rows)], ignore_index=True)
        curve = curve.drop_duplicates(["fold", "epoch"], keep="last").sort_values(["fold", "epoch"], ignore_index=True)
        self.curves[trial] = curve
        files.write_table(self.folder.trial(trial).epochs, curve)


def after_epoch(table: OofTable, folder: FoldFolder, epoch: int) -> OofTable:
    """Return the table of a finished fold with its predictions after an epoch, NaN of units not predicted then.

    Raises:
        DataError: the predictions are missing or broken, lack the epoch, or are of other units or classes.
    """
    probs = _probs_after(folder, epoch)
    if probs.shape != table.probs.shape:
        shapes = f"{probs.shape}, but must have the shape {table.probs.shape} of oof.parquet"
        raise DataError(f"{folder.by_epoch}: an epoch has the shape {shapes}; train the fold again")
    return replace(table, probs=probs)


def stacked_scores(curves: Mapping[int, np.ndarray], path: Path) -> np.ndarray:
    """Return the learning curves (epochs,) of finished folds as one array (folds, epochs); path: where they are from.

    Raises:
        DataError: a fold lacks epochs.
    """
    if len({len(curve) for curve in curves.values()}) != 1 or not all(map(len, curves.values())):
        lengths = ", ".join(f"fold {fold}: {len(curve)}" for fold, curve in curves.items())
        raise DataError(f"{path}: finished folds must have the same number of epochs, but it has {lengths}")
    return np.stack(list(curves.values()))


def _probs_after(folder: FoldFolder, epoch: int) -> np.ndarray:
    """Return the predictions (units, K) of a finished fold after an epoch; errors as in `after_epoch`."""
    by_epoch = _read_probs(folder)
    if epoch > len(by_epoch):
        raise DataError(
            f"{folder.by_epoch}: holds {len(by_epoch)} epochs, but epoch {epoch} is selected; train the fold again"
        )
    return np.asarray(by_epoch[epoch - 1])


def _read_probs(folder: FoldFolder) -> np.ndarray:
    """Return the predictions (epochs, units, K) of a finished fold, not yet read from the disk.

    Raises:
        DataError: the file is missing or holds no such array.
    """
    path: Path = folder.by_epoch
    try:
        probs: np.ndarray = np.lib.format.open_memmap(path, mode="r")  # np.load would also open archives
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: no readable array of predictions; train the fold again ({error})") from error
    if probs.ndim != 3 or probs.dtype.kind != "f":
        raise DataError(f"{path}: must hold numbers (epochs, units, classes), but is {probs.dtype} {probs.shape}")
    return probs
