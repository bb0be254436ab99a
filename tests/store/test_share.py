"""Stores are copied through a URL where machines share no disk."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest

from hms_ray.core.errors import ConfigError, DataError
from hms_ray.datasets.hms import HmsDataset
from hms_ray.store import share
from hms_ray.store.share import StoreRef, cache_root

FILES = ("manifest.json", "x.npy", "items.parquet", "quality.parquet")

Prepare = Callable[..., tuple[StoreRef, ...]]


@pytest.fixture(params=["file", "memory", "folder"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place that all machines see."""
    url = {"file": f"file://{tmp_path}/bucket", "memory": "memory://bucket", "folder": str(tmp_path / "bucket/")}
    monkeypatch.setenv("HMS_RAY_STORE", url[request.param])
    fsspec.filesystem("memory").store.clear()
    return url[request.param]


@pytest.fixture
def another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Go on with the empty cache of another machine, which sees nothing of the first one's."""

    def move() -> Path:
        (tmp_path / "cache").rename(tmp_path / "out of sight")
        monkeypatch.setenv("HMS_RAY_CACHE", str(tmp_path / "other"))
        return tmp_path / "other"

    return move


def _published(url: str, name: str) -> dict[str, bytes]:
    system, folder = fsspec.url_to_fs(f"{url}/{name}")
    if not system.exists(folder):
        return {}
    return {Path(path).name: system.cat_file(path) for path in system.ls(folder, detail=False)}


def _content(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.iterdir()}


@pytest.mark.parametrize("compute", ["prepared", "batch"])
def test_another_cache_copies_and_computes_nothing(
    url: str, compute: str, dataset: HmsDataset, prepare: Prepare, reads: list[str], another_machine: Callable[[], Path]
) -> None:
    (store,) = prepare(dataset, compute=compute)
    before = _content(store.path)
    assert _published(url, store.name) == before and len(reads) == 6
    other = another_machine()
    (copy,) = prepare(dataset, compute=compute)
    assert len(reads) == 6 and copy.path == other / "prepared" / store.name
    assert _content(copy.path) == before
    assert [path.name for path in copy.path.parent.iterdir() if path.is_dir()] == [store.name]


def test_a_worker_whose_cache_lies_elsewhere_copies_it_once(
    url: str, dataset: HmsDataset, prepare: Prepare, another_machine: Callable[[], Path]
) -> None:
    (store,) = prepare(dataset)
    assert store.local() == store.path
    other = another_machine()
    assert store.local() == other / "prepared" / store.name
    assert np.load(store.local() / "x.npy").shape == (12, 1, 100, 75)
    shutil.rmtree(other.parent / "bucket", ignore_errors=True)
    fsspec.filesystem("memory").store.clear()
    assert store.local().is_dir(), "it has its own copy now"


def test_a_folder_that_all_machines_see_is_not_copied(
    dataset: HmsDataset, prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store,) = prepare(dataset)
    monkeypatch.setenv("HMS_RAY_CACHE", str(tmp_path / "other"))
    assert store.local() == store.path and not (tmp_path / "other").exists()


