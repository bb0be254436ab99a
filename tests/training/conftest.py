"""A toy problem that a tiny network learns in seconds: the class is where an image is bright."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from hms_ray import tasks
from hms_ray.augment import mixup, xy_mask
from hms_ray.core.seeds import stream
from hms_ray.core.specs import InputSpec
from hms_ray.datasets import Examples
from hms_ray.store.inputs import Prepared
from hms_ray.study.epoch_selection import EVERY
from hms_ray.training import optim
from hms_ray.training.batches import TrainingData
from hms_ray.training.distributed import Replica
from hms_ray.training.fold_model import FoldModel
from hms_ray.training.jobs import FoldResult
from hms_ray.training.loop import train_fold
from hms_ray.training.recipe import Fold, Recipe
from hms_ray.training.run_stage import RunStage, begin_stage
from hms_ray.training.stages import Stage

CLASSES = ("left", "middle", "right")
SPEC = InputSpec("image", (1, 6, 12), 1.0)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def toy() -> SimpleNamespace:
    """What a fold needs: data of 60 units in 3 folds, a recipe and a way to train."""
    return SimpleNamespace(data=make_data(), recipe=make_recipe, train=train, weights=weights)


def make_data(units: int = 60, seed: int = 0, dtype: torch.dtype = torch.float16) -> TrainingData:
    """Images whose bright third is the class that most experts see; every other unit has 4 votes, the rest 12."""
    rng = stream(seed, "toy")
    label = rng.integers(0, len(CLASSES), units)
    x = rng.standard_normal((units, *SPEC.shape)).astype(np.float32)
    for i, c in enumerate(label):
        x[i, :, :, 4 * c : 4 * c + 4] += 2
    targets = np.full((units, len(CLASSES)), 0.125)
    targets[np.arange(units), label] = 0.75
    votes = np.where(np.arange(units) % 2, 12, 4)
    task = tasks.from_dict({"kind": "votes", "classes": CLASSES})
    inputs, trust = Prepared(torch.from_numpy(x).to(dtype), SPEC), np.ones(units)
    groups = np.arange(units) // 2  # two units of each patient
    return TrainingData(inputs, Examples.one_each(units), targets, votes, groups % 3, groups, trust, task)


def build() -> nn.Module:
    """A network with everything that holds state: batch norm, dropout, and weights that need decay and do not."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.GELU(),
        nn.AdaptiveAvgPool2d((1, 3)),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(12, len(CLASSES)),
    )


def make_recipe(**changes) -> Recipe:
    """Two stages of two epochs with augmentation; `changes` replace fields of the recipe or of its optimiser."""
    params = {"batch": 8, "ema": 0.9} | changes.pop("optim", {})
    fields = {
        "build": build,
        "augment": ((mixup, mixup.Params(p=0.5)), (xy_mask, xy_mask.Params(p=0.5, stripes=1))),
        "epoch": "last",
        "candidates": EVERY,
        "optim": optim.Params(**params),
        "stages": (Stage(epochs=2, lr=0.02, weight="linear", smooth=0.02), Stage(epochs=2, lr=0.01, schedule="cosine")),
        "min_votes": 10,
        "test_time": (),
        "seed": 7,
        "fingerprint": "run",
    }
    fields |= changes
    return Recipe(**(fields | {"augment": (fields["augment"],) * len(fields["stages"])}))


def begun(
    recipe: Recipe, data: TrainingData, number: int = 0, fold: int = 0, rank: int = 0, size: int = 1
) -> tuple[FoldModel, RunStage]:
    """Return a fresh network and a stage before its first epoch."""
    whole = Fold(recipe, data, fold, Replica(torch.device("cpu"), rank, size))
    model = FoldModel(whole)
    stage = recipe.stages[number]
    targets = stage.targets(data.task, data.targets, data.votes)
    return model, begin_stage(whole, model, number, 0, targets, None, None)


def rates_of(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Note the learning rate of each step."""
    rates, advance = [], RunStage.advance_schedule

    def noted(self: RunStage) -> None:
        rates.append(self.optimizer.param_groups[0]["lr"])
        advance(self)

    monkeypatch.setattr(RunStage, "advance_schedule", noted)
    return rates


def weights(result: FoldResult) -> bytes:
    """Return the packed weights after the last epoch that was kept."""
    return result.weights[max(result.weights)].read_bytes()


def train(recipe: Recipe, data: TrainingData, saved, fold: int = 0, on_epoch: Callable = lambda row: None, limits=()):
    """Train one fold on the CPU."""
    return train_fold(recipe, data, fold, Replica(torch.device("cpu")), saved / "checkpoint.pt", on_epoch, limits)
