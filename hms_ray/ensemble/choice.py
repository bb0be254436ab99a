"""What the choice of configurations flatters the ensemble by: the search chose them on folds that it is scored on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hms_ray.core import files
from hms_ray.ensemble.result import Selection
from hms_ray.ensemble.rows import Rows
from hms_ray.ensemble.selection import optimism_of_choice
from hms_ray.study import epoch_selection
from hms_ray.study.folder import StudyFolder, TrialFolder
from hms_ray.study.oof import OofTable, Stack


def correction(folder: StudyFolder, members: Stack, rows: Rows, rng: np.random.Generator) -> Selection | None:
    """Estimate the optimism in the cross-fitted score that comes from choosing configurations; None: none was chosen.

    The estimate is of the choice on the folds on which trials were chosen. Rounds have chosen on later folds too, of
    which only those that they kept have predictions; there, nothing is estimated. Every trial that has predictions of
    all folds that chose trials is taken as a configuration that could have been chosen; those that the race stopped
    before have none, so that the estimate is of the choice among the others.
    """
    folds = _chosen_on(folder, members)
    tables = _tried(folder, folds)
    kept = np.array([i for i, trial in enumerate(tables) if trial in members.trials], dtype=np.int64)
    chosen_on = rows.scored & np.isin(rows.folds, folds)
    if len(kept) in (0, len(tables)) or not chosen_on.any():
        return None
    probs = _compared(folder, tables, members.unit_ids[chosen_on])
    here = Rows(
        task=rows.task,
        probs=rows.task.outcomes(probs),
        targets=rows.targets[chosen_on],
        folds=rows.folds[chosen_on],
        groups=rows.groups[chosen_on],
        weight=rows.weight[chosen_on],
        names=tuple(tables),
        families=("",) * len(tables),
    )
    share = float(rows.weight[chosen_on].sum() / rows.weight.sum())
    optimism = optimism_of_choice(here, kept, rng)
    return Selection(
        configurations=len(tables),
        kept=len(kept),
        folds=tuple(np.unique(rows.folds[chosen_on]).tolist()),
        units=here.n_units,
        groups=here.n_groups,
        optimism=optimism,
        share=share,
    )


def _chosen_on(folder: StudyFolder, members: Stack) -> list[int]:
    """Return the folds on which trials were chosen, as the tables of the members' single folds name them."""
    tables = [path for trial in members.trials for path in folder.trial(trial).root.glob("folds/*/oof.parquet")]
    return sorted({fold for path in tables for fold in files.read_metadata(path)["selected_on"]})


def _tried(folder: StudyFolder, folds: Sequence[int]) -> dict[str, list[OofTable]]:
    """Return the tables of the folds that chose, after their last epoch, of each trial that has them all."""
    found = {}
    for root in sorted((folder.root / "trials").glob("*")):
        paths = [folder.trial(root.name).fold(k).oof for k in folds]
        if paths and all(map(Path.is_file, paths)):
            found[root.name] = [OofTable.read(path) for path in paths]
    return found


def _compared(folder: StudyFolder, tried: Mapping[str, list[OofTable]], units: np.ndarray) -> np.ndarray:
    """Return the predictions (n, M, K) of units by trials, as the search compared these.

    Units that the study does not score are predicted after the last epoch alone: where there are such, all trials are
    compared after it.
    """
    study = folder.read_study()
    compared = [_as_compared(folder.trial(trial), tables, study) for trial, tables in tried.items()]
    probs = np.stack([_aligned(tables, units) for tables in compared], axis=1)
    if np.isnan(probs).any():
        probs = np.stack([_aligned(tables, units) for tables in tried.values()], axis=1)
    return probs


def _as_compared(trial: TrialFolder, tables: Sequence[OofTable], study: Mapping[str, Any]) -> list[OofTable]:
    """Return the tables of a trial's folds, each at the epoch that these folds choose, as when the search compared it.

    tables: of one fold each, after its last epoch
    """
    rule, folds = study["epoch"], [int(table.folds[0]) for table in tables]
    if rule == "last" or (rule == "cross_fitted" and len(folds) == 1):  # a fold alone has none to choose its epoch
        return list(tables)
    curve = files.read_table(trial.epochs, ["fold", "epoch", "score"])
    scores = np.stack([curve["score"][curve["fold"] == fold].to_numpy() for fold in folds])
    units = np.array([int((table.votes >= study["score"]["min_votes"]).sum()) for table in tables])
    known = study.get("epoch_candidates")  # older studies have none: every epoch could be chosen
    candidates = epoch_selection.EVERY if known is None else epoch_selection.Candidates(**known)
    epochs = epoch_selection.choose(rule, candidates, scores, units)
    return [
        replace(table, probs=np.load(trial.fold(fold).by_epoch, mmap_mode="r")[epoch - 1].astype(np.float64))
        for table, fold, epoch in zip(tables, folds, epochs, strict=True)
    ]


def _aligned(tables: list[OofTable], units: np.ndarray) -> np.ndarray:
    """Return a trial's predictions (n, K) of these units."""
    ids, probs = np.concatenate([t.unit_ids for t in tables]), np.concatenate([t.probs for t in tables])
    order = np.argsort(ids)
    return probs[order[np.searchsorted(ids, units, sorter=order)]]
