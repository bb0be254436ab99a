"""The trials of a study as a table, replayed from its journal without Optuna, whose import takes longer than this.

`journal_file` reads the same file into Optuna's own storage; both find the same trials.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hms_ray.study.journal_records import (
    Contents,
    Operation,
    Record,
    check_recorded,
    damage,
    own_params,
    parsed,
    spelled,
    trial_id,
)

if TYPE_CHECKING:
    import pandas as pd

    from hms_ray.study.folder import StudyFolder

COLUMNS = ["trial", "space", "number", "state", "value", "score", "estimate", "fidelity", "seconds", "cause", "params"]
STATES = ("RUNNING", "COMPLETE", "PRUNED", "FAIL", "WAITING")  # by Optuna's numbers
FINISHED = ("COMPLETE", "PRUNED", "FAIL")


KNOWN = range(10)


@dataclass
class Trial:
    """One trial as the records so far have it."""

    space: int
    number: int
    state: str
    value: float | None
    attrs: dict[str, Any]
    params: dict[str, Any] = field(default_factory=dict)


@dataclass
class Replay:
    """Spaces by number, None for a deleted one, and trials in the order of their creation."""

    spaces: list[str | None] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)

    def apply(self, record: Record) -> None:
        """Take in one record; KeyError, TypeError, ValueError or IndexError where it says what cannot be."""
        match record["op_code"]:
            case Operation.CREATE_STUDY:
                if record["study_name"] not in self.spaces:
                    self.spaces.append(record["study_name"])
            case Operation.DELETE_STUDY:
                self.spaces[record["study_id"]] = None
            case Operation.CREATE_TRIAL:
                self._create(record)
            case Operation.SET_TRIAL_PARAM if trial := self._open(record):
                trial.params[record["param_name"]] = _external(record["distribution"], record["param_value_internal"])
            case Operation.SET_TRIAL_STATE_VALUES if trial := self._open(record):
                trial.state = STATES[record["state"]]
                trial.value = trial.value if record["values"] is None else record["values"][0]
            case Operation.SET_TRIAL_USER_ATTR if trial := self._open(record):
                trial.attrs |= record["user_attr"]
            case other if other not in KNOWN:
                raise ValueError(f"op_code {other!r}")

    def _create(self, record: Record) -> None:
        space = record["study_id"]
        if not 0 <= space < len(self.spaces) or self.spaces[space] is None:
            return
        values = record.get("values") or [record.get("value")]
        trial = Trial(
            space=space,
            number=sum(trial.space == space for trial in self.trials),
            state=STATES[record.get("state", 0)],
            value=values[0],
            attrs=dict(record.get("user_attrs", {})),
        )
        kinds = record.get("distributions", {})
        trial.params |= {name: _external(kinds[name], value) for name, value in record.get("params", {}).items()}
        self.trials.append(trial)

    def _open(self, record: Record) -> Trial | None:
        """Return the record's trial if there is one that has not finished."""
        number = record["trial_id"]
        found = self.trials[number] if 0 <= number < len(self.trials) else None
        return found if found and found.state not in FINISHED else None


def trials_table(folder: StudyFolder) -> pd.DataFrame:
    """Return one row a trial of every space.

    trial, space, number, state, value (NaN unless COMPLETE), score (of its own predictions), estimate and fidelity
    (NaN unless PRUNED), seconds, cause (of a stop or a failure), params

    Raises:
        DataError: a line of the journal before the last is no record, says what cannot be, is missing or stands twice;
            or the journal lacks trials that the folder has.
    """
    import pandas as pd

    found = Replay()
    for line, record in _records(folder.journal):
        try:
            found.apply(record)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise damage(folder.journal, line, f"a record that cannot be ({error!r})") from error
    names = enumerate(found.spaces)
    rows = [_row(name, t) for space, name in names if name is not None for t in found.trials if t.space == space]
    check_recorded(folder, (row["trial"] for row in rows))
    return pd.DataFrame(rows, columns=COLUMNS)


def _records(path: Path) -> Iterator[tuple[int, Record]]:
    """Yield the records with their lines, counted from 1; a last line that is none may be half written."""
    if not path.is_file():
        return
    broken, contents = 0, Contents()
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if broken:
                raise damage(path, broken, "not a record")
            record = parsed(line)
            if record is None:
                broken = number
                continue
            if fault := contents.fault(record, number):
                raise damage(path, number, fault)
            yield number, record


def _external(distribution: str, value: float) -> Any:
    """Return the run's value of what Optuna holds: the position of a choice, or a number."""
    content = json.loads(distribution)
    if content["name"] == "CategoricalDistribution":
        return content["attributes"]["choices"][int(value)]
    return int(value) if content["name"].startswith("Int") else float(value)


def _row(space: str, trial: Trial) -> dict[str, Any]:
    nan, attrs = math.nan, trial.attrs
    complete = trial.state == "COMPLETE"
    return {
        "trial": trial_id(space, trial.number),
        "space": space,
        "number": trial.number,
        "state": trial.state,
        "value": trial.value if complete else nan,
        "score": attrs.get("score", trial.value) if complete else nan,
        "estimate": attrs.get("estimate", nan),
        "fidelity": attrs.get("fidelity", nan),
        "seconds": attrs.get("seconds", nan),
        "cause": attrs.get("cause", ""),
        "params": {path: spelled(value) for path, value in own_params(trial.params).items()},
    }
