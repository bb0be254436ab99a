"""What is read is read once: a store that has its name is whole, and what a kill leaves is continued."""

import builtins
import errno
import io
import os
import re
import shutil
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from hms_ray import registry
from hms_ray.core import files
from hms_ray.core.errors import ConfigError, DataError
from hms_ray.core.params import parse
from hms_ray.datasets import hms
from hms_ray.features._feature import FeatureRef
from hms_ray.store import _writer, workers
from hms_ray.store.prepare import InputParams, prepare_all
from hms_ray.store.share import StoreRef

FILES = ("manifest.json", "x.npy", "items.parquet", "quality.parquet")

Prepare = Callable[..., tuple[StoreRef, ...]]
Begin = Callable[..., subprocess.Popen]
NAMES = [str(2_147_483_000 + 300 * p) for p in range(6)]  # the spectrograms
ORDER = {"batch": NAMES, "prepared": NAMES[::-1]}  # in which they are prepared: as they are, or as the units are


def _feature(name: str, **params: object) -> FeatureRef:
    return FeatureRef(name, parse(registry.load("features", name).Params, params, "feature"))


def _x(store: StoreRef) -> np.ndarray:
    return np.load(store.path / "x.npy")


def _content(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.iterdir()}


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("name", ["kaggle_spectrogram", "raw_eeg", "panels"])  # of one kind, of the other, of both
def test_the_store_holds_what_compute_gives(name: str, dtype: str, hms_folder: Path, prepare: Prepare) -> None:
    dataset, feature = hms.load(hms_folder, hms.Params(rows="eeg")), _feature(name)
    (store,) = prepare(dataset, feature, dtype=dtype)
    units = [0, 5, 11]
    batch = {kind: torch.from_numpy(np.stack([dataset.window(kind, i) for i in units])) for kind in feature.spec.kinds}
    expected = registry.load("features", name).compute(batch, feature.params)
    x = _x(store)
    assert x.shape == (12, *expected.shape[1:]) and x.dtype == dtype
    tolerance = {"rtol": 2**-11, "atol": 1e-3} if dtype == "float16" else {"rtol": 1e-4, "atol": 1e-4}
    np.testing.assert_allclose(x[units], expected, **tolerance)
    manifest = files.read_json(store.path / "manifest.json")
    assert (manifest["feature"], manifest["params"]) == (name, feature.params.model_dump())


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_recordings_are_kept_behind_each_other(dtype: str, dataset: hms.HmsDataset, prepare: Prepare) -> None:
    stores = prepare(dataset, _feature("panels"), compute="batch", dtype=dtype)
    assert [store.name.split("-")[1] for store in stores] == ["spectrogram", "eeg"]
    for kind, store in zip(("spectrogram", "eeg"), stores, strict=True):
        x, index = _x(store), files.read_table(store.path / "index.parquet")
        assert x.dtype == dtype and sorted(index["name"]) == sorted(dataset.files(kind))
        end = 0
        for name, steps, start in zip(index["name"], index["steps"], index["start"], strict=True):
            recording = dataset.read(kind, name)
            assert (start, steps) == (end, recording.shape[1])
            end = start + recording.size
            np.testing.assert_array_equal(x[start:end], recording.astype(dtype).ravel())
        assert end == len(x)


@pytest.mark.parametrize("compute", ["prepared", "batch"])
def test_the_second_time_nothing_is_read(
    compute: str, dataset: hms.HmsDataset, prepare: Prepare, reads: list[str]
) -> None:
    first = prepare(dataset, compute=compute)
    assert sorted(reads) == NAMES
    before = _content(first[0].path)
    assert prepare(dataset, compute=compute) == first
    assert len(reads) == 6 and _content(first[0].path) == before


def test_progress_counts_every_recording(dataset: hms.HmsDataset, prepare: Prepare) -> None:
    seen: list[tuple[int, int]] = []
    prepare(dataset, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 6) for done in range(1, 7)]


