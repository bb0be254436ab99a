"""Make a study of one file with labels and of files with predictions."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from hms_ray.core import files
from hms_ray.core.errors import ConfigError, DataError
from hms_ray.oof_import.columns import VOTE, is_labels, named_columns
from hms_ray.oof_import.faults import Faults, few
from hms_ray.oof_import.ids import join_columns, name_id
from hms_ray.oof_import.labels import FOLD, SPACE, select, task_of, template, with_folds
from hms_ray.oof_import.members import Member, absences, common_rows, misfits, notes, nothing_common, read_member
from hms_ray.oof_import.read import read, without_ids_files
from hms_ray.oof_import.source import Source
from hms_ray.study.folder import StudyFolder, check_id
from hms_ray.study.oof import OofTable, population

log = logging.getLogger(__name__)


def import_foreign(
    paths: Sequence[Path],
    folder: StudyFolder,
    min_votes: int | None = None,
    *,
    labels: Path | None = None,
    columns: Mapping[str, str] | None = None,
    ids: Sequence[str] = (),
    allow_missing: bool = False,
) -> list[str]:
    """Make a study of one file with labels and folds and of files with predictions; the file stem names a member.

    The labels file has `<class>_vote` columns (counts, or shares that sum to 1), and optionally `fold` (else the folds
    of a file of predictions are used, or patients are dealt to folds), `patient_id` (the group that no fold may split)
    and `votes` (their number for each unit; else the sum of counts, and 1 for shares). The others have a column for
    each class in one of the forms of `columns.FORMS`; their targets and folds must be those of the labels, if they have
    any. All are joined on the id columns they share: `id` or `<anything>_id`.
    Nothing is written unless every file is valid. Importing the same files again changes nothing.

    paths: CSV, parquet or npy (see `read.read`)
    min_votes: the score's population in a new study, 1 for None; an existing study keeps its own
    labels: the labels file; else the one of `paths` that has the form of labels
    columns: {class: column} of prediction files with these columns; ids: the columns to join on
    allow_missing: keep the rows that every file has
    Returns notes on ignored rows and on folds; the study keeps them, and its ensemble repeats them.

    Raises:
        ConfigError: no files, no or several labels files, names that collide, or a study of something else.
        DataError: invalid or contradictory rows; the message names each file and the rows.
    """
    faults = Faults()
    truth, predictions = _sort_out(paths, labels, columns or {}, faults)
    whole, members, fold_notes = _checked(truth, predictions, columns or {}, ids, allow_missing, faults)
    common = common_rows(members, whole)
    if not common.any():
        raise nothing_common(members, whole, truth)
    kept = whole if common.all() else select(whole, common)
    all_notes = [*fold_notes, *notes(members, whole, truth, common)]
    _write(kept, [member.table(kept) for member in members], folder, truth.path, min_votes, all_notes)
    return all_notes


def _sort_out(
    paths: Sequence[Path], labels: Path | None, columns: Mapping[str, str], faults: Faults
) -> tuple[Source, list[Source]]:
    """Return the labels file and the prediction files, names checked; unreadable files are noted as faults."""
    if not paths:
        raise ConfigError("no out-of-fold files were given, or the pattern matched none")
    chosen = without_ids_files([Path(path) for path in paths])
    if labels is not None:  # a pattern may have matched it as well; it is no member
        chosen = [path for path in chosen if path.resolve() != Path(labels).resolve()]
    sources = [source for path in chosen if (source := faults.attempt(read, path))]
    if labels is not None:
        truth = faults.attempt(read, Path(labels))
    else:
        candidates = [source for source in sources if is_labels(source, columns)]
        candidates = candidates or [source for source in sources if is_labels(source, columns, folds=False)]
        if len(candidates) > 1:  # predictions that lack a class may be among them
            candidates = [source for source in candidates if is_labels(source, columns, match=any)] or candidates
        truth = candidates[0] if len(candidates) == 1 else None
        if truth is None and (candidates or not faults):  # else an unreadable file may hold the labels
            names = ", ".join(str(source.path) for source in candidates) or "none of " + few(s.path for s in sources)
            rule = f"exactly one file must hold the labels: `{VOTE.format('<class>')}` columns, and `fold` if known"
            faults.add(ConfigError(f"{rule}; found: {names}. --labels FILE says which"))
    if truth is None:
        faults.raise_any()
    assert truth is not None
    predictions = [source for source in sources if source is not truth]
    if not predictions and not faults:
        raise ConfigError(f"{truth.path} holds the labels, but no file with predictions was given")
    by_stem: dict[str, Path] = {}
    for path in (source.path for source in predictions):
        faults.attempt(check_id, path.stem)
        if path.stem in by_stem:
            both = f"{by_stem[path.stem]} and {path} would both be the member {path.stem!r}"
            faults.add(ConfigError(f"{both}; rename one"))
        by_stem[path.stem] = path
    return truth, predictions


def _checked(
    truth: Source,
    predictions: Sequence[Source],
    columns: Mapping[str, str],
    named_ids: Sequence[str],
    allow_missing: bool,
    faults: Faults,
) -> tuple[OofTable, list[Member], list[str]]:
    """Return the labels' table without predictions, the members, and notes on folds, or raise every file's faults."""
    task = faults.attempt(task_of, truth)
    if task is None:
        faults.raise_any()
    assert task is not None
    predictions = [source for s in predictions if (source := faults.attempt(name_id, s, truth, named_ids))]
    ids = join_columns(truth, predictions, named_ids, faults)
    truth, fold_notes = (faults.attempt(with_folds, truth, predictions, ids) if ids else None) or (truth, [])
    whole = faults.attempt(template, truth, ids, task) if ids and (FOLD in truth or not faults) else None
    named = faults.attempt(named_columns, columns, task.classes, predictions)
    if named is None:  # every file would seem to lack its columns
        faults.raise_any()
    read_members = [read_member(source, ids, task, named or [], faults) for source in predictions]
    members = [member for member in read_members if member is not None]
    if whole is not None:
        common = None if faults else common_rows(members, whole)  # unknown if a file could not be read
        for member in members:
            sentences = list(misfits(member, whole, truth, ids))
            sentences += [] if allow_missing else absences(member, whole, truth, ids, common)
            for sentence in sentences:
                faults.add(DataError(sentence))
    faults.raise_any()
    assert whole is not None
    return whole, members, fold_notes


def _write(
    kept: OofTable,
    tables: Sequence[OofTable],
    folder: StudyFolder,
    labels: Path,
    min_votes: int | None,
    all_notes: list[str],
) -> None:
    """Write folds and tables into a new study, or into one of the same units; log which tables changed."""
    scored = 1 if min_votes is None else min_votes
    if folder.study.is_file():  # the population of a study is fixed when it is made
        scored = folder.read_study()["score"]["min_votes"]
    population(kept.votes, scored)
    data = {"name": SPACE, "root": str(labels), "params": {}, "fingerprint": kept.data_fingerprint}
    counts = {"units": len(kept.unit_ids), "groups": len(np.unique(kept.group_ids)), "notes": all_notes}
    folds = {"k": len(np.unique(kept.folds)), "seed": None, "fingerprint": kept.folds_fingerprint}
    folder.claim(
        {
            "task": kept.task.to_dict(),
            "data": {**data, **counts},
            "folds": folds,
            "score": {"min_votes": scored},
            "epoch": "given",
        }
    )
    columns = {"unit_id": kept.unit_ids, "group_id": kept.group_ids, "fold": kept.folds}
    files.write_table(folder.folds, pd.DataFrame(columns))
    before = {trial: folder.oof(trial).read_bytes() for trial in folder.oof_ids()}
    for table in tables:
        table.write(folder.oof(table.trial))
    if before:
        imported = [table.trial for table in tables]
        same = [trial for trial in imported if before.get(trial) == folder.oof(trial).read_bytes()]
        changes = {
            "added": [trial for trial in imported if trial not in before],
            "replaced": [trial for trial in imported if trial in before and trial not in same],
            "unchanged": same,
            "kept from before": [trial for trial in before if trial not in imported],
        }
        texts = (f"{word} {few(trials, 12)}" for word, trials in changes.items() if trials)
        log.info("%s: %s", folder.root, "; ".join(texts))
    if min_votes not in (None, scored):
        log.info(
            "%s: the study's population stays units with >= %d votes; --min-votes is for this ensemble only",
            folder.root,
            scored,
        )
