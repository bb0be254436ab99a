"""All folds of mobilenetv3_small_050 on the CPU: as a notebook trains them, as `hms-ray train` does, and what of it
brings how much.

whole     seconds of both, in turns: of the whole command, and from the first fold's beginning to the last one's end;
          held-out KL, the mean of the folds
settings  steps under other settings beside those of a worker: ratios of medians, in turns
bfloat16  held-out KL and seconds with optim.precision bfloat16

The notebook is one process with torch's own threads: a dataset that reads arrays, makes and augments each image with
NumPy, a loader without and with workers, the default memory format. Images, first weights, folds, epochs, batch,
optimiser, schedule, average, clipping and evaluations are the same.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench import _folds
from bench._folds import ARCH, Setting
from bench._folds_steps import Child, ChildFailed, How, child, together
from bench._place import environment, linked
from bench._timing import side_by_side
from bench._words import ratio
from hms_ray.core import hints
from hms_ray.core.errors import ConfigError
from hms_ray.simulate import simulate

GOAL = "at least 2.5"
BFLOAT16 = {"precision": "bfloat16"}
OURS = "ours"
Start = Callable[[], AbstractContextManager[Child]]
TINY = {"eegs": 12, "folds": 2, "epochs": 1, "batch": 4, "repeats": 1, "rounds": 1, "steps": 1}


def run(arguments: list[str]) -> Iterator[str]:
    """Yield the lines of each part."""
    options = _options(arguments)
    with tempfile.TemporaryDirectory() as scratch, environment(Path(scratch) / "cache"):
        settings = _settings(Path(scratch), options)
        yield (
            f"{options.data or 'simulated'}: {options.eegs} EEGs, {options.folds} folds, {options.epochs} epochs, "
            f"batch {options.batch}, {ARCH}; {cores()} cores, load {_load()}, {len(settings)} seeds"
        )
        for part in options.part:
            yield part
            yield from PARTS[part](settings, options)
    yield f"load at the end {_load()}"


def whole(settings: Sequence[Setting], options: argparse.Namespace) -> Iterator[str]:
    """Compare whole trainings of all folds, in turns."""
    runs: dict[str, list[tuple[float, dict[str, Any]]]] = {name: [] for name in _ways(settings[0], options)}
    for setting in settings:
        for name, timed in side_by_side(_ways(setting, options), 1).items():
            runs[name].append(timed)
    total = {name: statistics.median(seconds for seconds, _ in of) for name, of in runs.items()}
    training = {name: statistics.median(done["training"] for _, done in of) for name, of in runs.items()}
    for name in runs:
        yield f"  {name}: {total[name]:.1f} s in all, training {training[name]:.1f} s; {_kl(runs[name])}"
    best = min((name for name in runs if name != OURS), key=total.__getitem__)
    yield ratio(f"{best} / ours, the whole commands", total[best] / total[OURS], GOAL)
    best = min((name for name in runs if name != OURS), key=training.__getitem__)
    yield ratio(f"{best} / ours, first fold's beginning to last one's end", training[best] / training[OURS], GOAL)
    start = {name: total[name] - training[name] for name in runs}
    yield f"  beside training, however long that is: {best} {start[best]:.1f} s, ours {start[OURS]:.1f} s"
    yield f"  KL, ours - {best}: {_difference(runs[OURS], runs[best])}"


def _ways(setting: Setting, options: argparse.Namespace) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return what trains all folds, each way in a process of its own."""
    ways = {
        f"notebook, {n} workers": partial(_folds.launch, "_folds_notebook", {"setting": setting, "workers": n})
        for n in options.workers
    }
    return ways | {OURS: partial(_ours, setting, options, {})}


def _ours(setting: Setting, options: argparse.Namespace, optim: Mapping[str, Any]) -> dict[str, Any]:
    return _folds.launch("_folds_ours", {"setting": setting, "optim": optim, "in_process": options.here})


def bfloat16(settings: Sequence[Setting], options: argparse.Namespace) -> Iterator[str]:
    """Compare scores and seconds of all folds in both precisions, as `hms-ray train` trains them."""
    setting = settings[0]
    kinds = {"float32": {"precision": "float32"}, "bfloat16": BFLOAT16}
    runs = {name: [(0.0, _ours(setting, options, optim))] for name, optim in kinds.items()}
    for name, of in runs.items():
        yield f"  {name}: training {of[0][1]['training']:.1f} s; {_kl(of)}"
    yield f"  KL, bfloat16 - float32: {_difference(runs['bfloat16'], runs['float32'])}"


def _kl(runs: Sequence[tuple[float, dict[str, Any]]]) -> str:
    scores = np.array([done["scores"] for _, done in runs])
    return f"KL {scores.mean():.4f}" + (
        f" ({', '.join(f'{s:.4f}' for s in scores.mean(1))})" if len(scores) > 1 else ""
    )


