"""Where weights are, how they are fetched, and what is said where they cannot be had."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError, HTTPError, LocalEntryNotFoundError
from huggingface_hub.utils import get_session
from safetensors.torch import save_file

from hms_ray.core.errors import ConfigError
from hms_ray.core.params import parse
from hms_ray.encoders import pretrained
from hms_ray.encoders.pretrained import Pretrained, Source, Unreachable, called, fetched, from_hub, source

WEIGHTS = {"a": torch.arange(3.0)}
SENTENCE = "hf-hub:owner/name is not in the hub's local cache and cannot be fetched"
PUBLISHED = Source("hf-hub:owner/published", dict)


@pytest.fixture(autouse=True)
def as_a_process_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is known of the hub."""
    monkeypatch.setattr(pretrained, "_hub", pretrained._Hub())


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository in the hub's cache, without a network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    folder, commit = tmp_path / "models--owner--name", "0" * 40
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    return folder / "snapshots" / commit


def _source(pretrained: object) -> Source | None:
    return source(parse(Pretrained, {"pretrained": pretrained}, "model"), lambda: PUBLISHED)


def test_what_the_parameter_says(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    assert _source(True) is PUBLISHED and _source(False) is None
    assert _source("hf-hub:owner/name").key == "hf-hub:owner/name"
    for spelling in (tmp_path, tmp_path / "model.safetensors"):
        assert _source(str(spelling)).key.startswith(f"file:{tmp_path}/model.safetensors")
        assert torch.equal(_source(str(spelling)).load()["a"], WEIGHTS["a"])


@pytest.mark.parametrize("pretrained", ["nowhere.safetensors", "weights.bin", "owner/name", "."])
def test_other_spellings_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pretrained: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="pretrained must be true, false, hf-hub:owner/name, or the path of a"):
        _source(pretrained)


def test_what_messages_call_weights() -> None:
    assert called(Pretrained(pretrained="hf-hub:a/b"), "owner/published") == "hf-hub:a/b"
    assert called(Pretrained(), "owner/published") == "owner/published"


def test_the_safe_format_comes_first(snapshot: Path) -> None:
    torch.save({"a": torch.zeros(3)}, snapshot / "pytorch_model.bin")
    assert torch.equal(from_hub("owner/name").load()["a"], torch.zeros(3))
    save_file(WEIGHTS, snapshot / "model.safetensors")
    assert torch.equal(from_hub("owner/name").load()["a"], WEIGHTS["a"])


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("content", [b"", b"hello world, this is not it", "truncated"])
def test_a_broken_file_is_named(snapshot: Path, name: str, content: bytes | str) -> None:
    path = snapshot / name
    save_file(WEIGHTS, path) if path.suffix == ".safetensors" else torch.save(WEIGHTS, path)
    path.write_bytes(path.read_bytes()[:-10] if content == "truncated" else content)
    with pytest.raises(ConfigError, match=r"model\.pretrained: .* is broken: "):
        from_hub("owner/name").load()
    if path.suffix == ".safetensors":
        with pytest.raises(ConfigError, match=rf"model\.pretrained: {path} is broken: "):
            _source(str(path)).load()


def test_a_pickle_that_runs_code_is_not_read(snapshot: Path, tmp_path: Path) -> None:
    torch.save({"a": _Trap(tmp_path / "sprung")}, snapshot / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="is broken: "):
        from_hub("owner/name").load()
    assert not (tmp_path / "sprung").exists()


class _Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_what_is_nowhere_is_said_to_be(snapshot: Path) -> None:
    with pytest.raises(ConfigError, match="hf-hub:owner/name is not in the hub's local cache and cannot be fetched"):
        from_hub("owner/name").load()
    with pytest.raises(ConfigError, match="hf-hub:not a name is not in the hub's local cache and cannot be fetched"):
        from_hub("not a name").load()


def test_offline_the_cache_decides_which_file_is_taken(snapshot: Path) -> None:
    """Nobody can ask then whether there is a safe one; where neither is cached, one sentence says so."""
    with pytest.raises(ConfigError, match=SENTENCE):
        from_hub("owner/name").load()
    torch.save(WEIGHTS, snapshot / "pytorch_model.bin")
    assert torch.equal(from_hub("owner/name").load()["a"], WEIGHTS["a"])


def _answers(monkeypatch: pytest.MonkeyPatch, error: Exception, cause: Exception | None = None) -> list[str]:
    """Let the hub answer so, and note which files it is asked for."""
    asked = []

    def download(repository: str, name: str) -> str:
        asked.append(name)
        raise error from cause

    monkeypatch.setattr(pretrained, "hf_hub_download", download)
    return asked