def test_what_is_nowhere_is_said(
    dataset: HmsDataset, prepare: Prepare, another_machine: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (store,) = prepare(dataset)
    another_machine()
    for ref in (store, StoreRef(store.name, store.made_in, "memory://nothing")):
        with pytest.raises(DataError) as caught:
            ref.local()
        assert str(caught.value) == (
            f"{store.path}: no prepared data here; HMS_RAY_CACHE must name a folder that every machine sees, or "
            "HMS_RAY_STORE a URL that all can read"
        )


def test_the_manifest_is_published_last(url: str, dataset: HmsDataset, prepare: Prepare) -> None:
    kind, order = type(fsspec.url_to_fs(url)[0]), []
    put = kind.put_file

    def noted(self: object, source: str, target: str, **kwargs: object) -> None:
        order.append(Path(target).name)
        put(self, source, target, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "put_file", noted)
        prepare(dataset, compute="batch")
    assert order[-1] == "manifest.json" and sorted(order) == sorted([*FILES, "index.parquet"])


def test_an_interrupted_publication_is_not_trusted_and_mended(
    url: str, dataset: HmsDataset, prepare: Prepare, reads: list[str], another_machine: Callable[[], Path]
) -> None:
    (store,) = prepare(dataset)
    whole = _published(url, store.name)
    system, folder = fsspec.url_to_fs(f"{url}/{store.name}")
    system.rm_file(f"{folder}/manifest.json")
    system.pipe_file(f"{folder}/x.npy", whole["x.npy"][:1000])
    another_machine()
    with pytest.raises(DataError, match="no prepared data here"):
        store.local()
    prepare(dataset)
    assert len(reads) == 12 and _published(url, store.name) == whole


@pytest.mark.parametrize("begun", [False, True])
def test_a_store_that_was_made_without_a_url_is_published_later(
    begun: bool, url: str, dataset: HmsDataset, prepare: Prepare, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HMS_RAY_STORE")
    (store,) = prepare(dataset)
    monkeypatch.setenv("HMS_RAY_STORE", url)
    if begun:  # a kill in the middle of it
        system, folder = fsspec.url_to_fs(f"{url}/{store.name}")
        system.makedirs(folder, exist_ok=True)
        system.pipe_file(f"{folder}/items.parquet", b"half")
    prepare(dataset)
    assert len(reads) == 6 and _published(url, store.name) == _content(store.path)


def test_what_is_published_is_not_published_again(url: str, dataset: HmsDataset, prepare: Prepare) -> None:
    (store,) = prepare(dataset)
    system, folder = fsspec.url_to_fs(f"{url}/{store.name}")
    marked = b"as it was".ljust(system.size(f"{folder}/x.npy"))
    system.pipe_file(f"{folder}/x.npy", marked)
    prepare(dataset)
    assert _published(url, store.name)["x.npy"] == marked


def test_a_publication_that_lost_its_end_is_mended(
    url: str, dataset: HmsDataset, prepare: Prepare, another_machine: Callable[[], Path]
) -> None:
    (store,) = prepare(dataset)
    system, folder = fsspec.url_to_fs(f"{url}/{store.name}")
    whole = _published(url, store.name)["x.npy"]
    system.pipe_file(f"{folder}/x.npy", whole[:-1000])
    another_machine()
    with pytest.raises(DataError, match="no prepared data here"):
        StoreRef(store.name, Path("/nowhere"), store.url).local()
    prepare(dataset)
    assert _published(url, store.name)["x.npy"] == whole


def test_a_url_that_cannot_be_written_to_is_refused_before_any_work(
    dataset: HmsDataset, prepare: Prepare, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    monkeypatch.setenv("HMS_RAY_STORE", "/proc/nowhere")
    with pytest.raises(ConfigError, match=r"^HMS_RAY_STORE=/proc/nowhere: [^\n]+$"):
        prepare(dataset)
    assert not reads


def test_what_is_here_needs_no_url(
    dataset: HmsDataset, prepare: Prepare, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (store,) = prepare(dataset)
    monkeypatch.setenv("HMS_RAY_STORE", "/proc/nowhere")
    assert [again.path for again in prepare(dataset)] == [store.path]
    assert "HMS_RAY_STORE=/proc/nowhere" in caplog.text and "other machines cannot copy" in caplog.text


def test_a_copy_of_another_size_is_refused_and_leaves_no_store(
    dataset: HmsDataset,
    prepare: Prepare,
    another_machine: Callable[[], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HMS_RAY_STORE", f"file://{tmp_path}/bucket")
    (store,) = prepare(dataset)
    other = another_machine()
    system = type(fsspec.filesystem("file"))
    with monkeypatch.context() as patch, pytest.raises(DataError, match="has not the sizes of the original"):
        patch.setattr(system, "get_file", lambda self, source, target, **kwargs: Path(target).write_bytes(b"cut"))
        store.local()
    assert not (other / "prepared" / store.name).exists()
    assert np.isfinite(np.load(store.local() / "x.npy")).all(), "the next attempt begins anew"


@pytest.mark.parametrize("url", ["nonsense://bucket/folder", "oci://bucket"])
def test_a_url_of_no_known_kind_is_one_sentence(
    url: str, dataset: HmsDataset, prepare: Prepare, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    monkeypatch.setenv("HMS_RAY_STORE", url)
    with pytest.raises(ConfigError) as caught:
        prepare(dataset)
    assert str(caught.value).startswith(f"HMS_RAY_STORE={url}: fsspec cannot open it: ")
    assert "\n" not in str(caught.value) and reads == [], "said before any work"


def test_no_password_or_token_of_the_url_is_told(
    dataset: HmsDataset,
    prepare: Prepare,
    another_machine: Callable[[], Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    refused = pytest.raises((ConfigError, DataError))
    monkeypatch.setenv("HMS_RAY_STORE", "nonsense://me:secret@host/folder?token=secret")
    with refused as unknown:
        prepare(dataset)
    monkeypatch.setenv("HMS_RAY_STORE", "memory://me:secret@host/folder")
    with monkeypatch.context() as patch, refused as unreachable:
        patch.setattr(fsspec, "url_to_fs", lambda url: (_ for _ in ()).throw(OSError(f"cannot reach {url}")))
        prepare(dataset)
    (store,) = prepare(dataset)
    another_machine()
    with monkeypatch.context() as patch, refused as cut:
        system = type(fsspec.filesystem("memory"))
        patch.setattr(system, "get_file", lambda self, source, target, **kwargs: Path(target).write_bytes(b"cut"))
        store.local()
    told = [str(caught.value) for caught in (unknown, unreachable, cut)]
    assert "secret" not in "\n".join((*told, caplog.text))
    assert all("://host/folder" in sentence for sentence in (*told, caplog.text)), "the rest of the URL is told"


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HMS_RAY_CACHE", "here")
    assert cache_root() == Path(os.getcwd()) / "here", "absolute, since workers run elsewhere"
    monkeypatch.delenv("HMS_RAY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "hms_ray"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root() == tmp_path / ".cache" / "hms_ray"


@pytest.mark.parametrize(
    ("value", "url"), [("", None), ("shared", "{}/shared"), ("/a/b", "/a/b"), ("s3://bucket/a", "s3://bucket/a")]
)
def test_a_folder_is_named_absolutely_as_workers_run_elsewhere(
    value: str, url: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(share.VARIABLE, value)
    assert StoreRef.of("x").url == (url and url.format(Path.cwd()))
