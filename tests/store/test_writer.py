"""An array that is filled piece by piece: what a kill, a power failure or a full disk leave is continued."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from hms_ray.core import files
from hms_ray.core.errors import ConfigError
from hms_ray.store import _writer
from hms_ray.store._writer import Piece, Plan, Writer, is_whole, writer

FILES = ("manifest.json", "x.npy", "items.parquet", "quality.parquet")

VALUES = {"a": [[1, 2], [5, 6]], "b": [[3, 4]], "c": [[7, 8]]}  # a's rows are the first and the third
PLACES = {"a": np.array([0, 4]), "b": np.array([2]), "c": np.array([6])}
PLAN = Plan("float32", (4, 2), PLACES, dict.fromkeys(PLACES, 2))


def _piece(item: str) -> Piece:
    return Piece.of(item, np.array(VALUES[item], dtype=np.float32), [{"kind": "eeg", "name": item, "nan": 0.5}])


def _write(target: Path, items: str, plan: Plan = PLAN) -> None:
    """Write those items and stop there, as a kill would."""
    with writer(target, plan) as into:
        for item in items:
            into.write(_piece(item))


def _finish(target: Path, plan: Plan = PLAN, tables: Mapping[str, pd.DataFrame] | None = None) -> list[str]:
    """Write what is missing and finish; return the items that were."""
    with writer(target, plan) as into:
        missing = into.missing
        for item in missing:
            into.write(_piece(item))
        into.finish({"made": "by a test"}, tables or {})
    return missing


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where the store will lie."""
    return tmp_path / "prepared" / "store"


def _partial(target: Path) -> Path:
    return target.with_name("store.partial")


def test_each_row_lies_at_its_place(target: Path) -> None:
    assert _finish(target) == ["a", "b", "c"]
    x = np.load(target / "x.npy")
    np.testing.assert_array_equal(x, np.arange(1, 9, dtype=np.float32).reshape(4, 2))
    assert is_whole(target) and not _partial(target).exists()
    assert sorted(path.name for path in target.iterdir()) == sorted(FILES)


def test_what_describes_the_array_is_written_with_it(target: Path) -> None:
    _finish(target, tables={"index": pd.DataFrame({"start": [0]}, index=[7])})
    manifest = files.read_json(target / "manifest.json")
    assert (manifest["made"], manifest["dtype"], manifest["shape"]) == ("by a test", "float32", [4, 2])
    items = files.read_table(target / "items.parquet")
    assert items["item"].tolist() == ["a", "b", "c"]
    assert items["hash"].tolist() == [_writer.hash_of(_piece(item).rows) for item in "abc"]
    assert files.read_table(target / "quality.parquet")["name"].tolist() == ["a", "b", "c"]
    assert files.read_table(target / "index.parquet").columns.tolist() == ["start"]


def test_a_recording_that_two_pieces_read_is_measured_once(target: Path) -> None:
    with writer(target, PLAN) as into:
        for item in "abc":
            into.write(Piece.of(item, _piece(item).rows, [{"kind": "eeg", "name": "shared", "nan": 0.5}]))
        into.finish({}, {})
    assert files.read_table(target / "quality.parquet").to_dict("records") == [
        {"kind": "eeg", "name": "shared", "nan": 0.5}
    ]


def test_the_order_of_writing_does_not_show(target: Path, tmp_path: Path) -> None:
    _finish(target)
    _write(tmp_path / "other" / "store", "cb")
    assert _finish(tmp_path / "other" / "store") == ["a"]
    assert _content(target) == _content(tmp_path / "other" / "store")


def _content(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.iterdir()}


def test_an_unfinished_store_has_not_its_name_and_is_continued(target: Path) -> None:
    _write(target, "ab")
    assert not target.exists() and not is_whole(target)
    assert _finish(target) == ["c"]


@pytest.mark.parametrize("torn", ['{"item": "b", "ha', "", "\0\0\0\0", '{"item": "b", "hash": "0'])
def test_a_torn_last_line_costs_its_piece(target: Path, torn: str) -> None:
    _write(target, "ab")
    written = _partial(target) / "written.jsonl"
    first = written.read_text().splitlines()[0]
    written.write_text(f"{first}\n{torn}")
    assert _finish(target) == ["b", "c"]
    np.testing.assert_array_equal(np.load(target / "x.npy"), np.arange(1, 9).reshape(4, 2))


def test_a_line_that_is_no_text_costs_its_piece(target: Path) -> None:
    _write(target, "ab")
    written = _partial(target) / "written.jsonl"
    written.write_bytes(written.read_bytes().splitlines(keepends=True)[0] + b"\xff\xfe\x80")
    assert _finish(target) == ["b", "c"]


@pytest.mark.parametrize(("row", "item"), [(0, "a"), (1, "b"), (2, "a")])
def test_bytes_that_a_power_failure_lost_cost_exactly_their_piece(target: Path, row: int, item: str) -> None:
    _write(target, "ab")
    path = _partial(target) / "x.npy"
    content = bytearray(path.read_bytes())
    start = len(content) - 32 + row * 8
    content[start : start + 4] = bytes(4)
    path.write_bytes(content)
    assert _finish(target) == sorted([item, "c"])
    np.testing.assert_array_equal(np.load(target / "x.npy"), np.arange(1, 9).reshape(4, 2))


