"""Which device a worker trains on."""

import pytest
import torch

from hms_ray.core.errors import ConfigError, TrialFailed
from hms_ray.execution.device import device, rehearsed


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    monkeypatch.delenv("HMS_RAY_DEVICE", raising=False)


@pytest.fixture
def gpus(monkeypatch):
    """Say how many GPUs torch finds."""
    return lambda count: monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)


@pytest.mark.parametrize(("share", "expected"), [(0, "cpu"), (0.25, "cuda"), (1, "cuda")])
def test_a_worker_with_a_share_of_a_gpu_trains_there(gpus, share, expected):
    gpus(1)
    assert device(share) == torch.device(expected)


def test_a_gpu_that_only_ray_knows_of_fails_the_trial(gpus):
    gpus(0)
    assert device(0) == torch.device("cpu")
    with pytest.raises(TrialFailed, match=r"was given 0\.5 GPU, but torch .* finds none"):
        device(0.5)


@pytest.mark.parametrize("count", [0, 1])
def test_a_rehearsal_trains_on_the_cpu_whatever_ray_hands_out(gpus, monkeypatch, count):
    gpus(count)
    assert not rehearsed()
    monkeypatch.setenv("HMS_RAY_DEVICE", "cpu")
    assert rehearsed()
    assert device(1) == torch.device("cpu")


def test_any_other_value_is_refused(monkeypatch):
    monkeypatch.setenv("HMS_RAY_DEVICE", "gpu")
    with pytest.raises(ConfigError, match=r"HMS_RAY_DEVICE must be 'cpu' .* or unset, but is 'gpu'"):
        rehearsed()
