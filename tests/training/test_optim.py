"""Schedules against their known points and against torch's; optimisers by name."""

import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from hms_ray.training import optim
from hms_ray.training.stages import Stage

STEPS = 40


def rates(schedule, steps=STEPS, warmup=0.25, lr=0.02):
    """The learning rate of each step, and after the last."""
    model = nn.Linear(2, 2)
    stage = Stage(epochs=1, lr=lr, schedule=schedule, warmup=warmup)
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


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine"])
def test_a_schedule_starts_peaks_and_ends_where_it_should(schedule):
    found = rates(schedule)
    assert found[0] == pytest.approx(0.02 * optim.START)
    assert found[-1] == pytest.approx(0.02 * optim.END, rel=1e-6)
    assert max(found) <= 0.02 * (1 + 1e-12)
    rising = found[:10] if schedule == "one_cycle" else found[:9]
    assert rising == sorted(rising)
    falling = found[11:]
    assert falling == sorted(falling, reverse=True)


def test_one_cycle_reaches_its_peak_at_the_end_of_the_warm_up():
    assert rates("one_cycle")[10] == pytest.approx(0.02)


def test_cosine_follows_the_cosine_after_the_warm_up():
    found = rates("cosine")
    low = 0.02 * optim.END
    for t in range(11, STEPS):
        assert found[t] == pytest.approx(low + (0.02 - low) * (1 + math.cos(math.pi * t / STEPS)) / 2, rel=1e-9)


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine"])
@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.25), (1, 0.9), (2, 0.9), (3, 0.0), (5, 0.5)])
def test_the_shortest_schedules_stay_within_bounds(schedule, steps, warmup):
    found = rates(schedule, steps=steps, warmup=warmup)
    assert all(math.isfinite(rate) and 0 < rate <= 0.02 * (1 + 1e-12) for rate in found)


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine"])
def test_without_warm_up_a_schedule_begins_at_its_peak(schedule):
    assert rates(schedule, warmup=0.0)[0] == pytest.approx(0.02)


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
        {"x": 1},
    ],
)
def test_impossible_optimisers_are_refused(change):
    with pytest.raises(ValidationError):
        optim.Params(**change)
