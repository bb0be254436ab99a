"""Going on in halves where memory is short, and what a CPU says of its GPU memory."""

import weakref

import pytest
import torch

from hms_ray.core.errors import TrialFailed
from hms_ray.training import memory

CPU = torch.device("cpu")


def needing(most):
    """Return a step that has memory for so many rows, and the list of its attempts."""
    tried = []

    def step(rows):
        tried.append(rows)
        if rows > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 10 * rows

    return step, tried


@pytest.mark.parametrize(
    ("most", "expected"), [(32, [32]), (31, [32, 16]), (5, [32, 16, 8, 4]), (1, [32, 16, 8, 4, 2, 1])]
)
def test_rows_are_halved_until_the_memory_suffices(most, expected):
    step, tried = needing(most)
    assert memory.attempt(step, 32, CPU) == (10 * expected[-1], expected[-1])
    assert tried == expected


def test_an_odd_number_of_rows_ends_at_one():
    step, tried = needing(1)
    assert memory.attempt(step, 7, CPU) == (10, 1)
    assert tried == [7, 3, 1]


def test_where_not_one_row_fits_the_trial_fails_of_memory():
    step, tried = needing(0)
    with pytest.raises(TrialFailed, match="out of memory: not even one example fits") as failure:
        memory.attempt(step, 2, CPU)
    assert isinstance(failure.value.__cause__, torch.OutOfMemoryError)
    assert tried == [2, 1]


def test_other_errors_pass():
    def step(rows):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        memory.attempt(step, 8, CPU)


def test_what_a_failed_attempt_held_is_free_before_the_next():
    held = []

    def step(rows):
        assert all(tensor() is None for tensor in held)
        activations = torch.zeros(rows)
        held.append(weakref.ref(activations))
        if rows > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return rows

    assert memory.attempt(step, 8, CPU) == (2, 2)
    assert len(held) == 3


def test_each_halving_is_told(caplog):
    caplog.set_level("INFO")
    memory.attempt(needing(8)[0], 16, CPU)
    assert caplog.messages == ["cpu is out of memory with 16 rows at a time; going on with 8"]


def test_a_cpu_has_no_gpu_memory():
    memory.start(CPU)
    assert (memory.peak(CPU), memory.total(CPU)) == (0, 0)