def test_a_repository_that_has_no_weights_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _answers(monkeypatch, EntryNotFoundError("404: no such file"))
    with pytest.raises(ConfigError, match=rf"{SENTENCE} from the hub \(404: no such file\)"):
        from_hub("owner/name").load()
    assert asked == ["model.safetensors", "pytorch_model.bin"]


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (
            LocalEntryNotFoundError("check your connection"),
            ConnectionError("no route to host"),
        ),
        (LocalEntryNotFoundError("check your connection"), HTTPError("no route to host")),
        (HTTPError("no route to host"), None),  # amid a file: above, before its first byte
    ],
)
def test_a_hub_that_cannot_be_reached_is_not_asked_for_a_pickle(
    monkeypatch: pytest.MonkeyPatch, error: Exception, cause: Exception | None
) -> None:
    asked = _answers(monkeypatch, error, cause)
    unreachable = r"hf-hub:owner/name is not in the hub's local cache, and the hub is unreachable \(no route to host\)"
    with pytest.raises(ConfigError, match=rf"model\.pretrained: {unreachable}; fetch it where there is a network"):
        from_hub("owner/name").load()
    assert asked == ["model.safetensors"]


def test_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(WEIGHTS, path)
    key, written = _source(str(path)).key, path.stat()
    os.utime(path, ns=(0, 0))
    assert _source(str(path)).key == key, "a touch changes nothing"
    save_file({"a": WEIGHTS["a"] + 1}, path)
    os.utime(path, ns=(written.st_atime_ns, written.st_mtime_ns))
    assert path.stat().st_size == written.st_size and _source(str(path)).key != key, "other weights of the same size"


def test_a_file_that_is_deleted_after_the_check_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(WEIGHTS, path)
    params = parse(Pretrained, {"pretrained": str(path)}, "model")
    found = source(params, lambda: PUBLISHED)
    path.unlink()
    for ask in (lambda: source(params, lambda: PUBLISHED), found.load):
        with pytest.raises(ConfigError, match=rf"model\.pretrained must be .*; there is no such file: {path}"):
            ask()


def test_a_fetch_that_works_is_passed_on() -> None:
    assert fetched("x", lambda: WEIGHTS) is WEIGHTS


@pytest.fixture
def endpoint(snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The hub's address, at which a listener accepts connections and never answers."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(pretrained, "PROBE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{listener.getsockname()[1]}")
        listener.settimeout(0.1)
        yield listener


def _connections(listener: socket.socket) -> int:
    count = 0
    try:
        while True:
            listener.accept()[0].close()
            count += 1
    except TimeoutError:
        return count


def test_a_hub_that_never_answers_is_asked_once(endpoint: socket.socket, snapshot: Path) -> None:
    for name in ("owner/one", "owner/two", "owner/three"):
        with pytest.raises(
            Unreachable, match=rf"hf-hub:{name} is not in the hub's .* is unreachable \(http://127"
        ) as e:
            from_hub(name).load()
        assert e.value.name == f"hf-hub:{name}"
    assert _connections(endpoint) == 1
    save_file(WEIGHTS, snapshot / "model.safetensors")
    assert torch.equal(from_hub("owner/name").load()["a"], WEIGHTS["a"]), "the cache is still there"
    assert not huggingface_hub.constants.HF_HUB_OFFLINE


def test_a_hub_that_refuses_is_asked_once(endpoint: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint.close()
    asked = []
    monkeypatch.setattr(pretrained, "get_session", lambda: asked.append(1) or get_session())
    for _ in range(3):
        with pytest.raises(Unreachable, match=r"the hub is unreachable \(http://127.0.0.1:\d+: .*refused"):
            from_hub("owner/name").load()
    assert asked == [1]


def test_a_connection_that_is_lost_later_is_noticed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    pretrained._hub.cause = ""  # it answered
    offline = []

    def download(repository: str, name: str) -> str:
        offline.append(huggingface_hub.constants.HF_HUB_OFFLINE)
        raise LocalEntryNotFoundError("check your connection") from ConnectionError("no route to host")

    monkeypatch.setattr(pretrained, "hf_hub_download", download)
    for _ in range(2):
        with pytest.raises(Unreachable, match="no route to host"):
            from_hub("owner/name").load()
    assert offline[0] is False and offline[1] is True


def test_several_networks_that_cannot_be_had_are_one_sentence() -> None:
    said = pretrained.all_unreachable(
        {"hf-hub:a/b": ["space x", "space y", "space x"], "hf-hub:c/d": ["space x"]}, "why"
    )
    assert said.startswith("the hub is unreachable (why), and its local cache lacks 2 networks: ")
    assert "hf-hub:a/b (space x, space y), hf-hub:c/d (space x); fetch them where there is a network (HF_HOME" in said
