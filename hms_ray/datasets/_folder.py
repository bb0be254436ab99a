"""The folder of a dataset: is it there, and does it hold the tables that it is known by."""

from collections.abc import Sequence
from pathlib import Path

from hms_ray.core.errors import DataError


def missing_tables(root: Path, tables: Sequence[str], rule: str) -> list[str]:
    """Return those of the tables that the folder does not have.

    rule: what `--data` names, for the message

    Raises:
        DataError: there is no such folder, or it is a file.
    """
    if root.is_file():
        raise DataError(f"{root} is a file, not a folder; {rule}")
    if not root.is_dir():
        raise DataError(f"there is no folder {root}; {rule}")
    return [name for name in tables if not (root / name).is_file()]


def nearby(root: Path, table: str) -> str:
    """Return a hint at a folder above or right below that has the table; "" where there is none."""
    found = [path.parent for path in (root.parent / table, *sorted(root.glob(f"*/{table}"))) if path.is_file()]
    return f"; did you mean {found[0]}?" if found else ""
