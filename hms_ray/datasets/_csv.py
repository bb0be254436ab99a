"""The CSV tables of a dataset's folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hms_ray.core.errors import DataError


def read(path: Path, columns: Sequence[str], **how: Any) -> pd.DataFrame:
    """Return a table that has these columns, whatever others it has; how: as pandas.read_csv takes it.

    Raises:
        DataError: it is no CSV, lacks a column, has one twice, or has no rows.
    """
    try:
        header = pd.read_csv(path, header=None, nrows=1, dtype=str).iloc[0].dropna().tolist()
        table = pd.read_csv(path, **how)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable CSV ({' '.join(str(error).split())})") from error
    missing = [name for name in columns if name not in table]
    if missing:
        raise DataError(f"{path}: missing column {', '.join(missing)}; it has {', '.join(table.columns)}")
    twice = [name for name in columns if header.count(name) > 1]  # pandas would give the second another name
    if twice:
        raise DataError(f"{path}: column {twice[0]!r} stands {header.count(twice[0])} times; it must stand once")
    if table.empty:
        raise DataError(f"{path}: it has no rows")
    return table
