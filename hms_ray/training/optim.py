"""Optimiser of timm, and learning-rate schedules in the form of timm's."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from pydantic import Field, field_validator
from timm.optim import create_optimizer_v2, list_optimizers, param_groups_layer_decay, param_groups_weight_decay
from timm.scheduler.scheduler import Scheduler

from hms_ray.core.params import Params as Strict
from hms_ray.training.precision import Precision
from hms_ray.training.stages import Stage

START, END = 1 / 25, 1e-4  # of the largest rate, where a schedule begins and ends


class Params(Strict):
    """What all stages share."""

    name: str = Field("adamw", description="an optimiser of timm")
    batch: int = Field(32, ge=1, le=4096, description="examples a step, over all workers of the fold")
    weight_decay: float = Field(0.01, ge=0, le=1, description="not applied to biases and norms")
    clip_grad: float = Field(5.0, gt=0, description="largest norm of the gradient")
    ema: float = Field(0.99, ge=0, lt=1, description="decay of the averaged weights that are scored; 0: no average")
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="rate of a layer over that of the next, the head last; 1: all have the same"
    )
    head_lr_multiplier: float = Field(
        1.0, gt=0, le=1000, description="rate of the head over the stage's lr; see layer_decay"
    )
    precision: Precision = Field(
        "auto",
        description="auto: bfloat16 on a GPU that has it, float16 with scaled gradients on others, float32 on a CPU",
    )
    compile: bool = Field(False, description="torch.compile the network; it takes a C compiler and a minute to begin")

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in list_optimizers():
            raise ValueError(f"timm has no optimiser of that name; it has {', '.join(list_optimizers())}")
        return name


def optimizer(model: torch.nn.Module, params: Params, lr: float) -> torch.optim.Optimizer:
    """Return a fresh optimiser; lr: the largest rate of its schedule."""
    return create_optimizer_v2(parameter_groups(model, params), opt=params.name, lr=lr, weight_decay=0.0)


def parameter_groups(model: torch.nn.Module, params: Params) -> list[dict[str, Any]]:
    """Return the trained parameters by weight decay and by `lr_scale`, with which timm's schedulers multiply."""
    fixed = getattr(model, "no_weight_decay", set)()
    if params.layer_decay < 1:
        groups = param_groups_layer_decay(
            model, params.weight_decay, no_weight_decay_list=fixed, layer_decay=params.layer_decay
        )
    else:
        groups = param_groups_weight_decay(model, params.weight_decay, no_weight_decay_list=fixed)
    if params.head_lr_multiplier == 1:
        return groups
    head = {id(parameter) for parameter in model.get_classifier().parameters()}
    return [part for group in groups for part in _split(group, head, params.head_lr_multiplier)]


def _split(group: dict[str, Any], head: set[int], scale: float) -> Iterator[dict[str, Any]]:
    """Yield what of a group is not the head's, and what is, at its own rate."""
    for own, change in ((False, {}), (True, {"lr_scale": scale})):
        if inside := [parameter for parameter in group["params"] if (id(parameter) in head) == own]:
            yield group | change | {"params": inside}


def schedule(
    optimizer: torch.optim.Optimizer, stage: Stage, steps: int, scale: Callable[[], float] = lambda: 1.0
) -> Scheduler:
    """Return the stage's schedule; `step_update(n)` sets the rates after n of its `steps` steps, and holds no state.

    scale: tells a plateau schedule how much of the rate is left
    """
    warmup = round(stage.warmup * steps)
    if stage.schedule == "one_cycle":
        scheduler: Scheduler = OneCycle(optimizer, steps, warmup)
    elif stage.schedule == "plateau":
        scheduler = Plateau(optimizer, warmup, scale)
    else:
        scheduler = Cosine(optimizer, steps, warmup)
    scheduler.step_update(0)
    return scheduler


class OneCycle(Scheduler):
    """Rise by a half cosine to the largest rate, then fall by another (Smith, 2018, arXiv:1803.09820)."""

    def __init__(self, optimizer: torch.optim.Optimizer, steps: int, warmup: int) -> None:
        super().__init__(optimizer, param_group_field="lr", t_in_epochs=False)
        self.steps = steps
        self.warmup = warmup

    def _get_lr(self, t: int) -> list[float]:
        if t < self.warmup:
            factor = self._rise(t / self.warmup)
        else:
            factor = _half_cosine(1, END, min(1, (t - self.warmup) / max(1, self.steps - self.warmup)))
        return [base * factor for base in self.base_values]

    def _rise(self, share: float) -> float:
        return _half_cosine(START, 1, share)


class Cosine(OneCycle):
    """Rise in a straight line to the largest rate, then fall by a half cosine (after Loshchilov, arXiv:1608.03983).

    timm's own starts its cosine at step 0, under the warm-up: it never reaches the largest rate, and jumps to the
    cosine when the warm-up ends.
    """

    def _rise(self, share: float) -> float:
        return START + (1 - START) * share


class Plateau(Scheduler):
    """Rise by a half cosine to the largest rate and stay there; all is multiplied by what `scale` returns."""

    def __init__(self, optimizer: torch.optim.Optimizer, warmup: int, scale: Callable[[], float]) -> None:
        super().__init__(optimizer, param_group_field="lr", t_in_epochs=False)
        self.warmup = warmup
        self.scale = scale

    def _get_lr(self, t: int) -> list[float]:
        factor = _half_cosine(START, 1, t / self.warmup) if t < self.warmup else 1.0
        return [base * factor * self.scale() for base in self.base_values]


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
