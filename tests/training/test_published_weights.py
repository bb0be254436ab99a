"""Published weights: fetched once whoever asks, whole or not at all, and never other bytes than were fetched."""

import hashlib
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file

from hms_ray import tasks
from hms_ray.core import files
from hms_ray.core.errors import ConfigError, DataError
from hms_ray.encoders.pretrained import Source
from hms_ray.models import basic_cnn, timm_image
from hms_ray.store.share import StoreRef
from hms_ray.study.folder import StudyFolder
from hms_ray.training import published_weights
from hms_ray.training.build import build_model
from hms_ray.training.run_config import Component, parse_run

ARCH = "mobilenetv3_small_050"
STATE = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.int64)}
TASK = tasks.from_dict({"kind": "votes", "classes": ["a", "b", "c"]})


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no URL, and no network."""
    monkeypatch.setenv("HMS_RAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HMS_RAY_STORE", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "cache"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of weights."""
    save_file(STATE, tmp_path / "mine.safetensors")
    return tmp_path / "mine.safetensors"


def model(pretrained: bool | str) -> Component:
    return Component("models", "timm_image", timm_image.Params(arch=ARCH, pretrained=pretrained))


def counted(monkeypatch: pytest.MonkeyPatch, load=lambda: STATE, key: str = "hub:x") -> list[int]:
    """Let the model's weights come from `load`, and note each time that they do."""
    calls = []

    def loaded():
        calls.append(1)
        return load()

    monkeypatch.setattr(timm_image, "source", lambda params: Source(key, loaded))
    return calls


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_networks_that_begin_with_random_weights_have_none(cache: Path) -> None:
    assert published_weights.fetch(model(False)) is None
    assert published_weights.fetch(Component("models", "basic_cnn", basic_cnn.Params())) is None
    assert not cache.exists()


def test_a_file_is_in_the_cache_with_what_is_known_of_it(cache: Path, file: Path) -> None:
    store = published_weights.fetch(model(str(file)))
    assert store.path.parent == cache / "prepared"
    assert sorted(path.name for path in store.path.iterdir()) == ["manifest.json", "model.safetensors"]
    copy = store.path / "model.safetensors"
    manifest = files.read_json(store.path / "manifest.json")
    assert manifest["source"].startswith(f"file:{file} ")
    assert manifest["sha256"] == hashlib.sha256(copy.read_bytes()).hexdigest()
    assert manifest["files"] == {"model.safetensors": copy.stat().st_size}
    assert same(published_weights.read(store), STATE)


def test_what_is_in_the_cache_is_not_fetched_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch)
    first = published_weights.fetch(model(str(file)))
    assert published_weights.fetch(model(str(file))) == first
    assert len(calls) == 1
    assert same(published_weights.read(first), STATE)


def test_a_file_that_has_changed_has_another_store(file: Path) -> None:
    first = published_weights.fetch(model(str(file)))
    save_file({"a": torch.zeros(9)}, file)
    second = published_weights.fetch(model(str(file)))
    assert second.name != first.name
    assert same(published_weights.read(first), STATE)
    assert same(published_weights.read(second), {"a": torch.zeros(9)})


def test_a_file_that_was_touched_has_the_same_store(file: Path) -> None:
    first = published_weights.fetch(model(str(file)))
    os.utime(file, ns=(0, 0))
    assert published_weights.fetch(model(str(file))) == first


def test_tensors_that_share_memory_or_lie_across_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    counted(monkeypatch, lambda: {"whole": base, "part": base[1:], "turned": base.T})
    found = published_weights.read(published_weights.fetch(model(True)))
    assert same(found, {"whole": base, "part": base[1:], "turned": base.T})


def test_other_bytes_than_were_fetched_are_refused(file: Path) -> None:
    store = published_weights.fetch(model(str(file)))
    path = store.path / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # a weight that is another one: the format alone would not tell
    path.write_bytes(content)
    assert not same(load_file(path), STATE)
    with pytest.raises(DataError, match=rf"{path}: its checksum is not that of the weights that were fetched; delete"):
        published_weights.read(store)


def test_a_store_that_is_cut_short_is_fetched_again(file: Path) -> None:
    store = published_weights.fetch(model(str(file)))
    path = store.path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="no prepared data here"):
        published_weights.read(store)
    published_weights.fetch(model(str(file)))
    assert same(published_weights.read(store), STATE)


def test_those_who_ask_at_once_fetch_once(monkeypatch: pytest.MonkeyPatch) -> None:
    everyone, slow = threading.Barrier(4), threading.Event()

    def load():
        slow.wait(0.2)  # long enough for all to arrive
        return STATE

    calls = counted(monkeypatch, load)

    def ask(_: int) -> StoreRef:
        everyone.wait(10)
        return published_weights.fetch(model(True))

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(ask, range(4)))
    assert len(calls) == 1
    assert len(set(found)) == 1
    assert same(published_weights.read(found[0]), STATE)


