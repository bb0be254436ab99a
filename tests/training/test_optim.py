"""Schedules against their known points and against torch's; optimisers by name."""

import math
from itertools import pairwise

import pytest
import timm
import torch
from pydantic import ValidationError
from timm.optim import param_groups_layer_decay
from torch import nn

from hms_ray.training import optim
from hms_ray.training.stages import EarlyStopping, Stage

STEPS = 40


def rates(schedule, steps=STEPS, warmup=0.25, lr=0.02):
    """The learning rate of each step, and after the last."""
    model = nn.Linear(2, 2)
    early_stopping = EarlyStopping() if schedule == "plateau" else None
    stage = Stage(epochs=1, lr=lr, schedule=schedule, warmup=warmup, early_stopping=early_stopping)
    optimizer = optim.optimizer(model, optim.Params(), lr)
    scheduler = optim.schedule(optimizer, stage, steps)
    found = [optimizer.param_groups[0]["lr"]]
    for step in range(1, steps + 1):
        scheduler.step_update(step)
        assert len({group["lr"] for group in optimizer.param_groups}) == 1
        found.append(optimizer.param_groups[0]["lr"])
    return found


def test_one_cycle_equals_torchs():
    ours = rates("one_cycle")
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=0.02,
        total_steps=STEPS + 1,  # torch's last rate is that of its last step
        pct_start=(0.25 * STEPS + 1) / (STEPS + 1),
        anneal_strategy="cos",
        cycle_momentum=False,
        div_factor=1 / optim.START,
        final_div_factor=optim.START / optim.END,
    )
    expected = [theirs.get_last_lr()[0]]
    for _ in range(STEPS):
        optimizer.step()
        theirs.step()
        expected.append(theirs.get_last_lr()[0])
    assert ours == pytest.approx(expected, rel=1e-9)


LONG = [(steps, warmup) for steps in (2, 3, 7, 40, 397) for warmup in (0.0, 0.02, 0.05, 0.25, 0.5, 0.9)]


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "plateau"])
@pytest.mark.parametrize(("steps", "warmup"), LONG)
def test_a_schedule_starts_peaks_and_ends_where_it_should(schedule, steps, warmup):
    """It rises from START to exactly lr at the warm-up's end, then falls without a jump, to END after the last step."""
    found, peak = rates(schedule, steps=steps, warmup=warmup), round(warmup * steps)
    assert found[peak] == pytest.approx(0.02, rel=1e-12) and max(found) <= 0.02 * (1 + 1e-12)
    if peak:
        assert found[0] == pytest.approx(0.02 * optim.START)
    assert found[: peak + 1] == sorted(found[: peak + 1])
    if schedule == "plateau":
        return
    assert found[peak:] == sorted(found[peak:], reverse=True)
    if peak < steps:
        assert found[-1] == pytest.approx(0.02 * optim.END, rel=1e-6)
        steepest = 0.02 * math.pi / 2 / (steps - peak)  # of the fall, a half cosine over the steps that are left
        assert max(a - b for a, b in pairwise(found[peak:])) <= steepest * (1 + 1e-9)
    if peak:
        steepest = 0.02 * math.pi / 2 / peak  # of the rise
        assert max(b - a for a, b in pairwise(found[: peak + 1])) <= steepest * (1 + 1e-9)


def test_cosine_rises_in_a_line_and_follows_the_cosine_from_there():
    found = rates("cosine")
    low, start = 0.02 * optim.END, 0.02 * optim.START
    for t in range(10):
        assert found[t] == pytest.approx(start + (0.02 - start) * t / 10, rel=1e-9)
    for t in range(10, STEPS):
        share = (t - 10) / (STEPS - 10)
        assert found[t] == pytest.approx(low + (0.02 - low) * (1 + math.cos(math.pi * share)) / 2, rel=1e-9)


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "plateau"])
@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.25), (1, 0.9), (2, 0.9), (3, 0.0), (5, 0.5)])
def test_the_shortest_schedules_stay_within_bounds(schedule, steps, warmup):
    found = rates(schedule, steps=steps, warmup=warmup)
    assert all(math.isfinite(rate) and 0 < rate <= 0.02 * (1 + 1e-12) for rate in found)


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "plateau"])
def test_without_warm_up_a_schedule_begins_at_its_peak(schedule):
    assert rates(schedule, warmup=0.0)[0] == pytest.approx(0.02)


