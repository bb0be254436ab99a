"""Read CSV, parquet and npy files as named columns. The ids of a plain array lie in a second file beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tokenize import TokenError

import numpy as np
import pandas as pd
from pyarrow import ArrowException

from hms_ray.core import files
from hms_ray.core.errors import DataError
from hms_ray.oof_import.source import Source, key

SUFFIXES = (".csv", ".parquet", ".npy")
NPY_MAGIC = b"\x93NUMPY"
UNNAMED_ID = "unit_id"
CSV_ERRORS = (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError)
HEADER_ERRORS = (SyntaxError, TokenError, TypeError, OverflowError)
NPY_ERRORS = (ValueError, EOFError, MemoryError, *HEADER_ERRORS)


def read(path: Path) -> Source:
    """Read one file.

    The fields of a structured npy are columns. A plain one, (N, K) numbers, is read together with its ids: X.npy with
    X.ids.csv, X.ids.parquet or X.ids.npy of N rows, and the other columns of that file (`fold`, votes).

    Raises:
        DataError: the file is missing, broken, empty or of another kind, or an array has no ids beside it.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path}: out-of-fold files end in .csv, .parquet or .npy, not {path.suffix!r}")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    source = _npy(path) if path.suffix.lower() == ".npy" else Source(path, _table(path))
    if source.frame.empty:
        raise DataError(f"{path}: it has no rows")
    return source


def ids_files(path: Path) -> list[Path]:
    """Return the possible files of a plain array's ids."""
    return [path.with_name(f"{path.stem}.ids{suffix}") for suffix in SUFFIXES]


def without_ids_files(paths: Sequence[Path]) -> list[Path]:
    """Remove the ids files of arrays among the paths: a pattern such as *.npy matches both."""
    arrays = [path for path in paths if path.suffix.lower() == ".npy"]
    ids = {candidate for path in arrays for candidate in ids_files(path)}
    return [path for path in paths if path not in ids]


def _table(path: Path) -> pd.DataFrame:
    """Read a CSV or parquet file."""
    if path.suffix.lower() == ".parquet":
        try:
            frame = files.read_table(path)
            frame.select_dtypes(["str", "object"]).to_numpy(dtype=object)  # decodes and so checks text
        except (ValueError, KeyError, TypeError, ArrowException) as error:  # broken text, or broken metadata of pandas
            raise DataError(f"{path}: broken parquet ({_first_line(error)})") from error
        if any(name is not None for name in frame.index.names):  # ids that pandas wrote as the index
            frame = frame.reset_index(allow_duplicates=True)
        _check_names(path, list(frame.columns))
        return frame.reset_index(drop=True)
    try:
        names = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False).iloc[0].tolist()
        _check_names(path, names)  # before pandas renames `a, a` to `a, a.1`
        frame = pd.read_csv(path)
    except CSV_ERRORS as error:
        raise DataError(f"{path}: not a readable CSV ({_first_line(error)})") from error
    if not isinstance(frame.index, pd.RangeIndex):
        raise DataError(f"{path}: not a readable CSV (its rows have more cells than its header has names)")
    return frame


def _check_names(path: Path, names: Sequence[object]) -> None:
    """Refuse two columns of one name, case and blanks aside, because the name would be ambiguous."""
    first: dict[str, object] = {}
    for name in names:
        if key(name) in first and key(name):
            raise DataError(f"{path}: two columns of one name, case and blanks aside: {first[key(name)]!r}, {name!r}")
        first[key(name)] = name


def _npy(path: Path) -> Source:
    """Read a structured array, or a plain one and the file of its ids."""
    array = _load(path)
    if names := array.dtype.names:
        return Source(path, _structured(path, array, names))
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        rule = "an array without column names must hold numbers (N rows, K classes)"
        raise DataError(f"{path}: {rule}, but is {array.dtype} of shape {array.shape}")
    present = [candidate for candidate in ids_files(path) if candidate.is_file()]
    if len(present) > 1:
        raise DataError(f"{path}: its ids lie in several files: {', '.join(map(str, present))}; keep one")
    if not present:
        places = ", ".join(candidate.name for candidate in ids_files(path))
        rule = "a plain array has no ids, and rows are never joined on their order"
        raise DataError(f"{path}: {rule}; put the ids beside it in one of {places}")
    ids = _ids_array(present[0]) if present[0].suffix == ".npy" else Source(present[0], _table(present[0]))
    if len(ids.frame) != len(array):
        raise DataError(f"{path}: it has {len(array)} rows, but its ids in {ids.path} are {len(ids.frame)}")
    columns = tuple(f"array column {k}" for k in range(array.shape[1]))
    values = pd.DataFrame(_native(path, array), columns=list(columns))
    return Source(path, pd.concat([ids.frame, values], axis=1), columns, ids.id_unnamed)


def _load(path: Path) -> np.ndarray:
    with open(path, "rb") as file:
        head = file.read(len(NPY_MAGIC))
    if head != NPY_MAGIC:
        raise DataError(f"{path}: not an npy file: it begins with {head!r}, not {NPY_MAGIC!r}")
    try:
        return np.load(path, allow_pickle=False)
    except NPY_ERRORS as error:
        if "Object arrays" in str(error):
            rule = "it holds Python objects, a pickle, which could run any code and is not loaded"
            raise DataError(f"{path}: {rule}; save numbers and strings: a structured array, CSV or parquet") from error
        raise DataError(f"{path}: broken npy ({_first_line(error)})") from error


def _structured(path: Path, array: np.ndarray, names: tuple[str, ...]) -> pd.DataFrame:
    """Return the fields of a structured array (N,) as columns."""
    if array.ndim != 1:
        raise DataError(f"{path}: a structured array must be 1-D, one record a row, but has shape {array.shape}")
    _check_names(path, names)
    return pd.DataFrame({name: _native(path, array[name], name) for name in names})


def _native(path: Path, values: np.ndarray, field: str = "") -> np.ndarray:
    """Return numbers in this machine's byte order, and bytes as text."""
    if values.dtype.kind not in "biufSU" or (field and values.ndim != 1):
        raise DataError(f"{path}: field {field!r} must hold one number or text a row, not {values.dtype}")
    if values.dtype.kind == "S":
        return np.char.decode(values, "utf-8", "replace")
    return values.astype(values.dtype.newbyteorder("="))


def _ids_array(path: Path) -> Source:
    array = _load(path)
    if names := array.dtype.names:
        return Source(path, _structured(path, array, names))
    if array.ndim != 1:
        raise DataError(f"{path}: ids must be 1-D, or a structured array of id columns, but have shape {array.shape}")
    return Source(path, pd.DataFrame({UNNAMED_ID: _native(path, array, UNNAMED_ID)}), id_unnamed=True)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
