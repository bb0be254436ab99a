"""A few threads, a few pieces ahead, and the first error told."""

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from hms_ray.store import workers
from hms_ray.store.workers import AHEAD, Threads

ITEMS = [str(i) for i in range(30)]


@pytest.fixture(autouse=True)
def three_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same number on every machine."""
    monkeypatch.setattr(workers, "THREADS", 3)


def test_results_come_in_the_order_of_the_items() -> None:
    def slow_at_first(item: str) -> int:
        time.sleep(0.02 if item == "0" else 0)
        return int(item) ** 2

    assert list(Threads().imap(slow_at_first, ITEMS)) == [i**2 for i in range(30)]
    assert list(Threads().imap(int, [])) == []


def test_several_items_are_worked_on_at_once() -> None:
    together = threading.Barrier(3, timeout=20)
    assert list(Threads().imap(lambda item: together.wait() * 0, ITEMS)) == [0] * 30


def test_only_a_few_pieces_are_in_flight() -> None:
    begun, most = [], 0
    for taken, _ in enumerate(Threads().imap(begun.append, ITEMS), start=1):
        time.sleep(0.002)  # who takes them is slow
        most = max(most, len(begun) - taken)
    assert len(begun) == 30 and 0 < most < AHEAD * 3


def test_the_first_error_is_raised_and_what_had_not_begun_never_does() -> None:
    begun = []

    def fails(item: str) -> str:
        begun.append(item)
        if int(item) >= 4:
            raise ValueError(item)
        return item

    found = []
    with pytest.raises(ValueError, match=r"^4$"):
        for item in Threads().imap(fails, ITEMS):
            found.append(item)
    assert found == ["0", "1", "2", "3"]
    assert len(begun) <= 4 + AHEAD * 3


def test_torch_has_its_threads_back_afterwards() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert set(Threads().imap(lambda item: torch.get_num_threads(), ITEMS)) == {1}
        assert torch.get_num_threads() == 2
        flow: Iterator[int] = Threads().imap(int, ITEMS)
        next(flow)
        assert torch.get_num_threads() == 1
        flow.close()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
