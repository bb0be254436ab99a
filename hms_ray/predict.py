"""The ensemble on new data: each member's folds averaged, members pooled by their weights. Runs without Ray."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hms_ray import files, oof, tasks, weights
from hms_ray.config import RunConfig, load_yaml, parse_run
from hms_ray.crossval import build_model, open_run, prepare_inputs, test_time, with_random_weights
from hms_ray.datasets import Dataset
from hms_ray.ensemble import _pool
from hms_ray.errors import ConfigError, raise_all
from hms_ray.progress import Progress
from hms_ray.store.share import cache_root
from hms_ray.study_folder import StudyFolder
from hms_ray.tasks import Task
from hms_ray.training import checkpoint, precision
from hms_ray.training.evaluate import predict as predict_rows


def predict(folder: StudyFolder, data: Path | str | None, out: Path) -> int:
    """Write the ensemble's predictions for the test part of the data; return the number of rows.

    data: as the study's dataset locates it, a folder for the most part

    Raises:
        ConfigError: the study has no ensemble, or one of an earlier version, or a member has no weights here.
        DataError: a file of the data is missing or broken; nothing is written.
    """
    if out.is_dir():
        raise ConfigError(f"--out {out}: is a folder; name a file")
    study, ensemble = folder.read_study(), _ensemble(folder)
    members = ensemble["members"]
    _check_weights(folder, members)
    task = tasks.from_dict(study["task"])
    configs = [load_yaml(folder.trial(member["trial"]).config) for member in members]
    runs = [parse_run(with_random_weights(config)) for config in configs]
    module = runs[0].data.module
    dataset = module.load_test(module.locate(None if data is None else str(data), cache_root()))
    progress = Progress("predict")
    probs = []
    for done, (member, run) in enumerate(zip(members, runs, strict=True), start=1):
        probs.append(_member_probs(folder, member["trial"], run, dataset, task))
        progress(done, len(members))
    blend = _blend(ensemble["fitted"], task, np.stack(probs, axis=1))
    module.write_submission(out, dataset.units["unit_id"].tolist(), blend)
    return len(blend)


def _blend(fitted: dict[str, Any], task: Task, probs: np.ndarray) -> np.ndarray:
    """Pool the members' predictions, (N, M, K) -> (N, K)."""
    return task.from_outcomes(_pool.from_dict(fitted).predict(task.outcomes(probs)))


def _ensemble(folder: StudyFolder) -> dict[str, Any]:
    """Return ensemble.json, or say which command writes it."""
    command = f"`hms-ray ensemble --study {folder.root}`"
    if not folder.ensemble.is_file():
        raise ConfigError(f"{folder.root} has no ensemble; run {command} first")
    content = files.read_json(folder.ensemble)
    if "fitted" not in content:
        raise ConfigError(f"{folder.ensemble} was written by an earlier version; run {command} again")
    return content


def _check_weights(folder: StudyFolder, members: list[dict[str, Any]]) -> None:
    """Raise ConfigError unless each member has the weights of its models."""
    faults = [
        f"{member['trial']} ({member['space']}) has no model here; predictions from elsewhere cannot be repeated"
        for member in members
        if not folder.trial(member["trial"]).config.is_file()
    ]
    paths = [path for member in members if not faults for path in _weights(folder, member["trial"])]
    faults = faults or [f"{path} is missing" for path in paths if not path.is_file()]
    raise_all(faults, ConfigError, f"{folder.root} cannot predict new data")


def _weights(folder: StudyFolder, trial: str) -> list[Path]:
    """Return the weights of each fold's model, after the epoch that was chosen."""
    return [folder.trial(trial).fold(k).weights(epoch) for k, epoch in enumerate(oof.epochs_of(folder.oof(trial)))]


def _member_probs(folder: StudyFolder, trial: str, run: RunConfig, dataset: Dataset, task: Task) -> np.ndarray:
    """Return (N, K), the mean over the member's fold models."""
    weights.check(folder.trial(trial), {"feature": weights.fetch(run.feature)})
    inputs = open_run(run, prepare_inputs(dataset, run), dataset.windows, dataset.examples)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows, batch, dtype = np.arange(len(inputs)), 2 * run.optim.batch, precision.of_device(run.optim.precision, device)
    total = np.zeros((len(dataset.units), len(task.classes)))
    paths = _weights(folder, trial)
    for path in paths:
        model = build_model(run, task).to(device)
        model.load_state_dict(checkpoint.unpack(path))
        probs = predict_rows(model, inputs, rows, task, device, batch, test_time(run), dtype)
        total += dataset.examples.mean(np.arange(len(dataset.units)), probs)
    return total / len(paths)


if __name__ == "__main__":
    from hms_ray.cli import main

    sys.exit(main(["predict", *sys.argv[1:]]))
