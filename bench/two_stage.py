"""Two stages against one of as many epochs, plain or weighted by votes: cross-validated KL at many votes, by seed."""

import argparse
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hms_ray.core.errors import ConfigError
from hms_ray.datasets import Dataset
from hms_ray.search.open_study import load_dataset
from hms_ray.search.space import space
from hms_ray.study import folds
from hms_ray.training.distributed import Replica
from hms_ray.training.inputs import prepare_inputs
from hms_ray.training.jobs import FoldJob
from hms_ray.training.labels import TrainingLabels
from hms_ray.training.run_config import RunConfig, parse_run
from hms_ray.training.run_job import train_job


def run(arguments: list[str]) -> Iterator[str]:
    """Yield one line a seed and their means; folds, weights and order of rows are the same in both arms."""
    options = _options(arguments)
    torch.set_num_threads(1)
    two = space.load(options.space).run.content
    dataset = _dataset(options.data, two)
    scored = (dataset.units["votes"] >= two["score"]["min_votes"]).sum()
    yield f"KL at >= {two['score']['min_votes']} votes: {scored} of {len(dataset.units)} units, {two['folds']} folds"
    arms = {"one stage": one_stage(two, "none"), "one, weighted": one_stage(two, "linear"), "two stages": two}
    yield "  seed" + "".join(f"{name:>15}" for name in arms)
    scores = []
    for seed in options.seeds:
        scores.append([_score(dataset, parse_run(content | {"seed": seed})) for content in arms.values()])
        yield _row(f"{seed:4}", scores[-1])
    yield _row("mean", np.mean(scores, axis=0))


def one_stage(content: Mapping[str, Any], weight: str) -> dict[str, Any]:
    """Return the run with its first stage only, for as many epochs as all stages have, and that loss weight."""
    epochs = sum(stage["epochs"] for stage in content["stages"])
    return {**content, "stages": [content["stages"][0] | {"epochs": epochs, "weight": weight}]}


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench two_stage", description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("HMS_RAY_DATA"), help="default: $HMS_RAY_DATA")
    parser.add_argument("--space", default="demo", help="a space whose base run has several stages")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    return parser.parse_args(arguments)


def _dataset(root: Path | None, content: Mapping[str, Any]) -> Dataset:
    if root is None:
        raise ConfigError("no data: give --data DIR or set HMS_RAY_DATA; hms-ray simulate DIR makes some")
    return load_dataset(root, parse_run(content))


def _score(dataset: Dataset, run: RunConfig) -> float:
    """Train every fold in this process and return the score of the held-out predictions."""
    table = folds.assign(dataset.units, run.folds, run.seed)
    labels = TrainingLabels.of(dataset, table)
    stores = prepare_inputs(dataset, run)
    probs = np.empty_like(labels.targets)
    with tempfile.TemporaryDirectory() as scratch:
        for k in range(run.folds):
            job = FoldJob("bench", run, k, stores, Path(scratch) / str(k) / "checkpoint.pt")
            result = train_job(job, labels, Replica(torch.device("cpu")), lambda row: None)
            probs[result.rows] = result.probs[-1]
    scored = labels.votes >= run.score.min_votes
    return dataset.task.score(labels.targets[scored], probs[scored])


def _row(name: str, scores: Sequence[float]) -> str:
    return f"  {name}" + "".join(f"{score:15.4f}" for score in scores)