@pytest.mark.parametrize("spoil", ["x.npy", "written.jsonl"])
def test_without_the_array_or_its_lines_all_is_written_again(target: Path, spoil: str) -> None:
    _write(target, "ab")
    (_partial(target) / spoil).unlink()
    assert _finish(target) == ["a", "b", "c"]


@pytest.mark.parametrize("size", [0, 6, 100, 140])
def test_an_array_that_is_cut_short_is_begun_anew(target: Path, size: int) -> None:
    _write(target, "ab")
    with open(_partial(target) / "x.npy", "r+b") as file:
        file.truncate(size)
    assert _finish(target) == ["a", "b", "c"]
    np.testing.assert_array_equal(np.load(target / "x.npy"), np.arange(1, 9).reshape(4, 2))


@pytest.mark.parametrize(
    "other",
    [
        Plan("float32", (5, 2), {**PLACES, "d": np.array([8])}, dict.fromkeys("abcd", 2)),
        Plan("float64", (4, 2), PLACES, dict.fromkeys("abc", 2)),
        Plan("float32", (8,), PLACES, dict.fromkeys("abc", 2)),
        Plan(
            "float32", (4, 2), {"x": np.array([0, 4]), "y": np.array([2]), "z": np.array([6])}, dict.fromkeys("xyz", 2)
        ),
    ],
    ids=["longer", "other type", "other shape", "other items"],
)
def test_what_was_begun_for_another_plan_is_begun_anew(target: Path, other: Plan) -> None:
    with writer(target, other) as into:
        for item in other.places:
            rows = len(other.places[item])
            into.write(Piece.of(item, np.full((rows, 2), 9, dtype=other.dtype), []))
    assert _finish(target) == ["a", "b", "c"]
    np.testing.assert_array_equal(np.load(target / "x.npy"), np.arange(1, 9).reshape(4, 2))


@pytest.mark.parametrize("lost", [*FILES, "index.parquet"])
def test_a_store_that_lost_a_file_is_made_again(target: Path, lost: str) -> None:
    tables = {"index": pd.DataFrame({"start": [0]})}
    _finish(target, tables=tables)
    assert is_whole(target)
    (target / lost).unlink()  # as cleaners of temporary folders do
    assert not is_whole(target)
    assert _finish(target, tables=tables) == ["a", "b", "c"] and is_whole(target)


def test_a_store_whose_manifest_is_cut_off_is_made_again(target: Path) -> None:
    _finish(target)
    (target / "manifest.json").write_text('{"made": ')
    assert not is_whole(target)
    assert _finish(target) == ["a", "b", "c"] and is_whole(target)


def test_a_whole_store_is_not_written_to(target: Path) -> None:
    _finish(target)
    with writer(target, PLAN) as into:
        assert into is None


@pytest.mark.parametrize("step", ["rmtree", "replace"])
def test_a_kill_just_before_the_end_costs_no_piece(target: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last steps of `finish` stand in for a kill by raising."""

    def kill(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    module = _writer.shutil if step == "rmtree" else _writer.os
    real = getattr(module, step)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, step, lambda *a, **k: kill() if target in a else real(*a, **k))
        _finish(target)
    assert _finish(target) == []
    np.testing.assert_array_equal(np.load(target / "x.npy"), np.arange(1, 9).reshape(4, 2))


def test_too_little_room_is_said_before_anything_is_written(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan("float32", (3_000_000_000,), PLACES, dict.fromkeys("abc", 2))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5_300_000_000))
    with pytest.raises(ConfigError) as caught, writer(target, plan):
        pass
    assert str(caught.value) == (
        f"{target.parent}: preparing needs 12.0 GB there, and 5.3 GB are free; "
        "free disk space, or name another folder with HMS_RAY_CACHE"
    )
    assert [path for path in target.parent.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def test_room_that_is_taken_already_is_not_asked_for_again(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 4 << 20
    plan = Plan("uint8", (size,), {"a": np.array([0]), "b": np.array([size // 2])}, dict.fromkeys("ab", size // 2))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=size))
    with writer(target, plan) as into:
        into.write(Piece.of("a", np.ones((1, size // 2), np.uint8), []))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=size * 3 // 5))
    with writer(target, plan) as into:
        assert into.missing == ["b"]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=size // 4))
    with pytest.raises(ConfigError, match="free disk space"), writer(target, plan):
        pass


def test_the_file_takes_no_room_before_it_is_filled(target: Path) -> None:
    with writer(target, Plan("uint8", (1 << 30,), {"a": np.array([0])}, {"a": 1})) as into:
        found = into.array.stat()
    assert found.st_size > 1 << 30 and found.st_blocks * 512 < 1 << 20


def test_places_beyond_four_gigabytes_are_written(target: Path) -> None:
    far = (1 << 32) + 8
    with writer(target, Plan("uint8", (far + 2,), {"a": np.array([far])}, {"a": 2})) as into:
        into.write(Piece.of("a", np.array([[3, 4]], np.uint8), []))
        assert into._is_intact(into.kept["a"])
        assert np.load(into.array, mmap_mode="r")[far:].tolist() == [3, 4]


def test_lines_are_json_that_tells_item_and_hash(target: Path) -> None:
    _write(target, "a")
    (line,) = (_partial(target) / "written.jsonl").read_text().splitlines()
    assert json.loads(line) == {"item": "a", "hash": _writer.hash_of(_piece("a").rows), "quality": _piece("a").quality}
    assert Writer(_partial(target), target, PLAN).missing == ["b", "c"]
