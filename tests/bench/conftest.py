"""The benches are no part of the installed package: they are found from the repository."""

import importlib
from collections.abc import Callable
from types import ModuleType

import pytest


@pytest.fixture
def bench_named(repository, monkeypatch) -> Callable[[str], ModuleType]:
    """Import a module of the benches by its name; no real files are looked for."""
    monkeypatch.syspath_prepend(repository)
    monkeypatch.delenv("HMS_RAY_REAL", raising=False)
    return lambda name: importlib.import_module(f"bench.{name}")
