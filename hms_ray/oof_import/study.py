"""Make a study of one file with the truth and of files with predictions."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
    """Make a study of one file with targets and folds and of files with predictions; the file stem names a member.

    The labels file has `<class>_vote` columns (counts, or shares that sum to 1), and if known `fold` (else the folds of
    a file of predictions count, or patients are dealt to folds), `patient_id` (the group that no fold may split) and
    `votes` (how many a unit has; else the sum of counts, and 1 for shares). The others have a column for each class in
    one of the forms of `_columns`; targets and folds that they carry along must be the labels'. All are joined on the
    id columns they share: `id` or `<anything>_id`.
    Nothing is written unless every file is sound. Importing the same files again changes nothing.

    paths: CSV, parquet or npy (see `_read.read`); min_votes: the score's default population in a new study; a study
    that exists keeps its own. None: 1; labels: the file with the truth, else the one of `paths` that looks like it;
    columns: {class: column} of prediction files that have these; ids: the columns to join on; allow_missing: keep the
    rows that every file has.
    Returns what was left out, one sentence each; the study keeps these, and its ensemble repeats them.

    Raises:
        ConfigError: no files, no or several labels files, names that collide, or a study of something else.
        DataError: files whose rows cannot be or do not fit; the message names each file and the rows.
    """
    faults = Faults()
    truth, predictions = _sort_out(paths, labels, columns or {}, faults)
    whole, members, of_folds = _checked(truth, predictions, columns or {}, ids, allow_missing, faults)
    common = common_rows(members, whole)
    if not common.any():
        raise nothing_common(members, whole, truth)
    kept = whole if common.all() else select(whole, common)
    left_out = [*of_folds, *notes(members, whole, truth, common)]
    _write(kept, [member.table(kept) for member in members], folder, truth.path, min_votes, left_out)
    return left_out


def _sort_out(
    paths: Sequence[Path], labels: Path | None, columns: Mapping[str, str], faults: Faults
) -> tuple[Source, list[Source]]:
    """Return the labels file and the prediction files, names checked; files that cannot be read are noted."""
    if not paths:
        raise ConfigError("no out-of-fold files were given, or the pattern matched none")
    chosen = without_ids_files([Path(path) for path in paths])
    if labels is not None:  # a pattern may have matched it as well; it is no member
        chosen = [path for path in chosen if path.resolve() != Path(labels).resolve()]
    sources = [source for path in chosen if (source := faults.attempt(read, path))]
    truth = _find_labels(sources, columns, faults) if labels is None else faults.attempt(read, Path(labels))
    if truth is None:
        faults.raise_any()
    assert truth is not None
    predictions = [source for source in sources if source is not truth]
    if not predictions and not faults:
        raise ConfigError(f"{truth.path} holds the labels, but no file with predictions was given")
    _check_names(predictions, faults)
    return truth, predictions


def _find_labels(sources: Sequence[Source], columns: Mapping[str, str], faults: Faults) -> Source | None:
    found = [source for source in sources if is_labels(source, columns)]
    found = found or [source for source in sources if is_labels(source, columns, folds=False)]
    if len(found) > 1:  # predictions that lack a class may be among them
        found = [source for source in found if is_labels(source, columns, own=any)] or found
    if len(found) == 1:
        return found[0]
    if found or not faults:  # else a file that cannot be read may be the one
        names = ", ".join(str(source.path) for source in found) or "none of " + few(s.path for s in sources)
        rule = f"exactly one file must hold the labels: `{VOTE.format('<class>')}` columns, and `fold` if known"
        faults.add(ConfigError(f"{rule}; found: {names}. --labels FILE says which"))
    return None


def _check_names(predictions: Sequence[Source], faults: Faults) -> None:
    """Note file stems that cannot name a member, and two files of one stem."""
    by_stem: dict[str, Path] = {}
    for source in predictions:
        stem = source.path.stem
        faults.attempt(check_id, stem)
        if stem in by_stem:
            both = f"{by_stem[stem]} and {source.path} would both be the member {stem!r}"
            faults.add(ConfigError(f"{both}; rename one"))
        by_stem[stem] = source.path


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
    truth, of_folds = (faults.attempt(with_folds, truth, predictions, ids) if ids else None) or (truth, [])
    whole = faults.attempt(template, truth, ids, task) if ids and (FOLD in truth or not faults) else None
    named = faults.attempt(named_columns, columns, task.classes, predictions)
    if named is None:  # every file would seem to lack its columns
        faults.raise_any()
    found = [read_member(source, ids, task, named or [], faults) for source in predictions]
    members = [member for member in found if member is not None]
    if whole is not None:
        _compare(members, whole, truth, ids, allow_missing, faults)
    faults.raise_any()
    assert whole is not None
    return whole, members, of_folds


def _compare(
    members: Sequence[Member], whole: OofTable, truth: Source, ids: Sequence[str], allow_missing: bool, faults: Faults
) -> None:
    """Note where members contradict the labels or, unless that is allowed, have other rows."""
    common = None if faults else common_rows(members, whole)  # unknown where a file could not be read
    for member in members:
        sentences = list(misfits(member, whole, truth, ids))
        sentences += [] if allow_missing else absences(member, whole, truth, ids, common)
        for sentence in sentences:
            faults.add(DataError(sentence))


def _write(
    kept: OofTable,
    tables: Sequence[OofTable],
    folder: StudyFolder,
    labels: Path,
    min_votes: int | None,
    left_out: list[str],
) -> None:
    scored = _default_min_votes(folder, min_votes)
    population(kept.votes, scored)
    folder.claim(_identity(kept, labels, scored, left_out))
    columns = {"unit_id": kept.unit_ids, "group_id": kept.group_ids, "fold": kept.folds}
    files.write_table(folder.folds, pd.DataFrame(columns))
    before = {trial: folder.oof(trial).read_bytes() for trial in folder.oof_ids()}
    for table in tables:
        table.write(folder.oof(table.trial))
    if before:
        log.info("%s: %s", folder.root, _kept(before, folder, [table.trial for table in tables]))
    if min_votes not in (None, scored):
        log.info(
            "%s: the study's population stays units with >= %d votes; --min-votes is for this ensemble only",
            folder.root,
            scored,
        )


def _kept(before: Mapping[str, bytes], folder: StudyFolder, imported: Sequence[str]) -> str:
    """Say which tables a study that had some has now; before: their bytes by trial."""
    same = [trial for trial in imported if before.get(trial) == folder.oof(trial).read_bytes()]
    parts = {
        "added": [trial for trial in imported if trial not in before],
        "replaced": [trial for trial in imported if trial in before and trial not in same],
        "unchanged": same,
        "kept from before": [trial for trial in before if trial not in imported],
    }
    return "; ".join(f"{word} {few(trials, 12)}" for word, trials in parts.items() if trials)


def _identity(kept: OofTable, labels: Path, min_votes: int, left_out: list[str]) -> dict[str, Any]:
    groups = np.unique(kept.group_ids)
    return {
        "task": kept.task.to_dict(),
        "data": {"name": SPACE, "root": str(labels), "params": {}, "fingerprint": kept.data_fingerprint}
        | {"units": len(kept.unit_ids), "groups": len(groups), "notes": left_out},
        "folds": {"k": len(np.unique(kept.folds)), "seed": None, "fingerprint": kept.folds_fingerprint},
        "score": {"min_votes": min_votes},
        "epoch": "given",
    }


def _default_min_votes(folder: StudyFolder, min_votes: int | None) -> int:
    """A study keeps the population it began with; other ones are a matter of each ensemble."""
    if folder.study.is_file():
        return folder.read_study()["score"]["min_votes"]
    return 1 if min_votes is None else min_votes