def test_weights_that_cannot_be_had_leave_nothing_behind(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ConfigError, match=r"model\.pretrained: hf-hub:owner/name is not in the hub's local cache and cannot be fetched"
    ):
        published_weights.fetch(model("hf-hub:owner/name"))
    assert not list(cache.rglob("model.safetensors")) and not list(cache.rglob("manifest.json"))
    assert not [path for path in (cache / "prepared").iterdir() if any(path.iterdir() if path.is_dir() else ())]
    monkeypatch.setattr("hms_ray.encoders.pretrained._download", lambda repository: STATE)
    assert same(published_weights.read(published_weights.fetch(model("hf-hub:owner/name"))), STATE)


def test_a_fetch_that_is_killed_leaves_nothing_that_counts(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted(monkeypatch)

    def killed(path: Path, content: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(files, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            published_weights.fetch(model(True))
    name = next((cache / "prepared").glob("weights-*")).name.removesuffix(".copy")
    with pytest.raises(DataError):
        published_weights.read(StoreRef.of(name))
    assert same(published_weights.read(published_weights.fetch(model(True))), STATE)


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_url_brings_them_to_machines_that_share_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    calls = counted(monkeypatch)
    monkeypatch.setenv("HMS_RAY_STORE", f"{scheme}{tmp_path / 'shared'}")
    store = published_weights.fetch(model(True))
    assert sorted(path.name for path in (tmp_path / "shared" / store.name).iterdir()) == [
        "manifest.json",
        "model.safetensors",
    ]
    monkeypatch.setenv("HMS_RAY_CACHE", str(tmp_path / "another"))
    assert published_weights.fetch(model(True)).name == store.name
    assert (tmp_path / "another" / "prepared" / store.name / "manifest.json").is_file()
    assert len(calls) == 1, "another searcher copies"
    monkeypatch.setenv("HMS_RAY_CACHE", str(tmp_path / "third"))
    elsewhere = StoreRef(store.name, Path("/nowhere"), store.url)
    assert same(published_weights.read(elsewhere), STATE)
    assert (tmp_path / "third" / "prepared" / store.name / "model.safetensors").is_file()


def test_weights_that_were_fetched_before_there_was_a_url_are_published_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = counted(monkeypatch)
    first = published_weights.fetch(model(True))
    monkeypatch.setenv("HMS_RAY_STORE", str(tmp_path / "shared"))
    store = published_weights.fetch(model(True))
    assert (store.name, len(calls)) == (first.name, 1)
    assert (tmp_path / "shared" / store.name / "manifest.json").is_file()
    monkeypatch.setenv("HMS_RAY_CACHE", str(tmp_path / "another"))
    assert same(published_weights.read(StoreRef(store.name, Path("/nowhere"), store.url)), STATE)


def test_a_fetch_is_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    counted(monkeypatch, key="hf-hub:owner/name")
    with caplog.at_level(logging.INFO, "hms_ray.training.published_weights"):
        published_weights.fetch(model(True))
        published_weights.fetch(model(True))
    assert caplog.messages == ["fetching the weights hf-hub:owner/name"]


def test_a_network_begins_from_them(tmp_path: Path) -> None:
    run = parse_run(
        {
            "data": {"name": "hms"},
            "feature": {"name": "kaggle_spectrogram", "pool": 4},
            "model": {"name": "timm_image", "arch": ARCH, "pretrained": False},
            "stages": [{"epochs": 1, "lr": 0.01}],
        }
    )
    torch.manual_seed(1)
    trained = build_model(run, TASK)
    save_file(trained.state_dict(), tmp_path / "mine.safetensors")
    store = published_weights.fetch(model(str(tmp_path / "mine.safetensors")))
    torch.manual_seed(2)
    random, begun = build_model(run, TASK), build_model(run, TASK, store)
    name = "blocks.1.0.conv_pw.weight"
    key = next(key for key in trained.state_dict() if key.endswith(name))
    assert torch.equal(begun.state_dict()[key], trained.state_dict()[key])
    assert not torch.equal(random.state_dict()[key], trained.state_dict()[key])


def test_weights_that_do_not_fit_are_named_where_a_worker_reads_them(file: Path) -> None:
    """Its run says `pretrained: false`, which is no name."""
    store = published_weights.fetch(model(str(file)))
    run = parse_run(
        {
            "data": {"name": "hms"},
            "feature": {"name": "kaggle_spectrogram", "pool": 4},
            "model": {"name": "timm_image", "arch": ARCH, "pretrained": False},
            "stages": [{"epochs": 1, "lr": 0.01}],
        }
    )
    with pytest.raises(ConfigError, match=rf"model\.pretrained: the weights file:{file} [0-9a-f]+ do not fit '{ARCH}'"):
        build_model(run, TASK, store)


@pytest.mark.parametrize("part", ["model", "feature"])
def test_a_trial_that_began_from_weights_goes_on_from_no_others(tmp_path, part):
    trial, (one, other) = StudyFolder(tmp_path).trial("toy-0000"), (StoreRef(n, tmp_path, None) for n in ("one", "two"))
    nothing = {"model": None, "feature": None}
    published_weights.begin_from(trial, nothing)
    assert not trial.weights.is_file(), "random ones leave nothing to compare"
    published_weights.begin_from(trial, nothing | {part: one})
    published_weights.begin_from(trial, nothing | {part: one})
    with pytest.raises(ConfigError, match=rf"toy-0000 began from the weights one, but its {part}.pretrained now names"):
        published_weights.begin_from(trial, nothing | {part: other})
