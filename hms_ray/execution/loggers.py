"""Curves for MLflow and Weights & Biases, through Ray's own callbacks; TensorBoard files are Tune's default.

The callbacks hang on Tune: they see trials, not the folds that finalists train in a worker group.
"""

import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.air.integrations.wandb import WandbLoggerCallback
from ray.exceptions import RayError
from ray.tune.experiment import Trial
from ray.tune.logger import LoggerCallback

from hms_ray.core.errors import ConfigError, raise_all, without_secrets

log = logging.getLogger(__name__)

SHOWN = ("fold", "epoch", "train_loss", "score", "training_iteration")
# A tracking server that is gone would otherwise hold the search for minutes.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}


def check(mlflow: str | None, wandb: str | None) -> None:
    """Refuse loggers that could not log, before anything starts.

    mlflow: a tracking URI
    wandb: a project

    Raises:
        ConfigError: a package is missing, the tracking server does not answer, or nobody is logged in.
    """
    faults = []
    if mlflow is not None:
        faults += _mlflow_faults(mlflow)
    if wandb is not None:
        faults += _wandb_faults(wandb)
    raise_all(faults, ConfigError, "the space's loggers")


def callbacks(mlflow: str | None, wandb: str | None, logs: Path) -> list[tune.Callback]:
    """Return Ray's callbacks for those that are given.

    logs: the study's folder for Ray, which must exist when the first trial starts; the study's name becomes MLflow's
        experiment and the group of W&B's runs, and logs/wandb holds what W&B has yet to send
    """
    found: list[tune.Callback] = []
    name = logs.parent.name
    if mlflow is not None:
        found.append(_Plain(MLflowLoggerCallback(mlflow, experiment_name=name), _mlflow_outages()))
    if wandb is not None:
        found.append(_Plain(WandbLoggerCallback(wandb, group=name, dir=str(logs)), (RayError, OSError)))
    return found


def trial_name(trial: Trial) -> str:
    """Return the study's own id of a trial, for Tune to name runs and folders by."""
    return trial.config["work"].trial


def parameters(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's values by dotted path, `stages.0.lr`; what is None is left out, for nothing can plot it."""
    return dict(_flat(run, ""))


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    items: Any = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, Sequence) and not isinstance(value, str):
        items = enumerate(value)
    elif value is not None:
        yield path, value
    for key, item in items:
        yield from _flat(item, f"{path}.{key}" if path else str(key))


@dataclass(eq=False)
class _Shown:
    """What loggers see of a trial: its own name, and its run as a flat configuration."""

    trial_id: str
    config: dict[str, Any]
    local_path: str
    experiment_dir_name: str

    def __str__(self) -> str:
        return self.config["trial"]


class _Plain(LoggerCallback):
    """Hands one of Ray's loggers plain numbers; when its other end is gone, the search goes on without it."""

    def __init__(self, logger: LoggerCallback, outages: tuple[type[Exception], ...]) -> None:
        self.logger, self.outages, self.lost = logger, outages, False
        self.shown: dict[str, _Shown] = {}

    def setup(self, *args: Any, **info: Any) -> None:
        """Connect."""
        self._try(self.logger.setup, *args, **info)

    def log_trial_start(self, trial: Trial) -> None:
        """Send the run's parameters."""
        self._try(self.logger.log_trial_start, self._show(trial))

    def log_trial_result(self, iteration: int, trial: Trial, result: Mapping[str, Any]) -> None:
        """Send an epoch's numbers; a score that is NaN is none."""
        numbers = {name: result[name] for name in SHOWN if math.isfinite(result[name])}
        self._try(self.logger.log_trial_result, iteration, self._show(trial), numbers)

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        """Close the run."""
        self._try(self.logger.log_trial_end, self._show(trial), failed)

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Wait for what is still on its way."""
        self._try(self.logger.on_experiment_end, trials, **info)

    def _show(self, trial: Trial) -> _Shown:
        """Return the same view of a trial each time: loggers find its run by it."""
        if trial.trial_id not in self.shown:
            config = {"trial": trial_name(trial)} | parameters(trial.config["work"].jobs[0].run.content)
            seen = _Shown(trial.trial_id, config, trial.local_path, trial.experiment_dir_name)
            self.shown[trial.trial_id] = seen
        return self.shown[trial.trial_id]

    def _try(self, call: Any, *args: Any, **kwargs: Any) -> None:
        if self.lost:
            return
        try:
            call(*args, **kwargs)
        except self.outages as error:
            self.lost = True
            log.warning("%s is switched off, the search goes on: %s", type(self.logger).__name__, _first_line(error))


def _mlflow_outages() -> tuple[type[Exception], ...]:
    """Return what MLflow raises when its server is gone, after making it say so soon."""
    from mlflow.exceptions import MlflowException  # an extra: only where the space asks for it

    for variable, value in PATIENCE.items():
        os.environ.setdefault(variable, value)
    return MlflowException, OSError


def _mlflow_faults(uri: str) -> Iterator[str]:
    if find_spec("mlflow") is None:
        yield "log.mlflow: needs the package mlflow: pip install 'hms-ray[mlflow]'"
        return
    from mlflow import MlflowClient

    outages = _mlflow_outages()
    try:
        MlflowClient(uri).search_experiments(max_results=1)
    except outages as error:
        yield without_secrets(f"log.mlflow: {uri!r} cannot be used: {_first_line(error)}")


def _wandb_faults(project: str) -> Iterator[str]:
    if find_spec("wandb") is None:
        yield "log.wandb: needs the package wandb: pip install 'hms-ray[wandb]'"
        return
    try:
        WandbLoggerCallback(project).setup()
    except ValueError as error:
        sentence = str(error).partition(".")[0]
        yield f"log.wandb: {sentence}; run `wandb login`, or set WANDB_API_KEY, or set WANDB_MODE=offline"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
