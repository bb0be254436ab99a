"""What training reads beside a dataset with a loader, and whole epochs beside the bare steps of their network."""

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from functools import partial
from types import ModuleType

import numpy as np
import torch
from timm.utils import ModelEmaV3
from torch import nn
from torch.utils.data import DataLoader

from bench import _notebook
from bench._paced import train_epochs
from bench._place import Place
from bench._words import per_second, ratio
from hms_ray import registry
from hms_ray.augment._compose import Batch, apply_all
from hms_ray.core.params import Params
from hms_ray.core.recordings import SPECTROGRAM
from hms_ray.datasets import Dataset, first_step
from hms_ray.models import timm_image
from hms_ray.store.inputs import memory_format
from hms_ray.study.epoch_selection import EVERY
from hms_ray.tasks import Task
from hms_ray.training import optim
from hms_ray.training.batches import StageBatches, TrainingData
from hms_ray.training.precision import autocast, of_device
from hms_ray.training.recipe import Recipe
from hms_ray.training.stages import Stage

ARCH = "mobilenetv3_small_050"
STAGE = Stage(epochs=1000, lr=1e-3)
AUGMENT = tuple(
    (registry.load("augment", name), registry.load("augment", name).Params(p=0.5))
    for name in ("mirror_sides", "xy_mask", "mixup")
)


def batches(place: Place) -> Iterator[str]:
    """Compare batches as training takes them with those of a loader: the same augmentations, and with mixup besides."""
    dataset = place.dataset()
    epochs = _epochs(place, dataset)
    images = _images(dataset)
    loaders = {
        n: DataLoader(images, place.options.batch, True, num_workers=n, persistent_workers=n > 0) for n in (0, 2)
    }
    rng = np.random.default_rng(0)

    def ours(recipe: Sequence[tuple[ModuleType, Params]]) -> int:
        passes = range(place.options.passes)
        return sum(len(apply_all(batch, rng, recipe).x) for _ in passes for batch in epochs.batches(rng, rng))

    def theirs(loader: DataLoader) -> int:
        return sum(len(x) for x, _ in loader)

    methods = {"ours": partial(ours, AUGMENT[:2]), "ours with mixup": partial(ours, AUGMENT)}
    rates = place.rates(methods | {f"{n} workers": partial(theirs, loader) for n, loader in loaders.items()})
    yield f"  {len(images)} images of 400 x 300, {place.options.batch} a batch: {per_second(rates, 'images')}"
    for n in loaders:
        goal = "at least 7" if n == 0 else None
        yield ratio(
            f"dataset and loader, {n} workers / gathered and augmented", rates["ours"] / rates[f"{n} workers"], goal
        )
    mixed = rates["ours with mixup"] / rates["0 workers"]
    yield ratio("dataset and loader, 0 workers / gathered, augmented and mixed up", mixed)


def _images(dataset: Dataset) -> _notebook.Images:
    """Hold every spectrogram in memory as notebooks do, its columns in the order of the regions."""
    windows = dataset.windows["spectrogram"]
    held = {name: np.ascontiguousarray(dataset.read("spectrogram", name).T) for name in dataset.files("spectrogram")}
    return _notebook.Images(held, windows.names, first_step(SPECTROGRAM, windows.middle_s), dataset.targets)


def _epochs(place: Place, dataset: Dataset) -> StageBatches:
    data = _training_data(place, dataset)
    rows = np.arange(len(dataset.units))
    return StageBatches(data, rows, data.targets, np.ones(len(rows)), place.options.batch, torch.device("cpu"))


def _training_data(place: Place, dataset: Dataset) -> TrainingData:
    inputs, votes = place.inputs(dataset, "kaggle_spectrogram"), dataset.units["votes"].to_numpy()
    examples, zero, one = dataset.examples, np.zeros(len(votes)), np.ones(len(votes))
    return TrainingData(inputs, examples, dataset.targets, votes, zero, votes, one, dataset.task)


def pipeline(place: Place) -> Iterator[str]:
    """Compare epochs as folds are trained with as many steps of the same network on one batch, on each device."""
    data = _training_data(place, place.dataset())
    for device in ["cpu", *["cuda"] * torch.cuda.is_available()]:
        rates = _rates(data, torch.device(device), place.options)
        yield f"  {ARCH}, {tuple(data.inputs.spec.shape)}, {device}: {per_second(rates, 'images')}"
        yield ratio(f"training / bare steps, {device}", rates["bare"] / rates["ours"], "at most 1.05")


def _rates(data: TrainingData, device: torch.device, options: argparse.Namespace) -> dict[str, float]:
    """Return images a second of `train_fold` and of bare steps, in turns; the first of each is not counted."""
    network = timm_image.Params(arch=ARCH, pretrained=False)
    build = partial(timm_image.build, data.inputs.spec, len(data.task.classes), network)
    recipe = Recipe(build, (AUGMENT,), optim.Params(batch=options.batch), (STAGE,), "last", EVERY, 1, (), 0, "bench")
    data = data.to(device)
    epochs = StageBatches(data, np.arange(options.batch), data.targets, np.ones(len(data.votes)), options.batch, device)
    bare = _Bare(recipe, data.task, device, epochs.largest(1))
    seconds: dict[str, list[float]] = {"ours": [], "bare": []}

    def turn(epoch_seconds: float) -> None:
        seconds["ours"].append(epoch_seconds)
        started = time.perf_counter()
        bare(options.steps)
        seconds["bare"].append(time.perf_counter() - started)

    train_epochs(recipe, data, device, [options.steps] * (1 + options.rounds), turn)
    return {name: options.batch * options.steps / statistics.median(times[1:]) for name, times in seconds.items()}


class _Bare:
    """The steps of another network of the same kind, written out, always on the same batch."""

    def __init__(self, recipe: Recipe, task: Task, device: torch.device, batch: Batch) -> None:
        self.device, self.batch, self.settings, self.task = device, batch, recipe.optim, task
        self.network = recipe.build().to(self.device, memory_format=memory_format(4)).train()
        self.average = ModelEmaV3(self.network, decay=self.settings.ema, use_warmup=True)
        self.optimizer = optim.optimizer(self.network, self.settings, STAGE.lr)

    def __call__(self, steps: int) -> int:
        """Take so many steps and return the images that went through."""
        for _ in range(steps):
            self.optimizer.zero_grad(set_to_none=True)
            with autocast(self.device, of_device("auto", self.device)):
                logits = self.network(self.batch.x)
            loss = self.task.loss(logits, self.batch.y).mean()
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip_grad)
            self.optimizer.step()
            self.average.update(self.network, step=1)
        loss.item()  # waits for the device
        return steps * len(self.batch.x)
