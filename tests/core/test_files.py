"""A reader never sees half a file, and a broken file is named."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hms_ray.core import files
from hms_ray.core.errors import DataError

TABLE = pd.DataFrame({"unit_id": ["a", "b"], "fold": [0, 1], "x": [0.5, np.nan]})


def test_what_is_infinite_is_missing(tmp_path: Path) -> None:
    pd.DataFrame({"a": [1.0, np.inf, -np.inf], "b": [1e38, 1e38, 1e38]}).to_parquet(tmp_path / "a.parquet")
    channels = files.read_channels(tmp_path / "a.parquet", ["a", "b"])
    np.testing.assert_allclose(channels, np.float32([[1, np.nan, np.nan], [1e38, 1e38, 1e38]]))


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"a": float("nan")})
    with pytest.raises(KeyboardInterrupt), files.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert files.read_json(path) == {"a": 1}
    assert os.listdir(tmp_path) == ["study.json"]


def test_a_write_is_not_seen_before_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "config.yaml"
    with files.atomic_path(path) as temporary:
        temporary.write_text("a: 1\n")
        assert temporary.parent == path.parent and not path.exists()
    assert path.read_text() == "a: 1\n"


def test_text_yaml_and_json_come_back(tmp_path: Path) -> None:
    files.write_text(tmp_path / "t", "é\n")
    files.write_yaml(tmp_path / "y", {"b": 1, "a": [1.5, "x"]})
    files.write_json(tmp_path / "j", {"b": [1, None], "a": "é"})
    assert (tmp_path / "t").read_bytes() == "é\n".encode()
    assert (tmp_path / "y").read_text() == "b: 1\na:\n- 1.5\n- x\n"
    assert files.read_json(tmp_path / "j") == {"b": [1, None], "a": "é"}


def test_tables_come_back_with_their_metadata(tmp_path: Path) -> None:
    files.write_table(tmp_path / "t.parquet", TABLE, {"trial": "a-0001", "selected_on": [0]})
    pd.testing.assert_frame_equal(files.read_table(tmp_path / "t.parquet"), TABLE)
    assert files.read_metadata(tmp_path / "t.parquet") == {"trial": "a-0001", "selected_on": [0]}
    files.write_table(tmp_path / "plain.parquet", TABLE)
    assert files.read_metadata(tmp_path / "plain.parquet") == {}


def test_columns_come_in_the_order_asked_for(tmp_path: Path) -> None:
    files.write_table(tmp_path / "t.parquet", TABLE)
    assert list(files.read_table(tmp_path / "t.parquet", ["x", "unit_id"])) == ["x", "unit_id"]
    channels = files.read_channels(tmp_path / "t.parquet", ["x", "fold"])
    assert channels.dtype == np.float32 and channels.flags.c_contiguous
    np.testing.assert_array_equal(channels, [[0.5, np.nan], [0, 1]])


@pytest.mark.parametrize("kind", [pa.int8(), pa.int64(), pa.float16(), pa.float32(), pa.float64(), pa.null()], ids=str)
def test_nulls_are_nan_in_channels_of_any_type(tmp_path: Path, kind: pa.DataType) -> None:
    values = [None, None] if kind == pa.null() else [None, 2]
    pq.write_table(pa.table({"x": pa.array([1.0, None]), "n": pa.array(values, kind)}), tmp_path / "t.parquet")
    expected = [[np.nan, np.nan if kind == pa.null() else 2], [1, np.nan]]
    np.testing.assert_array_equal(files.read_channels(tmp_path / "t.parquet", ["n", "x"]), expected)


def test_channels_in_several_row_groups_are_joined(tmp_path: Path) -> None:
    table = pa.table({"x": np.arange(10.0), "n": np.arange(10)})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=3)
    np.testing.assert_array_equal(files.read_channels(tmp_path / "t.parquet", ["n", "x"]), [np.arange(10)] * 2)
    assert files.count_rows(tmp_path / "t.parquet", ["x"]) == 10


def test_rows_are_counted_without_reading_the_values(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    files.write_table(path, pd.DataFrame({"x": np.random.default_rng(0).random(1000)}))
    _spoil_pages(path)
    assert files.count_rows(path, ["x"]) == 1000
    assert files.count_rows(path, []) == 1000


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _spoil_footer(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-40] + b"\xff" * 32 + content[-8:])


def _spoil_pages(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:4] + b"\xff" * 200 + content[204:])


BROKEN = [
    (lambda p: p.unlink(), "no such file"),
    (lambda p: (p.unlink(), p.mkdir()), "no such file"),
    (lambda p: p.write_text("eeg_id,Fp1\n1,2.5\n"), "not a parquet file: it begins with b'eeg_'"),
    (lambda p: p.write_bytes(b""), "not a parquet file: it begins with b''"),
    (lambda p: p.write_bytes(b"PAR1"), "truncated parquet: 4 bytes"),
    (lambda p: p.write_bytes(b"PAR1PAR1"), "truncated parquet: 8 bytes"),
    (_truncate, "truncated parquet"),
    (_spoil_footer, "broken parquet"),
]


READS = {
    "table": files.read_table,
    "metadata": files.read_metadata,
    "channels": lambda path: files.read_channels(path, ["x"]),
    "rows": lambda path: files.count_rows(path, ["x"]),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize(("spoil", "sentence"), BROKEN, ids=[sentence[:20] for _, sentence in BROKEN])
def test_a_broken_parquet_is_named(
    spoil: Callable[[Path], object], sentence: str, read: Callable[[Path], object], tmp_path: Path
) -> None:
    path = tmp_path / "123.parquet"
    files.write_table(path, TABLE)
    spoil(path)
    with pytest.raises(DataError, match=sentence) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_broken_pages_are_named(tmp_path: Path) -> None:
    path = tmp_path / "123.parquet"
    files.write_table(path, pd.DataFrame({"x": np.random.default_rng(0).random(1000)}))
    _spoil_pages(path)
    for read in (files.read_table, READS["channels"]):
        with pytest.raises(DataError, match="broken parquet"):
            read(path)


def test_a_missing_column_is_named_with_what_there_is(tmp_path: Path) -> None:
    path = tmp_path / "1.parquet"
    files.write_table(path, TABLE)
    for read in (files.read_table, files.read_channels, files.count_rows):
        with pytest.raises(DataError, match=r"1\.parquet: missing column 'LL_0.59', 'y'; it has unit_id, fold, x$"):
            read(path, ["x", "LL_0.59", "y"])


def test_text_where_numbers_should_be_is_named(tmp_path: Path) -> None:
    files.write_table(tmp_path / "1.parquet", TABLE)
    with pytest.raises(DataError, match=r"1\.parquet: .*unit_id.*number"):
        files.read_channels(tmp_path / "1.parquet", ["x", "unit_id"])


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe\x00"])
def test_broken_json_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "study.json").write_bytes(content)
    with pytest.raises(DataError, match=r"study\.json: not valid JSON"):
        files.read_json(tmp_path / "study.json")


def test_missing_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"study\.json: no such file"):
        files.read_json(tmp_path / "study.json")


@pytest.mark.parametrize("torn", [b"", b'{"a": 3', b'{"a": 3}\xff', b"\0\0\0\0", b"3", b'\n{"a": 3}'])
def test_lines_of_json_are_read_up_to_the_first_that_a_kill_has_cut(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "lines.jsonl"
    assert list(files.read_json_lines(path)) == []
    path.write_bytes(b'{"a": 1}\n{"a": "\xc2\x85"}\n' + torn)
    assert list(files.read_json_lines(path)) == [{"a": 1}, {"a": "\x85"}]


def test_fingerprints_depend_on_content_and_order_but_not_on_the_order_of_keys() -> None:
    assert files.fingerprint({"a": 1, "b": 2}) == files.fingerprint({"b": 2, "a": 1})
    parts = [("ab", "c"), ("a", "bc"), ("c", "ab"), (["ab", "c"],), (b"ab", b"c"), (b"a", b"bc"), ("1", "2"), (1, 2)]
    assert len({files.fingerprint(*part) for part in parts}) == len(parts)
    assert len(files.fingerprint()) == 16


def test_what_a_killed_writer_left_is_swept_away(tmp_path: Path) -> None:
    kept = [tmp_path / "a" / "oof.parquet", tmp_path / ".hidden", tmp_path / "x.tmp"]
    for path in [*kept, tmp_path / "a" / ".oof.parquet.12ab34cd.tmp", tmp_path / ".b.json.00000000.tmp"]:
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    files.sweep(tmp_path)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)


def test_the_size_of_a_folder_is_that_of_its_files(tmp_path: Path) -> None:
    files.write_bytes(tmp_path / "a" / "b" / "x", b"12345")
    files.write_bytes(tmp_path / "y", b"1")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert files.size_of(tmp_path) == 6 + (tmp_path / "dangling").lstat().st_size


def test_a_place_that_cannot_be_written_is_named_before_anything_is_made(tmp_path: Path, monkeypatch) -> None:
    files.check_writable(tmp_path / "new" / "folder" / "a.json")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError) as caught:
        files.check_writable(tmp_path / "file" / "below" / "a.json")
    assert caught.value.filename == str(tmp_path / "file")
    monkeypatch.setattr(files.os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(PermissionError) as caught:
        files.check_writable(tmp_path / "new" / "a.json")
    assert caught.value.filename == str(tmp_path)


@pytest.mark.parametrize(
    "write", [lambda path: files.write_table(path, TABLE), lambda path: files.write_text(path, "")]
)
def test_what_cannot_be_written_is_named_by_its_own_name(tmp_path: Path, monkeypatch, write) -> None:
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: None)
    with pytest.raises(FileNotFoundError) as caught:
        write(tmp_path / "gone" / "a.parquet")
    assert caught.value.filename == str(tmp_path / "gone" / "a.parquet")


def _table(path, columns, names):
    pq.write_table(pa.table([pa.array(column) for column in columns], names), path)
    return path


def test_a_column_that_stands_twice_is_named_with_its_file(tmp_path):
    path = _table(tmp_path / "a.parquet", [[1.0], [2.0], [3.0], [4.0]], ["a", "LL_0.59", "LL_0.59", "b"])
    for use in (lambda: files.read_channels(path, ["a", "LL_0.59"]), lambda: files.count_rows(path, ["LL_0.59"])):
        with pytest.raises(DataError) as caught:
            use()
        assert str(caught.value) == f"{path}: column 'LL_0.59' stands 2 times; it must stand once"
    assert files.read_channels(path, ["a", "b"]).tolist() == [[1], [4]], "what is not asked for may be as it likes"


@pytest.mark.parametrize(
    ("values", "step"),
    [
        (np.arange(1, 600, 2, dtype=np.int16), 2),
        (np.arange(300) * 2.0, 2),
        (np.arange(300), 1),
        (np.r_[np.arange(0, 100, 2), np.arange(1000, 1100, 2)], 2),
        (np.array([1, 3, None, 7, 9], dtype=object), 2),
        (np.array([1]), None),
        (np.array(["1", "3"]), None),
    ],
)
def test_how_far_a_columns_values_are_apart(tmp_path, values, step):
    path = _table(tmp_path / "a.parquet", [values], ["time"])
    assert files.column_step(path, "time") == step
    assert files.column_step(path, "times") is None
