"""The ensemble on new data: the mean of each member's fold models, pooled by the fitted pool. Runs without Ray.

Everything that can be rejected without torch is checked before torch is imported, which takes seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hms_ray import registry, tasks
from hms_ray.core import files, source_files
from hms_ray.core.errors import ConfigError, DataError, raise_all
from hms_ray.core.plain_yaml import load_yaml
from hms_ray.core.progress import Progress
from hms_ray.ensemble.result import EnsembleResult, Member
from hms_ray.store.share import cache_root
from hms_ray.study import oof
from hms_ray.study.folder import StudyFolder
from hms_ray.tasks import Task

if TYPE_CHECKING:
    from hms_ray.datasets import Dataset

log = logging.getLogger(__name__)
TRAINED = "trained; copy the file from the study again, or delete it and run the search again"


def predict(folder: StudyFolder, data: Path | str | None, out: Path) -> int:
    """Write the ensemble's predictions for the test part of the data; return the number of rows.

    data: as the study's dataset locates it, usually a folder

    Raises:
        ConfigError: the study has no ensemble, or one of an earlier version, or a member has no weights here.
        DataError: a file of the data is missing or broken, or a member's predictions are not finite or have wrong sums;
            nothing is written.
        OSError: `out` cannot be written to; this is found before any work.
    """
    if out.is_dir():
        raise ConfigError(f"--out {out}: is a folder; name a file")
    study = folder.read_study()
    if not folder.ensemble.is_file():
        raise ConfigError(f"{folder.root} has no ensemble; run `hms-ray ensemble --study {folder.root}` first")
    ensemble = EnsembleResult.load(folder.ensemble)
    _check_weights(folder, ensemble.members, study["folds"]["k"])
    files.check_writable(out)
    task = tasks.from_dict(study["task"])
    for space in study["spaces"].values():  # components in files, which the study holds
        source_files.restore(space["base"].get("files", {}), f"{folder.study}: spaces: files")
    name = study["data"]["name"]
    module = registry.load("datasets", name)
    part = module.load_test(module.locate(None if data is None else str(data), cache_root()))
    from hms_ray.datasets import checked  # which the module has imported

    dataset = checked(part, name)
    probs = _member_probs(folder, [member.trial for member in ensemble.members], dataset, task)
    blend = task.from_outcomes(ensemble.fitted.predict(task.outcomes(probs)))
    task.check_probs(blend, f"the ensemble of {folder.root}")
    if not ensemble.members:
        log.warning("no member has weight in this ensemble: it predicts the same for every unit")
    module.write_submission(out, dataset.units["unit_id"].tolist(), blend)
    return len(blend)


def _check_weights(folder: StudyFolder, members: Sequence[Member], folds: int) -> None:
    """Raise ConfigError unless each member has the trained weights of its models, one a fold."""
    problem = f"{folder.root} cannot predict new data"
    faults = [
        f"{member.trial} ({member.space}) has no model here; imported predictions cannot be repeated"
        for member in members
        if not folder.trial(member.trial).config.is_file()
    ]
    raise_all(faults, ConfigError, problem)
    epochs = {member.trial: oof.epochs_of(folder.oof(member.trial)) for member in members}
    faults = [
        f"{folder.oof(trial)} names the epochs of {len(chosen)} folds, but {trial} has {folds}"
        for trial, chosen in epochs.items()
        if len(chosen) != folds
    ]
    models = [
        (trial, k, folder.trial(trial).fold(k), epoch)
        for trial, chosen in epochs.items()
        for k, epoch in enumerate(chosen)
    ]
    missing = [fold.weights(epoch) for _, _, fold, epoch in models if not fold.weights(epoch).is_file()]
    raise_all(faults + [f"{path} is missing" for path in missing], ConfigError, problem)
    intact = {(trial, k): fold.weights_are_intact(epoch) for trial, k, fold, epoch in models}
    unknown = dict.fromkeys(trial for (trial, _), is_intact in intact.items() if is_intact is None)
    if unknown:
        log.warning("%s: no digest of these weights is known, so they are not checked", ", ".join(unknown))
    faults = [
        f"{trial} fold {k}: {fold.weights(epoch)} does not hold the weights that were {TRAINED}"
        for trial, k, fold, epoch in models
        if intact[trial, k] is False
    ]
    raise_all(faults, ConfigError, problem)


def _member_probs(folder: StudyFolder, trials: list[str], dataset: Dataset, task: Task) -> np.ndarray:
    """Return the members' predictions (N, M, K), each the mean of its fold models."""
    import torch

    from hms_ray.training import checkpoint, precision, published_weights
    from hms_ray.training.build import build_model, test_time
    from hms_ray.training.evaluate import predict as predict_rows
    from hms_ray.training.inputs import open_run, prepare_inputs
    from hms_ray.training.run_config import parse_run, with_random_weights

    configs = [folder.trial(trial).config for trial in trials]
    runs = [parse_run(with_random_weights(load_yaml(config))) for config in configs]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    units, progress = np.arange(len(dataset.units)), Progress("predict")
    probs = np.zeros((len(units), len(trials), len(task.classes)))
    for m, (trial, run) in enumerate(zip(trials, runs, strict=True)):
        published_weights.check(folder.trial(trial), {"feature": published_weights.fetch(run.feature)})
        inputs = open_run(run, prepare_inputs(dataset, run), dataset.windows, dataset.examples)
        rows, batch, dtype = (
            np.arange(len(inputs)),
            2 * run.optim.batch,
            precision.of_device(run.optim.precision, device),
        )
        epochs = oof.epochs_of(folder.oof(trial))
        for k, epoch in enumerate(epochs):
            path, model = folder.trial(trial).fold(k).weights(epoch), build_model(run, task).to(device)
            try:
                model.load_state_dict(checkpoint.unpack(path))
            except RuntimeError as error:  # torch lists every layer
                raise DataError(
                    f"{trial} fold {k}: {path} holds the weights of another network than that of {configs[m]}: one of "
                    f"the two is not as it was {TRAINED}"
                ) from error
            of_fold = predict_rows(model, inputs, rows, task, device, batch, test_time(run), dtype)
            task.check_probs(of_fold, f"{trial}, the model of {path}")
            probs[:, m] += dataset.examples.mean(units, of_fold)
        probs[:, m] /= len(epochs)
        progress(m + 1, len(trials))
    return probs