def test_a_plateau_warms_up_as_one_cycle_does_and_stays():
    found = rates("plateau")
    assert found[:10] == rates("one_cycle")[:10]
    assert found[10:] == [0.02] * 31


def test_a_plateau_asks_how_much_is_left_at_each_step():
    left, optimizer = [1.0], optim.optimizer(nn.Linear(2, 2), optim.Params(head_lr_multiplier=1.0), 0.02)
    stage = Stage(epochs=1, lr=0.02, schedule="plateau", early_stopping=EarlyStopping())
    scheduler = optim.schedule(optimizer, stage, STEPS, lambda: left[0])
    for scale, step, expected in ((1.0, 30, 0.02), (0.5, 30, 0.01), (0.25, 12, 0.005), (1.0, 0, 0.02 * optim.START)):
        left[0] = scale
        scheduler.step_update(step)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected)


def test_a_schedule_holds_no_state():
    """Any step can be asked for in any order: a continued run needs nothing but the step's number."""
    straight = rates("one_cycle")
    optimizer = optim.optimizer(nn.Linear(2, 2), optim.Params(), 0.02)
    scheduler = optim.schedule(optimizer, Stage(epochs=1, lr=0.02), STEPS)
    for step in (30, 3, 17):
        scheduler.step_update(step)
        assert optimizer.param_groups[0]["lr"] == straight[step]


def test_biases_and_norms_do_not_decay():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    optimizer = optim.optimizer(model, optim.Params(weight_decay=0.3), 0.1)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay[id(model[0].weight)] == 0.3
    assert {decay[id(p)] for p in (model[0].bias, model[1].weight, model[1].bias)} == {0.0}


@pytest.mark.parametrize("name", ["adamw", "sgd", "adan", "lion"])
def test_optimisers_of_timm_are_built_by_name(name):
    optimizer = optim.optimizer(nn.Linear(2, 2), optim.Params(name=name), 0.1)
    assert optimizer.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize(
    "change",
    [
        {"name": "adamx"},
        {"batch": 0},
        {"batch": 8.0},
        {"ema": 1.0},
        {"clip_grad": 0.0},
        {"weight_decay": -1.0},
        {"layer_decay": 0.0},
        {"layer_decay": 1.1},
        {"head_lr_multiplier": 0.0},
        {"precision": "half"},
        {"compile": 1},
        {"x": 1},
    ],
)
def test_impossible_optimisers_are_refused(change):
    with pytest.raises(ValidationError):
        optim.Params(**change)


LR = 0.02


@pytest.fixture(scope="module")
def net():
    """A network with layers that timm knows, and a head."""
    return timm.create_model("resnet10t", num_classes=3)


def scales(groups):
    """The rate of each parameter over the schedule's, by identity."""
    return {id(p): group.get("lr_scale", 1.0) for group in groups for p in group["params"]}


def of(net, **params):
    return scales(optim.parameter_groups(net, optim.Params(**params)))


def test_layers_have_the_rates_that_timm_gives_them(net):
    expected = scales(param_groups_layer_decay(net, 0.01, layer_decay=0.5))
    assert of(net, layer_decay=0.5) == expected
    assert len(set(expected.values())) >= 5
    first, head = of(net, layer_decay=0.5)[id(net.conv1[0].weight)], net.get_classifier().weight
    assert first < 0.1
    assert expected[id(head)] == 1.0