def _difference(ours: Sequence[tuple[float, dict]], theirs: Sequence[tuple[float, dict]]) -> str:
    """Return the mean difference over folds of all seeds, and its standard error."""
    of = [np.concatenate([done["scores"] for _, done in runs]) for runs in (ours, theirs)]
    difference = of[0] - of[1]
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    return f"{difference.mean():+.4f} +- {error:.4f} (standard error; folds of all seeds: {len(difference)})"


def parts(settings: Sequence[Setting], options: argparse.Namespace) -> Iterator[str]:
    """Compare steps under other settings with those of a worker, in turns: each a process, alive meanwhile."""
    job, rounds, workers = settings[0].jobs, options.rounds, min(cores(), options.folds)
    start = partial(child, job, steps=options.steps)
    yield f"  {rounds} rounds of {options.steps} steps; a worker: channels_last, one thread, float32"
    with ExitStack() as stack:
        worker = stack.enter_context(start(How()))
        for name, how in _others(options.compile).items():
            yield from _beside(worker, name, partial(start, how), rounds)
        group = [worker, *(stack.enter_context(start(How())) for _ in range(workers - 1))]
        for name, how in _single(workers).items():
            yield _against_processes(group, name, partial(start, how), rounds)


def _others(compiled: bool) -> dict[str, How]:
    """Return settings of one thread that differ from a worker's in one."""
    others = {
        "default memory format": How(channels_last=False),
        "the allocator's own settings": How(allocator=False),
        "optim.precision bfloat16": How(optim=BFLOAT16),
    }
    return others | ({"optim.compile": How(optim={"compile": True})} if compiled else {})


def _single(threads: int) -> dict[str, How]:
    """Return settings of one process with as many threads as there would be processes."""
    return {
        f"one process of {threads} threads": How(threads=threads),
        f"{threads} threads, default memory format, the allocator's own settings": How(
            threads=threads, channels_last=False, allocator=False
        ),
    }


def _beside(worker: Child, name: str, start: Start, rounds: int) -> Iterator[str]:
    """Yield how long steps of another process take over those of the worker, or why there is none."""
    try:
        with start() as other:
            timed = _timed({name: [other], "worker": [worker]}, rounds)
            yield ratio(f"{name} / a worker's steps, time", timed[name] / timed["worker"])
            if "compile" in name:
                yield f"    its first step took {other.first_s:.1f} s, a worker's {worker.first_s:.1f} s"
    except ChildFailed as why:
        yield f"  {name}: not here: {why}"


def _against_processes(workers: list[Child], name: str, start: Start, rounds: int) -> str:
    """Return how long one process takes for the steps that the workers take side by side."""
    with start() as other:
        timed = _timed({name: [other], "workers": workers}, rounds)
    value = len(workers) * timed[name] / timed["workers"]
    return ratio(f"{name} / {len(workers)} workers, time of as many steps", value)


def _timed(candidates: Mapping[str, list[Child]], rounds: int) -> dict[str, float]:
    timed = side_by_side({name: partial(together, children) for name, children in candidates.items()}, rounds)
    return {name: seconds for name, (seconds, _) in timed.items()}


PARTS = {"whole": whole, "settings": parts, "bfloat16": bfloat16}


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}"


def _settings(scratch: Path, options: argparse.Namespace) -> list[Setting]:
    """Prepare a setting for each seed; the data are the same."""
    data = options.data
    if data is None:
        data = scratch / "simulated"
        simulate(data, eegs=options.eegs, patients=max(6, options.eegs // 2))
    folder = linked(data, scratch / "data", options.eegs, different=options.data is not None)
    sizes = {name: getattr(options, name) for name in ("eegs", "folds", "epochs", "batch")}
    settings = [Setting(scratch, folder, **sizes, seed=seed) for seed in range(options.repeats)]
    for setting in settings:
        _folds.make(setting)
    return settings


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench folds", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="the competition's folder; else recordings are simulated")
    parser.add_argument("--part", default=",".join(PARTS), help="some of the parts, with commas")
    parser.add_argument("--eegs", type=int, default=96, help="one image each")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=1, help="of whole trainings, each with another seed")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="of the notebook's loader")
    parser.add_argument("--rounds", type=int, default=3, help="of steps under other settings")
    parser.add_argument("--steps", type=int, default=2, help="a round")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="leave optim.compile out")
    parser.add_argument("--here", action="store_true", help="our folds in one process, without Ray")
    parser.add_argument("--quick", action="store_true", help="tiny, without Ray and compiling: does it run?")
    options = parser.parse_args(arguments)
    if options.quick:
        vars(options).update(TINY, here=True, compile=False)
    options.part = options.part.split(",")
    for part in options.part:
        if part not in PARTS:
            raise ConfigError(hints.unknown("part", part, PARTS))
    return options
