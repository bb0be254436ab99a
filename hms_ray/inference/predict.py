"""The ensemble on new data: each member's folds averaged, members pooled by their weights. Runs without Ray.

What can be refused without torch is checked before torch is imported, which takes seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hms_ray import registry, tasks
from hms_ray.core import files
from hms_ray.core.errors import ConfigError, DataError, raise_all
from hms_ray.core.plain_yaml import load_yaml
from hms_ray.core.progress import Progress
from hms_ray.ensemble.result import EnsembleResult, Member
from hms_ray.study import oof
from hms_ray.study.folder import StudyFolder
from hms_ray.tasks import Task

if TYPE_CHECKING:
    from hms_ray.datasets import Dataset
    from hms_ray.training.run_config import RunConfig

log = logging.getLogger(__name__)
TRAINED = "trained; copy the file from the study again, or delete it and run the search again"


def predict(folder: StudyFolder, data: Path | str | None, out: Path) -> int:
    """Write the ensemble's predictions for the test part of the data; return the number of rows.

    data: as the study's dataset locates it, a folder for the most part

    Raises:
        ConfigError: the study has no ensemble, or one of an earlier version, or a member has no weights here.
        DataError: a file of the data is missing or broken, or a member's predictions are not finite or do not sum to
            what the task's do; nothing is written.
        OSError: nothing can be written to `out`; this is found before any work.
    """
    if out.is_dir():
        raise ConfigError(f"--out {out}: is a folder; name a file")
    study, ensemble = folder.read_study(), _ensemble(folder)
    members = ensemble.members
    _check_weights(folder, members, study["folds"]["k"])
    files.check_writable(out)
    task = tasks.from_dict(study["task"])
    module = registry.load("datasets", study["data"]["name"])
    dataset = module.load_test(_located(module, data))
    probs = _members_probs(folder, [member.trial for member in members], dataset, task)
    blend = task.from_outcomes(ensemble.fitted.predict(task.outcomes(probs)))
    task.check_probs(blend, f"the ensemble of {folder.root}")
    if not members:
        log.warning("no member has weight in this ensemble: it predicts the same for every unit")
    module.write_submission(out, dataset.units["unit_id"].tolist(), blend)
    return len(blend)


def _located(module: Any, data: Path | str | None) -> Path:
    from hms_ray.store.share import cache_root

    return module.locate(None if data is None else str(data), cache_root())


def _members_probs(folder: StudyFolder, trials: list[str], dataset: Dataset, task: Task) -> np.ndarray:
    """Return the members' predictions (N, M, K)."""
    from hms_ray.training.run_config import parse_run, with_random_weights

    runs = [parse_run(with_random_weights(load_yaml(folder.trial(trial).config))) for trial in trials]
    probs, progress = np.empty((len(dataset.units), len(trials), len(task.classes))), Progress("predict")
    for m, (trial, run) in enumerate(zip(trials, runs, strict=True)):
        probs[:, m] = _member_probs(folder, trial, run, dataset, task)
        progress(m + 1, len(trials))
    return probs


def _ensemble(folder: StudyFolder) -> EnsembleResult:
    """Return ensemble.json, or say which command writes it."""
    if not folder.ensemble.is_file():
        raise ConfigError(f"{folder.root} has no ensemble; run `hms-ray ensemble --study {folder.root}` first")
    return EnsembleResult.load(folder.ensemble)


def _check_weights(folder: StudyFolder, members: Sequence[Member], folds: int) -> None:
    """Raise ConfigError unless each member has the weights of its models, one a fold."""
    faults = [
        f"{member.trial} ({member.space}) has no model here; predictions from elsewhere cannot be repeated"
        for member in members
        if not folder.trial(member.trial).config.is_file()
    ]
    for trial in [member.trial for member in members if not faults]:
        named = oof.epochs_of(folder.oof(trial))
        if len(named) != folds:
            faults.append(f"{folder.oof(trial)} names the epochs of {len(named)} folds, but {trial} has {folds}")
    paths = [path for member in members if not faults for path in _weights(folder, member.trial)]
    faults = faults or [f"{path} is missing" for path in paths if not path.is_file()]
    faults = faults or _replaced(folder, [member.trial for member in members])
    raise_all(faults, ConfigError, f"{folder.root} cannot predict new data")


def _replaced(folder: StudyFolder, trials: list[str]) -> list[str]:
    """Say which weights are not those that were trained."""
    faults, unknown = [], []
    for trial in trials:
        for k, epoch in enumerate(oof.epochs_of(folder.oof(trial))):
            fold = folder.trial(trial).fold(k)
            is_intact = fold.weights_are_intact(epoch)
            if is_intact is None:
                unknown.append(trial)
            elif not is_intact:
                faults.append(f"{trial} fold {k}: {fold.weights(epoch)} does not hold the weights that were {TRAINED}")
    if unknown:
        log.warning(
            "%s: no digest of these weights is known, so they are not checked", ", ".join(dict.fromkeys(unknown))
        )
    return faults


def _weights(folder: StudyFolder, trial: str) -> list[Path]:
    """Return the weights of each fold's model, after the epoch that was chosen."""
    return [folder.trial(trial).fold(k).weights(epoch) for k, epoch in enumerate(oof.epochs_of(folder.oof(trial)))]


def _member_probs(folder: StudyFolder, trial: str, run: RunConfig, dataset: Dataset, task: Task) -> np.ndarray:
    """Return (N, K), the mean over the member's fold models."""
    import torch

    from hms_ray.training import checkpoint, precision, published_weights
    from hms_ray.training.build import build_model, test_time
    from hms_ray.training.evaluate import predict as predict_rows
    from hms_ray.training.inputs import open_run, prepare_inputs

    published_weights.check(folder.trial(trial), {"feature": published_weights.fetch(run.feature)})
    inputs = open_run(run, prepare_inputs(dataset, run), dataset.windows, dataset.examples)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows, batch, dtype = np.arange(len(inputs)), 2 * run.optim.batch, precision.of_device(run.optim.precision, device)
    total = np.zeros((len(dataset.units), len(task.classes)))
    paths = _weights(folder, trial)
    for k, path in enumerate(paths):
        model = build_model(run, task).to(device)
        try:
            model.load_state_dict(checkpoint.unpack(path))
        except RuntimeError as error:  # torch lists every layer
            config = folder.trial(trial).config
            raise DataError(
                f"{trial} fold {k}: {path} holds the weights of another network than that of {config}: one of the two "
                f"is not as it was {TRAINED}"
            ) from error
        probs = predict_rows(model, inputs, rows, task, device, batch, test_time(run), dtype)
        task.check_probs(probs, f"{trial}, the model of {path}")
        total += dataset.examples.mean(np.arange(len(dataset.units)), probs)
    return total / len(paths)
