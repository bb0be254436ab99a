"""Optimiser and learning-rate schedule, both timm's; one-cycle is added in timm's own form."""

import math

import torch
from pydantic import Field, field_validator
from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import CosineLRScheduler
from timm.scheduler.scheduler import Scheduler

from hms_ray.params import Params as Strict
from hms_ray.training.stages import Stage

START, END = 1 / 25, 1e-4  # of the largest rate, where a schedule begins and ends


class Params(Strict):
    """What all stages share."""

    name: str = Field("adamw", description="an optimiser of timm")
    batch: int = Field(32, ge=1, le=4096, description="examples a step, over all workers of the fold")
    weight_decay: float = Field(0.01, ge=0, le=1, description="not applied to biases and norms")
    clip_grad: float = Field(5.0, gt=0, description="largest norm of the gradient")
    ema: float = Field(0.99, ge=0, lt=1, description="decay of the averaged weights that are scored; 0: no average")

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in list_optimizers():
            raise ValueError(f"timm has no optimiser of that name; it has {', '.join(list_optimizers())}")
        return name


def optimizer(model: torch.nn.Module, params: Params, stage: Stage) -> torch.optim.Optimizer:
    """Return a fresh optimiser for one stage."""
    return create_optimizer_v2(model, opt=params.name, lr=stage.lr, weight_decay=params.weight_decay)


def schedule(optimizer: torch.optim.Optimizer, stage: Stage, steps: int) -> Scheduler:
    """Return the stage's schedule; `step_update(n)` sets the rate after n of its `steps` steps, and holds no state."""
    warmup = round(stage.warmup * steps)
    if stage.schedule == "one_cycle":
        scheduler: Scheduler = OneCycle(optimizer, steps, warmup)
    else:
        scheduler = CosineLRScheduler(
            optimizer,
            t_initial=steps,
            lr_min=stage.lr * END,
            warmup_t=warmup,
            warmup_lr_init=stage.lr * START,
            warmup_prefix=False,
            t_in_epochs=False,
        )
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
            factor = _half_cosine(START, 1, t / self.warmup)
        else:
            factor = _half_cosine(1, END, min(1, (t - self.warmup) / max(1, self.steps - self.warmup)))
        return [base * factor for base in self.base_values]


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