def test_other_parameters_types_units_or_data_have_another_store(
    hms_folder: Path, dataset: hms.HmsDataset, make_hms_folder: Callable[..., Path], tmp_path: Path, prepare: Prepare
) -> None:
    two = make_hms_folder(tmp_path / "two", patients=2)
    stores = [
        *prepare(dataset),
        *prepare(dataset, dtype="float32"),
        *prepare(dataset, _feature("kaggle_spectrogram", pool=2)),
        *prepare(dataset, _feature("kaggle_spectrogram", pool=4, standardise="panel")),
        *prepare(hms.load(hms_folder, hms.Params(rows="period"))),
        *prepare(hms.load(two, hms.Params(rows="eeg"))),
        *prepare(hms.load_test(hms_folder)),
    ]
    assert len({store.path for store in stores}) == len(stores) == 7


def test_recordings_are_shared_by_all_features_and_all_rules_for_units(
    hms_folder: Path, tmp_path: Path, prepare: Prepare, reads: list[str]
) -> None:
    rules = [hms.load(hms_folder, hms.Params(rows=rows)) for rows in ("eeg", "label", "period")]
    copy = hms.load(shutil.copytree(hms_folder, tmp_path / "copy"), hms.Params())
    features = [_feature("kaggle_spectrogram"), _feature("global_stats"), _feature("kaggle_spectrogram", pool=2)]
    stores = {prepare(data, feature, compute="batch") for data in (*rules, copy) for feature in features}
    assert len(stores) == 1 and sorted(reads) == NAMES
    (spectrograms,) = stores.pop()
    assert prepare(copy, _feature("panels"), compute="batch")[0] == spectrograms
    assert len(reads) == 6 + 12, "of the EEGs"
    others = [prepare(rules[0], compute="batch", dtype="float32"), prepare(hms.load_test(hms_folder), compute="batch")]
    assert spectrograms not in [store for found in others for store in found]


def test_two_units_of_one_window_are_equal_rows(
    make_hms_folder: Callable[..., Path], tmp_path: Path, prepare: Prepare
) -> None:
    folder = make_hms_folder(tmp_path / "hms", patients=2)
    table = pd.read_csv(folder / "train.csv").assign(spectrogram_label_offset_seconds=4.0)
    table.to_csv(folder / "train.csv", index=False)
    x = _x(*prepare(hms.load(folder, hms.Params(rows="eeg"))))
    np.testing.assert_array_equal(x[0], x[1])
    assert (x[0] != x[2]).any()


def test_each_file_is_read_once_by_many_threads(
    make_hms_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prepare: Prepare
) -> None:
    folder = make_hms_folder(tmp_path / "hms", patients=8)
    read, seen, all_read = hms.HmsDataset.read, [], threading.Barrier(8, timeout=30)

    def counted(self: hms.HmsDataset, kind: str, name: str) -> np.ndarray:
        seen.append(name)
        if len(seen) <= 8:
            all_read.wait()  # the worst order: every thread has read its first file before any goes on
        return read(self, kind, name)

    monkeypatch.setattr(workers, "THREADS", 8)
    monkeypatch.setattr(hms.HmsDataset, "read", counted)
    prepare(hms.load(folder, hms.Params(rows="period")))
    assert len(seen) == len(set(seen)) == 8


@pytest.mark.parametrize("compute", ["prepared", "batch"])
def test_all_files_are_looked_into_before_any_work(
    compute: str,
    make_hms_folder: Callable[..., Path],
    tmp_path: Path,
    prepare: Prepare,
    reads: list[str],
    cache: Path,
) -> None:
    dataset = hms.load(make_hms_folder(tmp_path / "hms", patients=3), hms.Params())
    dataset.path("spectrogram", NAMES[2]).write_text("a,b")
    with pytest.raises(DataError, match="not a parquet file"):
        prepare(dataset, compute=compute)
    assert reads == [] and not cache.exists()


