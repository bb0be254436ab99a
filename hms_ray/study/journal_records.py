"""The lines of a journal, as plain values and without Optuna: one JSON record a line; and a trial's parameters."""

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from typing import Any

from hms_ray.core.errors import DataError
from hms_ray.study.folder import StudyFolder

Record = dict[str, Any]

OF_A_SEARCH = re.compile(r".+-\d{4,}")  # the id of a trial that a search has begun
MEMBER = "space"  # the dimension of a union that says which of its spaces a trial is of


class Operation(IntEnum):
    """What a record does, by Optuna's numbers; those that change nothing of a trials' table are left out."""

    CREATE_STUDY = 0
    DELETE_STUDY = 1
    CREATE_TRIAL = 4
    SET_TRIAL_PARAM = 5
    SET_TRIAL_STATE_VALUES = 6
    SET_TRIAL_USER_ATTR = 8


class Contents:
    """What the records so far have begun, by which one that lacks its beginning, or begins again, is found.

    Optuna passes over both without a word: an emptied study would begin anew, a doubled one would have more trials.
    """

    def __init__(self) -> None:
        self.studies: list[str | None] = []  # the names, by id; None: deleted
        self.trials = 0
        self.begun: dict[str, int] = {}  # the line of each record that begins a study or a trial

    def fault(self, record: Record, line: int) -> str:
        """Add a record; return what is wrong with it, "" for nothing. What has no such keys is left to the reader."""
        code = record["op_code"]
        if code in (Operation.CREATE_STUDY, Operation.CREATE_TRIAL):
            first = self.begun.setdefault(json.dumps(record, sort_keys=True), line)
            if first != line:
                return f"it is line {first} once more, so the file holds records twice"
        study, trial = record.get("study_id"), record.get("trial_id")
        if isinstance(study, int) and study >= len(self.studies):
            return "it is of a study that no line before begins, so lines are missing"
        if isinstance(trial, int) and trial >= self.trials:
            return "it is of a trial that no line before begins, so lines are missing"
        name = record.get("study_name")
        if code == Operation.CREATE_STUDY and name not in self.studies:
            self.studies.append(name)
        elif code == Operation.DELETE_STUDY and isinstance(study, int):
            self.studies[study] = None
        elif code == Operation.CREATE_TRIAL and isinstance(study, int) and self.studies[study] is not None:
            self.trials += 1
        return ""


def trial_id(space: str, number: int) -> str:
    """Return the id of a space's trial, as the study folder uses it."""
    return f"{space}-{number:04d}"


def check_recorded(folder: StudyFolder, recorded: Iterable[str]) -> None:
    """Refuse a study whose journal lacks trials of its folder, though a trial's record is the first thing written.

    recorded: the ids of the trials that the journal has

    Raises:
        DataError: a trial has a folder and no record.
    """
    known = set(recorded)
    names = sorted(path.name for path in folder.root.glob("trials/*") if OF_A_SEARCH.fullmatch(path.name))
    if lost := [name for name in names if name not in known]:
        raise DataError(
            f"{folder.journal}: it has no record of {len(lost)} of the trials in {folder.root / 'trials'}, such as "
            f"{lost[0]}: it was emptied, cut or exchanged; put the file back from a copy, or choose another --study"
        )


def parsed(line: bytes) -> Record | None:
    """Return the record of a line, or None where it is no whole one."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except ValueError:  # no JSON, or no UTF-8
        return None
    return record if isinstance(record, dict) and "op_code" in record else None


def damage(path: Path, line: int, what: str) -> DataError:
    """Return the error that names a damaged line of a journal."""
    return DataError(
        f"{path}, line {line}: {what}. Only a last line that a crash cut short can be mended: put the file back from "
        "a copy, or choose another --study"
    )


def own_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return a trial's parameters by the run's paths: those of a union's trial without the name of its space."""
    prefix = f"{params[MEMBER]}." if MEMBER in params else ""
    return {path.removeprefix(prefix): value for path, value in params.items()}


def spelled(value: Any) -> Any:
    """Return a choice that Optuna holds as the space spells it: sections are held as JSON."""
    if isinstance(value, str) and value.startswith(("{", "[")):
        with suppress(json.JSONDecodeError):
            return json.loads(value)
    return value
