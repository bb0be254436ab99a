"""What every test shares: the repository's root, and no thread or network that a test did not ask for."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: tests of one core each, the same everywhere
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # pretrained weights are never fetched in a test


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parents[1]
