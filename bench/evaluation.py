"""The evaluations of a fold of mobilenetv3_small_050: all held-out units after every epoch, and as `train_fold` does.

That is: the scored units after every epoch, all of them after the last one, and of a finalist the others once more,
after the epoch that was chosen. Both in turns; the ratio is the median over the turns.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch

from bench._words import ratio
from hms_ray import tasks
from hms_ray.core.seeds import stream
from hms_ray.core.specs import InputSpec
from hms_ray.datasets import Examples
from hms_ray.models import timm_image
from hms_ray.store.inputs import Prepared
from hms_ray.study.epoch_selection import Candidates
from hms_ray.training import optim
from hms_ray.training.batches import TrainingData
from hms_ray.training.distributed import Replica
from hms_ray.training.fold_model import FoldModel
from hms_ray.training.recipe import Fold, Recipe
from hms_ray.training.stages import Stage

ARCH, CLASSES, GOAL = "mobilenetv3_small_050", tuple("abcdef"), "at most 0.45"
MANY, FEW = 12, 4  # votes of units that are scored, and of others


def run(arguments: list[str]) -> Iterator[str]:
    """Yield the units that are predicted and the ratio of the seconds."""
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    fold = _fold(options)
    model = FoldModel(fold)
    scored, others = fold.held_out[fold.is_scored], fold.held_out[~fold.is_scored]
    predicted = []

    def predict(units: np.ndarray, epochs: int = 1) -> None:
        for epoch in range(1, epochs + 1):
            predicted.append(len(units))
            model.predict(units, epoch)

    def train_fold() -> None:
        predict(scored, options.epochs)
        predict(others)

    ways: dict[str, Callable[[], None]] = {
        "all units after every epoch": lambda: predict(fold.held_out, options.epochs),
        "the scored ones, all after the last": train_fold,
        "a finalist": lambda: (train_fold(), predict(others)),
    }
    units, seconds = {}, {name: [] for name in ways}
    for _ in range(options.repeats):
        for name, way in ways.items():
            before, started = sum(predicted), time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
            units[name] = sum(predicted) - before
    sizes = f"{len(fold.held_out)} held-out units, {len(scored)} of them scored"
    yield f"{sizes}, {options.epochs} epochs, {options.repeats} turns"
    first, *others = ways
    for name in ways:
        yield f"  {name}: {units[name]} units, {statistics.median(seconds[name]):.2f} s"
    for name in others:
        shares = [own / whole for own, whole in zip(seconds[name], seconds[first], strict=True)]
        yield ratio(f"{name} / {first}", statistics.median(shares), GOAL)


def _fold(options: argparse.Namespace) -> Fold:
    """Return the second of two folds."""
    units, rng = 2 * options.units, stream(0, "evaluation")
    spec = InputSpec("image", (1, options.height, options.width), 1.0)
    x = torch.from_numpy(rng.standard_normal((units, *spec.shape)).astype(np.float32)).half()
    targets, folds = rng.dirichlet(np.ones(len(CLASSES)), units), np.arange(units) // options.units
    votes = np.where(np.arange(units) % options.units < round(options.units / options.share), MANY, FEW)
    task = tasks.from_dict({"kind": "votes", "classes": list(CLASSES)})
    groups, trust = np.arange(units), np.ones(units)
    data = TrainingData(Prepared(x, spec), Examples.one_each(units), targets, votes, folds, groups, trust, task)
    params = timm_image.Params(arch=ARCH, pretrained=False)
    recipe = Recipe(
        build=lambda: timm_image.build(spec, len(CLASSES), params),
        augment=((),),
        optim=optim.Params(batch=32, ema=0.0),
        stages=(Stage(epochs=options.epochs, lr=1e-3),),
        epoch="cross_fitted",
        candidates=Candidates(),
        min_votes=10,
        test_time=(),
        seed=0,
        fingerprint="evaluation",
    )
    return Fold(recipe, data, 1, Replica(torch.device("cpu")))


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench evaluation", description=__doc__)
    parser.add_argument("--units", type=int, default=428, help="held-out units")
    parser.add_argument("--share", type=float, default=3.4, help="held-out units for each that is scored")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--height", type=int, default=100)
    parser.add_argument("--width", type=int, default=75)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(arguments)
