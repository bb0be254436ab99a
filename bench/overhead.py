"""Seconds that a trial costs beyond its own training: in a reused Tune actor, and with Ray Train nested in Ray Tune.

Own training is what the learning curves say: epochs with their evaluation. All else counts: proposing, starting,
building the network, checkpoints, writing, recording.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import ray
import torch
from ray import train, tune
from ray.train.torch import TorchTrainer

from hms_ray.core.errors import ConfigError
from hms_ray.execution.session import session
from hms_ray.search import driver
from hms_ray.search.open_study import open_study
from hms_ray.search.space import space
from hms_ray.search.space.settings import Budget, Race
from hms_ray.search.space.space import Space
from hms_ray.study.folder import StudyFolder
from hms_ray.training.distributed import Replica
from hms_ray.training.jobs import FoldJob
from hms_ray.training.labels import TrainingLabels
from hms_ray.training.run_job import train_job


def run(arguments: list[str]) -> Iterator[str]:
    """Yield the overhead of both; trials run one at a time and train one fold."""
    options = _options(arguments)
    base = space.load(options.space, tuple(options.set))
    budget = Budget(trials=options.trials, trial_folds=1, finalists=1)
    one_at_a_time = base.resources.model_copy(update={"cpus": float(os.cpu_count() or 1)})
    base = replace(base, budget=budget, race=Race(rule="none"), resources=one_at_a_time)
    with tempfile.TemporaryDirectory() as scratch:
        ours = reused(base, options.data, Path(scratch) / "reused")
        yield f"reused actor:         {np.median(ours):6.2f} s a trial (median of {len(ours)}, largest {max(ours):.2f})"
        theirs = nested(base, options.data, Path(scratch) / "nested", options.nested)
        yield f"Train inside of Tune: {np.median(theirs):6.2f} s a trial (median of {len(theirs)})"
    yield f"ratio {np.median(theirs) / np.median(ours):.0f}"


def reused(base: Space, data: Path, root: Path) -> list[float]:
    """Return each trial's overhead after the first, which starts the actor; the journal and all files included."""
    folder = StudyFolder(root)
    driver.search(folder, [base], data)
    ends, trained = [], []
    for path in sorted((root / "trials").iterdir()):
        ends.append((path / "folds" / "0" / "oof.parquet").stat().st_mtime)
        curve = pd.read_parquet(path / "epochs.parquet")
        trained.append(curve["seconds"][curve["fold"] == 0].sum())
    order = np.argsort(ends)
    return list(np.diff(np.array(ends)[order]) - np.array(trained)[order][1:])


def nested(base: Space, data: Path, root: Path, trials: int) -> list[float]:
    """Return each trial's overhead where a Tune trial starts a Train worker group of one worker."""
    study = open_study(StudyFolder(root), [base], data)
    job = study.job("nested", base.run, 0)
    with session():
        trainable = tune.with_parameters(_nested_trial, job=job, labels=study.labels, root=str(root))
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": 0.1}),
            tune_config=tune.TuneConfig(num_samples=trials, max_concurrent_trials=1),
            run_config=tune.RunConfig(name="tune", storage_path=str(root / "ray"), verbose=0),
        )
        return [result.metrics["overhead"] for result in tuner.fit()]


def _nested_trial(config: Mapping[str, Any], job: FoldJob, labels: TrainingLabels, root: str) -> None:
    begun = time.monotonic()
    seconds = Path(tempfile.mkdtemp()) / "seconds"
    trainer = TorchTrainer(
        _fold,
        train_loop_config={"job": job, "labels": ray.put(labels), "seconds": str(seconds)},
        scaling_config=train.ScalingConfig(num_workers=1),
        run_config=train.RunConfig(name=tune.get_context().get_trial_id(), storage_path=f"{root}/train"),
    )
    trainer.fit()
    tune.report({"overhead": time.monotonic() - begun - float(seconds.read_text())})


def _fold(config: Mapping[str, Any]) -> None:
    scratch = Path(tempfile.mkdtemp()) / "checkpoint.pt"
    job, labels = replace(config["job"], saved=scratch), ray.get(config["labels"])
    result = train_job(job, labels, Replica(torch.device("cpu")), lambda row: None)
    Path(config["seconds"]).write_text(str(sum(row["seconds"] for row in result.epochs)))


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench overhead", description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("HMS_RAY_DATA"), help="default: $HMS_RAY_DATA")
    parser.add_argument("--space", default="demo")
    parser.add_argument("--trials", type=int, default=12, help="of the search in reused actors")
    parser.add_argument("--nested", type=int, default=3, help="trials with Train inside of Tune")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as for hms-ray search")
    options = parser.parse_args(arguments)
    if options.data is None:
        raise ConfigError("no data: give --data DIR or set HMS_RAY_DATA; hms-ray simulate DIR makes some")
    return options
