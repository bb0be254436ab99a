"""Steps of one fold under other settings, each in a process of its own that trains when it is told to."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any
from unittest import mock

import torch

from bench import _folds
from bench._paced import NO_FOLD, train_epochs
from hms_ray.core.allocator import keep_freed
from hms_ray.training.batches import TrainingData
from hms_ray.training.build import make_recipe
from hms_ray.training.distributed import Replica
from hms_ray.training.inputs import open_run
from hms_ray.training.recipe import Fold
from hms_ray.training.run_config import parse_run

LAYOUTS = ("hms_ray.training.fold_model.memory_format", "hms_ray.store.inputs.memory_format")


@dataclass(frozen=True)
class How:
    """The settings of a process; those given by default are the ones of a worker."""

    threads: int = 1
    channels_last: bool = True
    allocator: bool = True
    optim: Mapping[str, Any] = field(default_factory=dict)


class Child:
    """A process that trains steps of a fold when it is told to.

    first_s: seconds of its first step, known when it is ready
    """

    def __init__(self, process: subprocess.Popen, errors: IO[str]) -> None:
        self.process, self.errors = process, errors
        self.first_s = self.wait()

    def start(self) -> None:
        """Let it train its steps."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def wait(self) -> float:
        """Wait until it has, and return its own seconds.

        Raises:
            ChildFailed: it ended instead.
        """
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            raise ChildFailed(_last_line(self.errors.read()))
        return float(line)


@contextmanager
def child(job: Path, how: How, steps: int) -> Iterator[Child]:
    """Yield a process that is ready to train; errors as in `Child.wait`."""
    told = [str(job), json.dumps(asdict(how)), str(steps)]
    command = [sys.executable, "-m", "bench._folds_steps", *told]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with (
        tempfile.TemporaryFile("w+") as errors,
        tempfile.TemporaryDirectory() as compiled,
        subprocess.Popen(command, env=_environment(how, compiled), stderr=errors, **pipes) as process,
    ):
        yield Child(process, errors)


def _environment(how: How, compiled: str) -> dict[str, str]:
    """Return the environment; what was compiled before would hide what compiling takes."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    return kept | {"OMP_NUM_THREADS": str(how.threads), "TORCHINDUCTOR_CACHE_DIR": compiled}


class ChildFailed(Exception):
    """A process could not train; the message is its last word."""


def together(children: list[Child]) -> None:
    """Let all train their steps at the same time."""
    for child in children:
        child.start()
    for child in children:
        child.wait()


def _last_line(text: str) -> str:
    """Return the line that says what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if "Error" in line.partition(":")[0]]
    return (named or lines or ["it said nothing"])[-1]


def fold_of(job: Path, how: How) -> Fold:
    """Return the fold that is trained, its held-out units left out."""
    torch.set_num_threads(how.threads)
    if how.allocator:
        keep_freed()
    fold, labels = _folds.load_job(job)
    run = parse_run({**fold.run.content, "optim": {**fold.run.content["optim"], **how.optim}})
    inputs = open_run(run, fold.stores, labels.windows, labels.examples)
    trust = (labels.folds != fold.fold).astype(float)
    data = TrainingData(
        inputs, labels.examples, labels.targets, labels.votes, labels.folds, labels.group_ids, trust, labels.task
    )
    recipe = make_recipe(run, labels.task, fold.fold)
    stages = tuple(stage.model_copy(update={"epochs": 1000}) for stage in recipe.stages[:1])  # more than are trained
    return Fold(replace(recipe, stages=stages), data, NO_FOLD, Replica(torch.device("cpu")))


def main(job: str, how: str, steps: str) -> None:
    """Train one step and say how long it took; then as many as asked whenever a line comes."""
    wanted = How(**json.loads(how))
    for name in () if wanted.channels_last else LAYOUTS:
        mock.patch(name, lambda ndim: torch.contiguous_format).start()
    fold = fold_of(Path(job), wanted)
    train_epochs(
        fold.recipe, fold.data, fold.replica.device, _counts(int(steps)), lambda seconds: print(seconds, flush=True)
    )


def _counts(steps: int) -> Iterator[int]:
    """Yield how many steps to train: one at first, to compile and to take memory, then as told."""
    yield 1
    for _ in sys.stdin:
        yield steps


if __name__ == "__main__":
    main(*sys.argv[1:])
