"""Atomic writes, checked reads, and fingerprints: no reader sees a partly written file.

pandas, pyarrow and YAML are imported in the functions that need them, so that commands start quickly.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hms_ray.core.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

PARQUET_MAGIC = b"PAR1"
METADATA_KEY = b"hms_ray"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside `path`; on success it replaces `path`, on failure it is removed.

    An OSError of the temporary file names `path` instead.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if str(error.filename) == str(temporary) and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Raise OSError, with the name of the folder, unless a file can be created at `path`; nothing is created.

    Missing folders would be created, so the nearest existing one is checked.
    """
    folder = Path(path).absolute().parent
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    if not os.access(folder, os.W_OK | os.X_OK):
        code = errno.EROFS if os.statvfs(folder).f_flag & os.ST_RDONLY else errno.EACCES
        raise OSError(code, os.strerror(code), str(folder))


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_array(path: Path, array: np.ndarray) -> None:
    """Write an array of numbers as .npy atomically."""
    import numpy as np

    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array, allow_pickle=False)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: object) -> None:
    """Write JSON atomically; NaN is refused, because it is not valid JSON."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; raise DataError, with the name of the file, if it is missing or broken."""
    try:
        return json.loads(_existing(path).read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not valid JSON ({error})") from error


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a file, one per line, up to the first incomplete line; nothing if there is no file.

    A killed process or a power failure leaves an incomplete last line.
    """
    content = Path(path).read_bytes() if Path(path).is_file() else b""
    for line in content.split(b"\n"):
        try:
            item = json.loads(line)
        except (json.JSONDecodeError, UnicodeDecodeError):
            return
        if not isinstance(item, dict):
            return
        yield item


def write_yaml(path: Path, content: object) -> None:
    """Write YAML atomically, with keys in their order."""
    import yaml

    write_text(path, yaml.safe_dump(content, sort_keys=False))


def write_table(path: Path, table: pd.DataFrame, metadata: Mapping[str, object] | None = None) -> None:
    """Write parquet atomically, with `metadata` as JSON in the schema."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrow = pa.Table.from_pandas(table, preserve_index=False)
    if metadata is not None:
        arrow = arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), METADATA_KEY: json.dumps(metadata)})
    with atomic_path(path) as temporary, open(temporary, "wb") as file:  # an OSError of pyarrow's own names no file
        pq.write_table(arrow, file)


