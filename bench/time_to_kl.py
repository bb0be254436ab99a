"""Time to an ensemble of a given KL: racing against Optuna alone, with one sampler, one budget of trials, by seed.

Both arms run through the same engine in this process, one fold at a time; Optuna alone trains every fold of each trial.
Seconds are of processor time; the features are prepared before.
"""

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from hms_ray import ensemble
from hms_ray.core.errors import ConfigError
from hms_ray.search import driver
from hms_ray.search.prepare import prepare
from hms_ray.search.space import space
from hms_ray.search.space.settings import Race
from hms_ray.search.space.space import Space
from hms_ray.study.folder import StudyFolder
from hms_ray.study.oof import OofTable, stack


@dataclass(frozen=True)
class Course:
    """Seconds and cross-fitted KL each time a trial had all its folds, and how many folds were trained in all."""

    seconds: np.ndarray
    kl: np.ndarray
    folds: float

    def first(self, target: float) -> float:
        """Return the seconds after which the ensemble was at least as good for the first time; inf: never."""
        reached = self.kl <= target
        return float(self.seconds[reached.argmax()]) if reached.any() else float("inf")

    def time_to(self, target: float) -> float:
        """Return the seconds from which on the ensemble stayed at least as good; inf: at no time.

        A cross-fitted KL may rise again as members join, and nobody who stops early knows that it will.
        """
        worse = np.flatnonzero(self.kl > target)
        start = worse[-1] + 1 if len(worse) else 0
        return float(self.seconds[start]) if start < len(self.kl) else float("inf")


def run(arguments: list[str]) -> Iterator[str]:
    """Yield one block a seed and the median ratio of times."""
    options = _options(arguments)
    torch.set_num_threads(1)
    base = space.load(options.space, (*options.set, f"budget.trials={options.trials}"))
    prepare([base], options.data)
    yield f"{options.trials} trials of {base.name}, {base.run.folds} folds, KL at >= {base.run.score.min_votes} votes"
    ratios = []
    for seed in options.seeds:
        courses = {name: _course(arm, options.data) for name, arm in _arms(_seeded(base, seed)).items()}
        target = max(course.kl[-1] for course in courses.values()) + options.tolerance
        yield f"seed {seed}: time to KL {target:.4f}, the worse of their last ones + {options.tolerance:g}"
        yield from (_line(name, course, target) for name, course in courses.items())
        ratios.append(courses["racing"].time_to(target) / courses["Optuna alone"].time_to(target))
        yield f"  time ratio {ratios[-1]:.2f}, {_regret(courses)}"
    yield f"median time ratio {np.median(ratios):.2f}"


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench time_to_kl", description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("HMS_RAY_DATA"), help="default: $HMS_RAY_DATA")
    parser.add_argument("--space", default="demo")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tolerance", type=float, default=0.0, help="added to the KL to be reached")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as for hms-ray search")
    options = parser.parse_args(arguments)
    if options.data is None:
        raise ConfigError("no data: give --data DIR or set HMS_RAY_DATA; hms-ray simulate DIR makes some")
    return options


def _seeded(base: Space, seed: int) -> Space:
    return replace(base, base=base.base | {"seed": seed})


def _arms(base: Space) -> Mapping[str, Space]:
    every_fold = base.budget.model_copy(update={"trial_folds": base.run.folds, "finalists": base.budget.trials})
    return {"Optuna alone": replace(base, budget=every_fold, race=Race(rule="none")), "racing": base}


def _course(arm: Space, data: Path) -> Course:
    """Run a search in a folder of its own and read from the files what it had when."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = StudyFolder(Path(scratch) / "study")
        with _processor_clock() as seconds_at:
            driver.search(folder, [arm], data, in_process=True)
        whole = {trial: seconds_at(_ended(folder, trial, arm.run.folds)) for trial in folder.oof_ids()}
        order = sorted(whole, key=whole.__getitem__)
        tables = [OofTable.read(folder.oof(trial)) for trial in order]
        epochs = sum(len(pd.read_parquet(path)) for path in folder.root.glob("trials/*/epochs.parquet"))
    kl = [_cross_fitted(tables[: n + 1], arm.run.score.min_votes) for n in range(len(tables))]
    each = sum(stage.epochs for stage in arm.run.stages)
    return Course(np.array([whole[trial] for trial in order]), np.array(kl), epochs / each)


@contextmanager
def _processor_clock() -> Iterator[Callable[[float], float]]:
    """Yield a function from the time of day to this process's processor time since, whatever else the machine does."""
    begun, over, ticks = time.process_time(), threading.Event(), [(time.time(), 0.0)]

    def tick() -> None:
        while not over.wait(0.2):
            ticks.append((time.time(), time.process_time() - begun))

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield lambda moment: float(np.interp(moment, *np.transpose(ticks)))
    finally:
        over.set()
        thread.join()


def _ended(folder: StudyFolder, trial: str, folds: int) -> float:
    """Return when a trial's last fold was written."""
    return max(folder.trial(trial).fold(k).oof.stat().st_mtime for k in range(folds))


def _cross_fitted(tables: list[OofTable], min_votes: int) -> float:
    members = stack(tables)
    scored = members.votes >= min_votes
    rows = (members.probs, members.targets, members.group_ids, members.folds)
    return ensemble.fit(*rows, weights=scored.astype(float), pool="linear", task=members.task).score_cross_fitted_


def _line(name: str, course: Course, target: float) -> str:
    return (
        f"  {name:13} {course.time_to(target):7.1f} s to stay there (first {course.first(target):.1f}), "
        f"{course.seconds[-1]:7.1f} s in all, {course.folds:6.1f} folds, "
        f"last KL {course.kl[-1]:.4f} of {len(course.kl)} members"
    )


def _regret(courses: Mapping[str, Course]) -> str:
    alone, racing = courses["Optuna alone"], courses["racing"]
    return f"folds used {racing.folds / alone.folds:.0%}, regret {racing.kl[-1] - alone.kl[-1]:+.4f}"