def test_decay_of_weights_is_the_same_with_layers_of_their_own_rates(net):
    """Biases and norms have none, everything else has it."""
    for params in (
        {},
        {"layer_decay": 0.5},
        {"head_lr_multiplier": 9.0},
        {"layer_decay": 0.5, "head_lr_multiplier": 9.0},
    ):
        groups = optim.parameter_groups(net, optim.Params(weight_decay=0.3, **params))
        decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
        assert decay == {id(p): 0.3 if p.ndim > 1 else 0.0 for p in net.parameters()}


@pytest.mark.parametrize("layers", [{}, {"layer_decay": 0.5}])
def test_the_heads_rate_is_the_heads_alone(net, layers):
    plain, other = of(net, **layers), of(net, **layers, head_lr_multiplier=10.0)
    head = {id(p) for p in net.get_classifier().parameters()}
    assert {other[p] for p in head} == {10.0}
    assert {p: rate for p, rate in other.items() if p not in head} == {p: r for p, r in plain.items() if p not in head}
    assert other.keys() == plain.keys()


def test_the_model_says_what_does_not_decay():
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.position, self.body = nn.Parameter(torch.ones(2, 2)), nn.Linear(2, 2)

        def no_weight_decay(self):
            return {"position"}

    model = Positions()
    for params in ({}, {"layer_decay": 0.5}):
        groups = optim.parameter_groups(model, optim.Params(weight_decay=0.3, **params))
        decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
        assert (decay[id(model.position)], decay[id(model.body.weight)]) == (0.0, 0.3)


@pytest.mark.parametrize(
    "params", [{}, {"layer_decay": 0.5}, {"head_lr_multiplier": 10.0}, {"layer_decay": 0.5, "head_lr_multiplier": 10.0}]
)
def test_frozen_parameters_are_in_no_group_and_others_in_one(params):
    net = timm.create_model("resnet10t", num_classes=3)
    frozen = [*net.conv1.parameters(), *net.layer1.parameters()]
    for parameter in frozen:
        parameter.requires_grad_(False)
    groups = optim.parameter_groups(net, optim.Params(**params))
    found = [id(p) for group in groups for p in group["params"]]
    assert sorted(found) == sorted(id(p) for p in net.parameters() if p.requires_grad)
    assert len(found) < len(list(net.parameters()))


def test_by_default_there_is_one_rate(net):
    optimizer = optim.optimizer(net, optim.Params(), LR)
    optim.schedule(optimizer, Stage(epochs=1, lr=LR), STEPS).step_update(7)
    assert len({group["lr"] for group in optimizer.param_groups}) == 1


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine"])
def test_a_schedule_moves_each_rate_by_its_scale(net, schedule):
    expected = rates(schedule, lr=LR)
    optimizer = optim.optimizer(net, optim.Params(layer_decay=0.5, head_lr_multiplier=10.0), LR)
    scheduler = optim.schedule(optimizer, Stage(epochs=1, lr=LR, schedule=schedule), STEPS)
    for step in (0, 1, 17, STEPS):
        if step:
            scheduler.step_update(step)
        found = [group["lr"] for group in optimizer.param_groups]
        assert found == pytest.approx([expected[step] * group["lr_scale"] for group in optimizer.param_groups])
        assert len(set(found)) >= 6


@pytest.mark.parametrize("params", [{}, {"layer_decay": 0.5, "head_lr_multiplier": 10.0}])
def test_a_step_is_as_long_as_its_rate(params):
    """What counts in the end: with plain descent each parameter moves by its own rate, and by Nesterov's momentum."""
    net = timm.create_model("resnet10t", num_classes=3)
    optimizer = optim.optimizer(net, optim.Params(name="sgd", weight_decay=0.0, **params), LR)
    optim.schedule(optimizer, Stage(epochs=1, lr=LR, warmup=0.0), STEPS)
    before = {id(p): p.detach().clone() for p in net.parameters()}
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    expected = of(net, **params)
    for p in net.parameters():
        moved = (before[id(p)] - p).abs().mean().item()
        assert moved == pytest.approx(1.9 * LR * expected[id(p)], rel=1e-3)
