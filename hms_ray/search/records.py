"""The lines of a journal, as plain values and without Optuna: one JSON record a line; and a trial's parameters."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hms_ray.errors import DataError

Record = dict[str, Any]

MEMBER = "space"  # the dimension of a union that says which of its spaces a trial is of


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
