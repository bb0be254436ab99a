"""Half precision: which one a device gets, and that float16 skips, counts and repeats its steps."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from hms_ray.core.errors import TrialFailed
from hms_ray.training import loop, optim
from hms_ray.training.distributed import Replica, Team
from hms_ray.training.precision import agreed, decide
from tests.training.test_microbatch import CPU, TASK, Limited, a_model, gradients, make_batch, whole

HALF = {"precision": "float16"}


@pytest.mark.parametrize(
    ("wanted", "kind", "has_bfloat16", "expected"),
    [
        ("auto", "cpu", True, "float32"),
        ("auto", "cuda", True, "bfloat16"),
        ("auto", "cuda", False, "float16"),  # T4
        ("float32", "cuda", True, "float32"),
        ("bfloat16", "cpu", True, "bfloat16"),
        ("float16", "cpu", True, "float16"),
        ("float16", "cuda", True, "float16"),
    ],
)
def test_the_device_decides_where_nothing_is_said(wanted, kind, has_bfloat16, expected):
    assert decide(wanted, kind, has_bfloat16) == getattr(torch, expected)
    optim.Params(precision=wanted)


class Mixed(Team):
    """A team of which another worker has a GPU without bfloat16."""

    def mean(self, value):
        return value + 0.5


def test_one_worker_without_bfloat16_decides_for_all(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr("hms_ray.training.precision.torch.tensor", lambda value, device: torch.Tensor([value]))
    monkeypatch.setattr("hms_ray.training.precision._has_bfloat16", lambda device: True)
    gpu = torch.device("cuda")
    assert agreed("auto", Replica(gpu)) == torch.bfloat16
    assert agreed("auto", Replica(gpu, size=2, team=Mixed())) == torch.float16
    assert agreed("auto", Replica(CPU, size=2, team=Mixed())) == torch.float32


def step_of(scale, **options):
    """One step in float16 of a network whose gradient is scaled by so much; SGD with a rate of 1 shows the gradient."""
    network = Limited()
    model = a_model(network, options.pop("rows", 10), "float16")
    model.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    before = [p.detach().clone() for p in network.parameters()]
    loop.forward_backward(model, make_batch(), TASK.loss)
    taken = loop.clip_and_step(model, torch.optim.SGD(network.parameters(), lr=1.0), **{"clip_grad": 1e9} | options)
    moved = [b - p.detach() for b, p in zip(before, network.parameters(), strict=True)]
    return model, taken, moved


@pytest.mark.parametrize("rows", [10, 3])
def test_a_step_in_float16_follows_the_gradient_whatever_its_scale(rows):
    model, taken, moved = step_of(2.0**10, rows=rows)
    assert taken and model.scaler.get_scale() == 2.0**10
    torch.testing.assert_close(moved, whole()[1], rtol=0.05, atol=0.01)


def test_the_gradient_is_clipped_after_it_is_unscaled():
    expected = nn.utils.get_total_norm(whole()[1]).item()
    _, _, moved = step_of(2.0**10, clip_grad=expected / 4)
    assert nn.utils.get_total_norm(moved).item() == pytest.approx(expected / 4, rel=0.02)


def test_an_infinite_gradient_moves_nothing_and_halves_the_scale():
    model, taken, moved = step_of(2.0**40)
    assert not all(torch.isfinite(grad).all() for grad in gradients(model.network))
    assert not taken and model.scaler.get_scale() == 2.0**39
    assert all((change == 0).all() for change in moved)


@pytest.fixture
def overflowing(monkeypatch):
    """Scales that are too large for the first steps of a fold."""
    real = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda kind, enabled: real(kind, init_scale=2.0**22, enabled=enabled))


def curve(result, name):
    return [row[name] for row in result.epochs]


def test_skipped_steps_are_counted_and_the_fold_learns(toy, tmp_path, overflowing):
    half = toy.train(toy.recipe(optim=HALF, seed=3), toy.data, tmp_path / "half")
    full = toy.train(toy.recipe(seed=3), toy.data, tmp_path / "full")
    skipped = curve(half, "skipped_steps")
    assert 0 < skipped[0] <= 5 and skipped[1:] == [0, 0, 0], "the scale is found once"
    assert curve(full, "skipped_steps") == [0, 0, 0, 0]
    assert np.isfinite(curve(half, "train_loss")).all() and np.isfinite(half.probs[-1]).all()
    assert curve(half, "score")[-1] == pytest.approx(curve(full, "score")[-1], abs=0.2)


def test_a_skipped_step_changes_no_weight_no_average_and_no_mean_loss(toy, tmp_path, monkeypatch):
    """The first epoch is as if the skipped batches had not been: nothing of them is in any number."""
    taken, updates = [], []
    step = loop.clip_and_step
    monkeypatch.setattr(loop, "clip_and_step", lambda *given: taken.append(step(*given)) or taken[-1])
    average = "hms_ray.training.fold_model.ModelEmaV3.update"
    monkeypatch.setattr(average, lambda self, model, step: updates.append(step))
    real = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda kind, enabled: real(kind, init_scale=2.0**22, enabled=enabled))
    result = toy.train(toy.recipe(optim=HALF), toy.data, tmp_path)
    assert taken.count(False) == sum(curve(result, "skipped_steps")) > 0
    assert updates == list(range(1, taken.count(True) + 1)), "the average counts the steps that were taken"


@pytest.mark.parametrize("killed", [1, 3])
def test_a_killed_fold_in_float16_ends_as_an_undisturbed_one(toy, tmp_path, overflowing, killed):
    recipe = toy.recipe(optim=HALF)
    undisturbed = toy.train(recipe, toy.data, tmp_path / "a")

    def kill(row):
        if row["epoch"] == killed:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toy.train(recipe, toy.data, tmp_path / "b", on_epoch=kill)
    resumed = toy.train(recipe, toy.data, tmp_path / "b")
    assert toy.weights(resumed) == toy.weights(undisturbed)
    assert curve(resumed, "skipped_steps") == curve(undisturbed, "skipped_steps")


def test_a_network_that_does_not_fit_float16_fails_with_the_remedy(toy, tmp_path, monkeypatch):
    def built():
        network = toy.recipe().build()
        network[-1].register_full_backward_hook(lambda module, inputs, outputs: tuple(g * math.inf for g in inputs))
        return network

    recipe = replace(toy.recipe(optim=HALF), build=built)
    with pytest.raises(TrialFailed, match=r"gradients of epoch \d are too large for float16; set optim.precision"):
        toy.train(recipe, toy.data, tmp_path)
