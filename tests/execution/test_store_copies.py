"""Stores brought to nodes that share no disk: what is told of a copy. test_apart.py in tests/search copies for real."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from hms_ray.execution import store_copies
from hms_ray.store.share import StoreRef


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The node 10.0.0.2 of a cluster, whose cache is empty."""
    directory = SimpleNamespace(holds=SimpleNamespace(remote=lambda *what: None))
    ray = SimpleNamespace(
        get_actor=lambda name: directory,
        get_runtime_context=lambda: SimpleNamespace(get_node_id=lambda: "b"),
        get=lambda answer: answer,
    )
    monkeypatch.setattr(store_copies, "ray", ray)
    monkeypatch.setattr(store_copies, "get_node_ip_address", lambda: "10.0.0.2")
    monkeypatch.setenv("HMS_RAY_CACHE", str(tmp_path))


@pytest.mark.parametrize(
    ("size", "seconds", "told"),
    [(15_800_000, 0.5, ("15.8 MB", "0 s (31.6 MB/s)")), (12 * 10**9, 60, ("12.0 GB", "60 s (200.0 MB/s)"))],
)
def test_a_copy_is_told_with_its_size_in_the_unit_that_shows_it(
    node: None, monkeypatch: pytest.MonkeyPatch, size: int, seconds: float, told: tuple[str, str]
) -> None:
    def copy(target: Path, holders: object, begins: Callable[[str, int], None]) -> int:
        begins("10.0.0.1", size)
        return size

    clock = iter((100.0, 100.0 + seconds))
    monkeypatch.setattr(store_copies, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(store_copies, "copy_store", copy)
    sentences = []
    store_copies.bring([StoreRef("toy-1", Path("/nowhere"), None)], sentences.append)
    assert sentences == [
        f"copying toy-1 ({told[0]}) from node 10.0.0.1 to node 10.0.0.2",
        f"copied toy-1 to node 10.0.0.2 in {told[1]}",
    ]