def test_labels_that_moved_beyond_the_end_are_refused_though_the_recordings_are_kept(
    make_hms_folder: Callable[..., Path], tmp_path: Path, prepare: Prepare
) -> None:
    folder = make_hms_folder(tmp_path / "hms", patients=1)
    prepare(hms.load(folder, hms.Params()), compute="batch")
    table = pd.read_csv(folder / "train.csv")
    table.loc[7, "spectrogram_label_offset_seconds"] = 641.0
    table.to_csv(folder / "train.csv", index=False)
    for rows in ("eeg", "label", "period"):
        with pytest.raises(DataError, match=rf"{NAMES[0]}\.parquet: it has 640 s, but a label's offset is 641 s"):
            prepare(hms.load(folder, hms.Params(rows=rows)), compute="batch")


@pytest.mark.parametrize("compute", ["prepared", "batch"])
def test_a_fault_inside_a_file_costs_nothing_that_was_prepared_before(
    compute: str, make_hms_folder: Callable[..., Path], tmp_path: Path, prepare: Prepare, reads: list[str]
) -> None:
    folder = make_hms_folder(tmp_path / "hms", patients=6)
    name = ORDER[compute][4]
    path = folder / "train_spectrograms" / f"{name}.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:1000] + b"\xff" * 3000 + whole[4000:])  # of the same size, and with its footer
    with pytest.raises(DataError, match=rf"{name}\.parquet: broken parquet"):
        prepare(hms.load(folder, hms.Params()), compute=compute)
    path.write_bytes(whole)
    reads.clear()
    prepare(hms.load(folder, hms.Params()), compute=compute)
    assert set(reads) == set(ORDER[compute][4:])


Wanted = tuple[str, dict[str, object]]  # a feature's name, and its parameters, `compute` among them or not


def _all(
    dataset: hms.HmsDataset,
    *wanted: Wanted,
    tell: Callable[[int, int], None] = lambda done, total: None,
    labels: list[str] | None = None,
) -> list[StoreRef]:
    """Prepare features together; what is prepared is told to `labels`."""

    def progress(label: str) -> Callable[[int, int], None]:
        if labels is not None:
            labels.append(label)
        return tell

    runs = [(_feature(name, **_own(params)), InputParams(**_input(params))) for name, params in wanted]
    return [store for found in prepare_all(dataset, runs, progress) for store in found]


def _own(params: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in params.items() if key != "compute"}


def _input(params: dict[str, object]) -> dict[str, str]:
    return {key: str(value) for key, value in params.items() if key == "compute"}


def test_each_file_is_read_once_for_all_features(
    dataset: hms.HmsDataset, prepare: Prepare, reads: list[str], cache: Path
) -> None:
    wanted = [("kaggle_spectrogram", {"pool": 4}), ("global_stats", {"pool": 2}), ("kaggle_spectrogram", {"pool": 2})]
    wanted += [("panels", {}), ("kaggle_spectrogram", {"compute": "batch"}), ("global_stats", {"pool": 2})]
    labels: list[str] = []
    together = _all(dataset, *wanted, labels=labels)
    assert sorted(reads) == sorted(NAMES + dataset.files("eeg")), "the last is prepared already, as the second"
    assert together[1] == together[-1]
    assert labels == ["prepare kaggle_spectrogram (2 versions), global_stats, panels, recordings: spectrogram"]
    kept = {store.name: _content(store.path) for store in together}
    shutil.rmtree(cache)
    alone = [prepare(dataset, _feature(name, **_own(params)), **_input(params)) for name, params in wanted]
    assert {store.name: _content(store.path) for (store,) in alone} == kept, "the very files of one at a time"