def read_table(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """Read a parquet file, or these columns of it.

    Raises:
        DataError: the file is missing, is not parquet, is truncated, or lacks a column; the message names the file.
    """
    return _read_arrow(path, columns).to_pandas()


def read_channels(path: Path, columns: Sequence[str]) -> np.ndarray:
    """Read columns of a parquet file as one float32 array (len(columns), rows), nulls and infinite values as NaN.

    Raises:
        DataError: as in read_table, or a column does not hold numbers.
    """
    import numpy as np
    import pyarrow as pa

    table = _read_arrow(path, columns)
    channels = np.empty((len(columns), table.num_rows), dtype=np.float32)
    for i, name in enumerate(columns):
        kind = table.schema.field(name).type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
            raise DataError(f"{path}: column {name!r} must hold numbers, but holds {kind}")
        channels[i] = table[name].to_numpy()
    with np.errstate(invalid="ignore"):
        total = channels.sum()
    if not np.isfinite(total):  # a sum is fast, and nearly always finite
        channels[np.isinf(channels)] = np.nan
    return channels


def count_rows(path: Path, columns: Sequence[str]) -> int:
    """Return the number of rows of a parquet file with these columns, from its footer; errors as in read_table."""
    with _opened(path) as file:
        _check_columns(path, file, columns)
        return file.metadata.num_rows


def column_step(path: Path, column: str) -> float | None:
    """Return the median difference of consecutive values of a column of numbers; None for fewer than two values.

    The smallest and largest value in the footer are enough if their difference is a whole number of rows. Errors as in
    read_table; None without such a column.
    """
    import numpy as np
    import pyarrow as pa

    with _opened(path) as file:
        if file.schema_arrow.names.count(column) != 1 or file.metadata.num_rows < 2:
            return None
        number = file.schema_arrow.names.index(column)
        parts = [file.metadata.row_group(i).column(number).statistics for i in range(file.metadata.num_row_groups)]
        if len(parts) == 1 and parts[0] is not None and parts[0].has_min_max and parts[0].null_count == 0:
            low, high = parts[0].min, parts[0].max
            if isinstance(low, int) and (high - low) % (file.metadata.num_rows - 1) == 0:
                return (high - low) / (file.metadata.num_rows - 1)
        values = file.read(columns=[column], use_threads=False).column(0)
        if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
            return None
        steps = np.diff(values.to_numpy().astype(np.float64))
        steps = steps[np.isfinite(steps)]
        return float(np.median(steps)) if len(steps) else None


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata that write_table wrote; {} for a file without any.

    Raises:
        DataError: as in read_table, or the metadata are not a JSON object.
    """
    with _opened(path) as file:
        content = (file.schema_arrow.metadata or {}).get(METADATA_KEY, b"{}")
    try:
        metadata = json.loads(content)
    except ValueError as error:
        raise DataError(f"{path}: its metadata are not valid JSON ({error})") from error
    if not isinstance(metadata, dict):
        raise DataError(f"{path}: its metadata must be a mapping, but are a {type(metadata).__name__}")
    return metadata


def check_parquet(path: Path) -> None:
    """Raise DataError unless the file exists and has the first and last bytes of parquet."""
    with open(_existing(path), "rb") as file:
        head = file.read(4)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 4))
        tail = file.read(4)
    if head != PARQUET_MAGIC:
        raise DataError(f"{path}: not a parquet file: it begins with {head!r}, not {PARQUET_MAGIC!r} (a renamed CSV?)")
    if tail != PARQUET_MAGIC or size < 12:
        raise DataError(f"{path}: truncated parquet: {size} bytes, and the closing {PARQUET_MAGIC!r} is missing")


def sweep(folder: Path) -> None:
    """Remove temporary files of killed writers; only for folders that no other process writes to."""
    for path in Path(folder).rglob(".*.tmp"):
        path.unlink(missing_ok=True)


def size_of(folder: Path) -> int:
    """Return the size in bytes of all files below a folder; files deleted meanwhile count 0."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(root, name)).st_size
    return total


def fingerprint(*parts: object) -> str:
    """Return a hash, 16 hex digits, of bytes and JSON values in their order."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        content = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode()
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()


def sha256(content: bytes) -> str:
    """Return the SHA-256 of bytes, 64 hex digits, as sha256sum prints it."""
    return hashlib.sha256(content).hexdigest()


def _existing(path: Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    return path


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a parquet file; any fault in it becomes a DataError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_parquet(path)
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: broken parquet ({str(error).splitlines()[0]})") from error


def _read_arrow(path: Path, columns: Sequence[str] | None) -> pa.Table:
    with _opened(path) as file:
        _check_columns(path, file, columns or ())
        return file.read(columns=None if columns is None else list(columns), use_threads=False)


def _check_columns(path: Path, file: pq.ParquetFile, columns: Sequence[str]) -> None:
    names = file.schema_arrow.names
    known = set(names)
    if len(known) < len(names):
        twice = [name for name in columns if names.count(name) > 1]
        if twice:
            raise DataError(f"{path}: column {twice[0]!r} stands {names.count(twice[0])} times; it must stand once")
    missing = [name for name in columns if name not in known]
    if missing:
        present = ", ".join(names[:8]) + (f" ... ({len(names)} columns)" if len(names) > 8 else "")
        raise DataError(f"{path}: missing column {', '.join(map(repr, missing[:5]))}; it has {present}")
