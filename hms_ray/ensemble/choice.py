"""The optimism that the choice of configurations adds to the score: they were chosen on folds that are scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hms_ray.core import files
from hms_ray.ensemble.result import Selection
from hms_ray.ensemble.rows import Rows
from hms_ray.ensemble.selection import optimism_of_choice
from hms_ray.study import epoch_selection
from hms_ray.study.folder import StudyFolder
from hms_ray.study.oof import OofTable, Stack
from hms_ray.study.tables import read_curves
from hms_ray.study.trial_store import after_epoch, stacked_scores


def correction(folder: StudyFolder, members: Stack, rows: Rows, rng: np.random.Generator) -> Selection | None:
    """Estimate the optimism in the cross-fitted score that is due to choosing configurations; None: none was chosen.

    The estimate covers the folds on which trials were chosen. Later rounds also chose on other folds; there, only the
    configurations that were kept have predictions, so nothing is estimated. The candidates of the choice are the trials
    with predictions of all folds on which trials were chosen. Trials that were stopped earlier have none, and are not
    part of the estimate.
    """
    paths = [path for trial in members.trials for path in folder.trial(trial).root.glob("folds/*/oof.parquet")]
    folds: list[int] = sorted({fold for path in paths for fold in files.read_metadata(path)["selected_on"]})
    tables = {}  # by trial, of each of these folds, after the last epoch
    for root in sorted((folder.root / "trials").glob("*")) if folds else ():
        paths = [folder.trial(root.name).fold(k).oof for k in folds]
        if all(path.is_file() for path in paths):
            tables[root.name] = [OofTable.read(path) for path in paths]
    kept = np.array([i for i, trial in enumerate(tables) if trial in members.trials], dtype=np.int64)
    chosen_on = rows.scored & np.isin(rows.folds, folds)
    if len(kept) in (0, len(tables)) or not chosen_on.any():
        return None
    probs = _compared(folder, tables, members.unit_ids[chosen_on])
    inside = Rows(
        task=rows.task,
        probs=rows.task.outcomes(probs),
        targets=rows.targets[chosen_on],
        folds=rows.folds[chosen_on],
        groups=rows.groups[chosen_on],
        weight=rows.weight[chosen_on],
        names=tuple(tables),
        families=("",) * len(tables),
    )
    return Selection(
        configurations=len(tables),
        kept=len(kept),
        folds=tuple(np.unique(inside.folds).tolist()),
        units=inside.n_units,
        groups=inside.n_groups,
        optimism=optimism_of_choice(inside, kept, rng),
        share=float(inside.weight.sum() / rows.weight.sum()),
    )


def _compared(folder: StudyFolder, tried: Mapping[str, list[OofTable]], units: np.ndarray) -> np.ndarray:
    """Return the predictions (n, M, K) of units by trials, as the search compared them.

    The search compares each trial at the epoch that these folds choose. Units that the study does not score have
    predictions after the last epoch only: if there are such units, all trials are compared after the last epoch.
    """
    study = folder.read_study()
    rule, min_votes = study["epoch"], study["score"]["min_votes"]
    known = study.get("epoch_candidates")  # missing in older studies, where every epoch could be chosen
    candidates = epoch_selection.EVERY if known is None else epoch_selection.Candidates(**known)
    compared = []
    for name, tables in tried.items():
        trial, folds = folder.trial(name), [int(table.folds[0]) for table in tables]
        if rule != "last" and not (rule == "cross_fitted" and len(folds) == 1):  # a single fold cannot choose its epoch
            curve = read_curves(trial.epochs)
            scores = {fold: curve["score"][curve["fold"] == fold].to_numpy() for fold in folds}
            counts = np.array([int((table.votes >= min_votes).sum()) for table in tables])
            epochs = epoch_selection.choose(rule, candidates, stacked_scores(scores, trial.epochs), counts)
            tables = [
                after_epoch(table, trial.fold(fold), epoch)
                for table, fold, epoch in zip(tables, folds, epochs, strict=True)
            ]
        compared.append(_aligned(tables, units))
    probs = np.stack(compared, axis=1)
    if np.isnan(probs).any():
        probs = np.stack([_aligned(tables, units) for tables in tried.values()], axis=1)
    return probs


def _aligned(tables: Sequence[OofTable], units: np.ndarray) -> np.ndarray:
    """Return a trial's predictions (n, K) of these units."""
    ids = np.concatenate([t.unit_ids for t in tables])
    probs = np.concatenate([t.probs for t in tables]).astype(np.float64)
    order = np.argsort(ids)
    return probs[order[np.searchsorted(ids, units, sorter=order)]]
