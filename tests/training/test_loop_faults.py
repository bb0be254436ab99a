"""What a fold does when memory is short, the disk is full, or numbers and batches cannot be worked with."""

import errno
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load
from torch import nn

from hms_ray.augment import mixup
from hms_ray.augment._compose import Batch
from hms_ray.core.errors import TrialFailed
from hms_ray.training import history
from hms_ray.training.distributed import Replica
from hms_ray.training.loop import train_fold
from hms_ray.training.stages import Stage


class Limited(nn.Module):
    """A network without batch norm and dropout that has memory for so many rows, in training and in evaluation."""

    def __init__(self, most):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.GELU(), nn.AdaptiveAvgPool2d((1, 3)), nn.Flatten(), nn.Linear(12, 3)
        )
        self.most = most

    def forward(self, x):
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.body(x)


@pytest.mark.parametrize("most", [7, 3, 1])
def test_out_of_memory_a_fold_goes_on_in_parts_to_the_same_end(toy, tmp_path, most):
    whole, parts = (
        toy.train(toy.recipe(build=lambda n=n: Limited(n)), toy.data, tmp_path / str(n)) for n in (1000, most)
    )
    assert (whole.out_of_memory, parts.out_of_memory) == (False, True)
    np.testing.assert_allclose(parts.probs, whole.probs, atol=1e-5)
    for row, expected in zip(parts.epochs, whole.epochs, strict=True):
        assert row | {"seconds": 0} == pytest.approx(expected | {"seconds": 0}, abs=1e-5)
    weights = load(toy.weights(parts))
    for name, tensor in load(toy.weights(whole)).items():
        torch.testing.assert_close(weights[name], tensor, atol=1e-5, rtol=1e-4)


def test_where_not_one_example_fits_the_trial_fails(toy, tmp_path):
    with pytest.raises(TrialFailed, match="not even one example fits"):
        toy.train(toy.recipe(build=lambda: Limited(0)), toy.data, tmp_path / "a")


def test_a_full_disk_is_no_failure_of_the_trial(toy, tmp_path, monkeypatch):
    def full(path, state):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(history.checkpoint, "save", full)
    with pytest.raises(OSError, match="No space left") as error:
        toy.train(toy.recipe(), toy.data, tmp_path / "a")
    assert error.value.errno == errno.ENOSPC


class Spoil:
    """An augmentation that makes the images of one epoch infinite."""

    def __init__(self, epoch, steps):
        self.from_step, self.calls = (epoch - 1) * steps, 0

    def apply(self, batch: Batch, rng, params):
        self.calls += 1
        return replace(batch, x=batch.x * math.inf) if self.calls > self.from_step else batch


def test_a_loss_that_is_no_number_fails_the_trial_and_names_the_epoch(toy, tmp_path):
    recipe = toy.recipe(augment=((Spoil(epoch=3, steps=5), mixup.Params(p=1.0)),))
    with pytest.raises(TrialFailed, match=r"the training loss became nan in epoch 3; a smaller lr or clip_grad"):
        toy.train(recipe, toy.data, tmp_path / "a")


class Diverges(nn.Linear):
    """Fine in training, infinite in evaluation: as weights that overflow in the very last step are."""

    def forward(self, x):
        y = super().forward(x.flatten(1))
        return y if self.training else y * math.inf


def test_predictions_that_are_no_numbers_fail_the_trial(toy, tmp_path):
    recipe = toy.recipe(build=lambda: Diverges(72, 3))
    with np.errstate(invalid="ignore"), pytest.raises(TrialFailed, match=r"predictions after epoch 1 are not finite"):
        toy.train(recipe, toy.data, tmp_path / "a")


def test_a_stage_without_rows_fails_the_trial(toy, tmp_path):
    recipe = toy.recipe(stages=(Stage(epochs=1, lr=0.01), Stage(epochs=1, lr=0.01, min_votes=13)))
    with pytest.raises(TrialFailed, match=r"min_votes 13, max_votes None leaves no unit .* votes are 4 to 12"):
        toy.train(recipe, toy.data, tmp_path / "a")


def test_batches_too_small_for_the_workers_fail_the_trial(toy, tmp_path):
    replica = Replica(torch.device("cpu"), rank=0, size=4)
    with pytest.raises(TrialFailed, match=r"batches of 2 .* 4 workers"):
        train_fold(toy.recipe(optim={"batch": 3}), toy.data, 0, replica, tmp_path / "a", lambda row: None)