def test_stores_at_different_points_are_continued_together(
    dataset: hms.HmsDataset, prepare: Prepare, reads: list[str]
) -> None:
    """One is whole, one was interrupted, one is new: a file is read where any lacks it, and none twice."""

    def interrupt(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    (whole,) = prepare(dataset, _feature("kaggle_spectrogram", pool=4))
    with pytest.raises(KeyboardInterrupt):
        prepare(dataset, _feature("global_stats", pool=4), progress=interrupt)
    reads.clear()
    seen: list[tuple[int, int]] = []
    wanted = [("kaggle_spectrogram", {"pool": 4}), ("global_stats", {"pool": 4})]
    assert _all(dataset, *wanted, tell=lambda *at: seen.append(at))[0] == whole
    assert sorted(reads) == sorted(NAMES[:2]) and seen == [(5, 6), (6, 6)]
    with pytest.raises(KeyboardInterrupt):
        _all(dataset, ("global_stats", {"pool": 1}), ("global_stats", {"pool": 2}), tell=interrupt)
    reads.clear()
    _all(dataset, ("global_stats", {"pool": 2}))
    assert sorted(reads) == sorted(NAMES[:2]), "both had kept what was written"
    reads.clear()
    _all(dataset, ("global_stats", {"pool": 1}), ("kaggle_spectrogram", {"pool": 1}))
    assert sorted(reads) == NAMES, "the new one lacks all of them"


def test_the_disk_must_have_room_for_all_of_them(
    dataset: hms.HmsDataset, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    one = 12 * 100 * 4 * 300 * 2  # bytes of either
    monkeypatch.setattr(_writer.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 3 * one // 2))
    with pytest.raises(ConfigError, match="room"):
        _all(dataset, ("kaggle_spectrogram", {}), ("global_stats", {}))
    assert _all(dataset, ("kaggle_spectrogram", {}))[0].is_here()


def test_a_feature_of_other_recordings_is_refused(
    hms_folder: Path, dataset: hms.HmsDataset, monkeypatch: pytest.MonkeyPatch, prepare: Prepare, cache: Path
) -> None:
    monkeypatch.setattr(hms.HmsDataset, "KINDS", ("eeg",))
    sentence = "features.kaggle_spectrogram needs recordings of kind 'spectrogram'; dataset 'hms' has eeg"
    with pytest.raises(ConfigError, match=f"^{sentence}$"):
        prepare(dataset)
    assert not cache.exists()


def test_random_windows_of_one_prepared_window_are_refused() -> None:
    with pytest.raises(ConfigError, match="window: random needs compute: batch"):
        parse(InputParams, {"window": "random"}, "input")
    assert parse(InputParams, {"window": "random", "compute": "batch"}, "input").window == "random"


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, MemoryError])
@pytest.mark.parametrize("compute", ["prepared", "batch"])
def test_an_interrupted_preparation_is_continued(
    compute: str, error: type[BaseException], dataset: hms.HmsDataset, prepare: Prepare, reads: list[str], cache: Path
) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 4:
            raise error

    with pytest.raises(error):
        prepare(dataset, compute=compute, progress=interrupt)
    assert not list(cache.rglob("manifest.json"))
    reads.clear()
    seen: list[tuple[int, int]] = []
    prepare(dataset, compute=compute, progress=lambda done, total: seen.append((done, total)))
    assert set(reads) == set(ORDER[compute][4:]) and seen == [(5, 6), (6, 6)]


EXIT, KILL = "os._exit(9)", "os.kill(os.getpid(), signal.SIGKILL)"


def test_a_killed_preparation_is_continued_as_if_nothing_had_been(
    dataset: hms.HmsDataset,
    prepare: Prepare,
    in_another_process: Begin,
    reads: list[str],
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for pieces, kill in ((2, EXIT), (4, KILL)):
        process = in_another_process(dataset.root, f"if done == {pieces}: {kill}")
        process.communicate(timeout=120)
        assert process.returncode == (9 if kill == EXIT else -signal.SIGKILL)
    (partial,) = (cache / "prepared").glob("*.partial")
    assert len((partial / "written.jsonl").read_text().splitlines()) == 4
    (continued,) = prepare(dataset)
    assert len(reads) == 2 and set(reads) == set(ORDER["prepared"][4:]) and not partial.exists()
    monkeypatch.setenv("HMS_RAY_CACHE", str(tmp_path / "undisturbed"))
    (undisturbed,) = prepare(dataset)
    assert _content(continued.path) == _content(undisturbed.path) and len(reads) == 2 + 6


def test_bytes_that_a_power_failure_lost_are_computed_again(
    dataset: hms.HmsDataset, prepare: Prepare, reads: list[str], cache: Path
) -> None:
    _stop_after(4, dataset, prepare)
    (path,) = cache.rglob("*.partial/x.npy")
    x = np.load(path, mmap_mode="r+")
    order = ORDER["prepared"]
    lost = np.flatnonzero(dataset.windows["spectrogram"].names == order[1])
    x[lost[0], 0, 50:60] = 0
    x.flush()
    lines = (path.parent / "written.jsonl").read_text()
    (path.parent / "written.jsonl").write_text(lines[:-20])  # the last line is torn as well
    reads.clear()
    (store,) = prepare(dataset)
    assert sorted(reads) == sorted([order[1], *order[3:]])
    assert np.isfinite(_x(store)).all() and (_x(store)[lost[0], 0, 50:60] != 0).any()


def _stop_after(pieces: int, dataset: hms.HmsDataset, prepare: Prepare) -> None:
    def stop(done: int, total: int) -> None:
        if done == pieces:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(dataset, progress=stop)


def test_what_was_begun_for_another_store_is_begun_anew(
    dataset: hms.HmsDataset, prepare: Prepare, reads: list[str], cache: Path
) -> None:
    _stop_after(4, dataset, prepare)
    (partial,) = cache.rglob("*.partial")
    np.save(partial / "x.npy", np.zeros((12, 1, 100, 74), np.float16))
    reads.clear()
    assert _x(*prepare(dataset)).shape == (12, 1, 100, 75)
    assert sorted(reads) == NAMES


@pytest.mark.parametrize(
    ("compute", "lost"), [(c, name) for c in ("prepared", "batch") for name in FILES] + [("batch", "index.parquet")]
)
def test_a_store_that_lost_a_file_is_made_again(
    compute: str, lost: str, dataset: hms.HmsDataset, prepare: Prepare, reads: list[str]
) -> None:
    (store,) = prepare(dataset, compute=compute)
    before = _content(store.path)
    (store.path / lost).unlink()
    with pytest.raises(DataError, match="no prepared data here"):
        store.local()
    assert prepare(dataset, compute=compute) == (store,)
    assert len(reads) == 12 and _content(store.path) == before


class _Full(io.FileIO):
    """A file on a disk that is full after half of what is written."""

    def write(self, data: bytes) -> int:
        super().write(memoryview(data).cast("B")[: memoryview(data).nbytes // 2])
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("mode", ["r+b", "a"])
def test_a_full_disk_costs_only_the_piece_that_it_cuts(
    mode: str, dataset: hms.HmsDataset, prepare: Prepare, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def open_it(path: Path, how: str = "r") -> io.IOBase:
        opened.append(how)
        if how != mode or opened.count(mode) < 4:
            return builtins.open(path, how)
        return _Full(path, "r+b") if mode == "r+b" else io.TextIOWrapper(_Full(path, "ab"), write_through=True)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left") as caught:
        patch.setattr(_writer, "open", open_it, raising=False)
        prepare(dataset)
    assert caught.value.errno == errno.ENOSPC
    reads.clear()
    (store,) = prepare(dataset)
    assert set(reads) == set(ORDER["prepared"][3:]) and np.isfinite(_x(store)).all()


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A disk of one megabyte, which holds the cache."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    monkeypatch.setenv("HMS_RAY_CACHE", str(folder / "cache"))
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_preparing_goes_on_once_a_full_disk_has_room(
    small_disk: Path, dataset: hms.HmsDataset, prepare: Prepare, reads: list[str]
) -> None:
    def fill(done: int, total: int) -> None:
        if done == 3:
            (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free))

    with pytest.raises(OSError, match="No space left on device"):
        prepare(dataset, progress=fill)
    (small_disk / "ballast").unlink()
    reads.clear()
    (store,) = prepare(dataset)
    assert 1 <= len(reads) <= 3 and np.isfinite(_x(store)).all()


def test_too_little_room_is_said_beforehand(
    small_disk: Path, dataset: hms.HmsDataset, prepare: Prepare, reads: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        prepare(dataset, compute="batch")
    needs = r": preparing needs \d+\.\d MB there, and \d+\.\d [kM]B are free; "
    assert re.match(re.escape(str(small_disk / "cache" / "prepared")) + needs, str(caught.value))
    assert "free disk space, or name another folder with HMS_RAY_CACHE" in str(caught.value)
    assert reads == []


def test_of_two_processes_one_computes_and_the_other_waits(
    dataset: hms.HmsDataset,
    prepare: Prepare,
    in_another_process: Begin,
    reads: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = in_another_process(dataset.root, "if done == 1: print(flush=True); input()")
    try:
        assert other.stdout.readline() == "\n", other.stderr.read()
        found: list[tuple[StoreRef, ...]] = []
        with caplog.at_level("INFO", logger="hms_ray.store"):
            mine = threading.Thread(target=lambda: found.append(prepare(dataset)))
            mine.start()
            mine.join(0.3)
            assert mine.is_alive() and found == [] and reads == []
            other.communicate("\n", timeout=120)
            mine.join(60)
    finally:
        other.kill()
    ((store,),) = found
    assert other.returncode == 0 and reads == [] and np.isfinite(_x(store)).all()
    assert "is being prepared by another process; waiting for it" in caplog.text
    assert not list(store.made_in.glob("*.partial"))


def test_the_one_that_waits_goes_on_where_a_killed_one_stopped(
    dataset: hms.HmsDataset, prepare: Prepare, in_another_process: Begin, reads: list[str]
) -> None:
    other = in_another_process(dataset.root, "if done == 3: print(flush=True); input()", "batch")
    assert other.stdout.readline() == "\n", other.stderr.read()
    mine = threading.Thread(target=prepare, args=(dataset,), kwargs={"compute": "batch"})
    mine.start()
    other.kill()
    other.communicate(timeout=60)
    mine.join(60)
    assert set(reads) == set(ORDER["batch"][3:])


@pytest.mark.parametrize("compute", ["prepared", "batch"])
def test_only_a_few_recordings_are_in_memory_at_once(
    compute: str,
    make_hms_folder: Callable[..., Path],
    tmp_path: Path,
    prepare: Prepare,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "THREADS", 2)
    folder = make_hms_folder(tmp_path / "hms", patients=12, rows=40, eegs=False)
    read, begun, ahead = hms.HmsDataset.read, Counter(), []

    def counted(self: hms.HmsDataset, kind: str, name: str) -> np.ndarray:
        begun[name] += 1
        return read(self, kind, name)

    monkeypatch.setattr(hms.HmsDataset, "read", counted)
    prepare(
        hms.load(folder, hms.Params()), compute=compute, progress=lambda done, total: ahead.append(len(begun) - done)
    )
    assert len(begun) == len(ahead) == 12 and max(ahead) < workers.AHEAD * 2


PEAK = """
import resource

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
few = peak()
data = hms.load(Path(sys.argv[1]).with_name("many"), hms.Params(rows="eeg"))
prepare(data, feature, InputParams(compute="batch", dtype="float32"), lambda label: progress)
print(peak() - few)
"""


def test_memory_does_not_grow_with_the_number_of_recordings(
    make_hms_folder: Callable[..., Path], tmp_path: Path, in_another_process: Begin
) -> None:
    folders = [
        make_hms_folder(tmp_path / name, patients, rows=8, eegs=False) for name, patients in (("few", 10), ("many", 50))
    ]
    make_hms_folder(tmp_path / "long", patients=1, rows=1500, eegs=False)
    for folder in folders:
        for path in (folder / "train_spectrograms").iterdir():
            path.unlink()
            os.link(tmp_path / "long" / "train_spectrograms" / f"{NAMES[0]}.parquet", path)
    process = in_another_process(folders[0], compute="batch", then=PEAK)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert float(out) < 40, "MB; 40 more recordings of 2.4 MB are 96"
