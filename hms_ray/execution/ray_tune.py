"""Trials in reused Tune actors: one trial trains its folds one after the other on a share of a device."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle, tune
from ray.tune.execution import tune_controller
from ray.tune.search import Searcher

from hms_ray.execution.collector import ATTEMPTS, Collector, TrialSource
from hms_ray.execution.device import device
from hms_ray.execution.events import EpochDone, Message, Work
from hms_ray.execution.loggers import trial_name
from hms_ray.execution.resources import Request
from hms_ray.execution.worker import RayChannel, train_work
from hms_ray.training.distributed import Replica
from hms_ray.training.labels import TrainingLabels

log = logging.getLogger(__name__)


def run_trials(
    source: TrialSource,
    labels: TrainingLabels,
    request: Request,
    max_concurrent: Callable[[], int],
    logs: Path,
    fold_s: float | None = None,
    callbacks: Sequence[tune.Callback] = (),
) -> None:
    """Run trials until the source has no more, each names its share of a GPU.

    max_concurrent: returns how many trials may run at the same time; it is asked before each, since nodes come and go
    """
    with Collector(source, fold_s) as collector:
        trainable = tune.with_parameters(_train_trial, labels=labels, mailbox=collector.mailbox)
        tuner = tune.Tuner(
            tune.with_resources(trainable, lambda config: replace(request, gpus=config["work"].gpus).for_tune()),
            tune_config=tune.TuneConfig(
                search_alg=_Proposals(source, collector, max_concurrent),
                num_samples=-1,
                reuse_actors=True,
                trial_name_creator=trial_name,
                trial_dirname_creator=trial_name,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(logs),
                failure_config=tune.FailureConfig(max_failures=ATTEMPTS * labels.n_folds),
                callbacks=[*callbacks, _Watch(collector)],
                verbose=0,
            ),
        )
        told = logging.getLogger(tune_controller.__name__)
        told.addFilter(_in_a_line)
        try:
            tuner.fit()
        finally:
            told.removeFilter(_in_a_line)


class _TuneChannel(RayChannel):
    """A channel that also reports each epoch to Tune, for the loggers."""

    def post(self, message: Message) -> None:
        super().post(message)
        if isinstance(message, EpochDone):
            tune.report({name: message.row[name] for name in ("fold", "epoch", "train_loss", "score")})


def _train_trial(config: Mapping[str, Any], labels: TrainingLabels, mailbox: Any) -> None:
    work = config["work"]
    actor = cloudpickle.dumps(ray.get_runtime_context().current_actor)
    train_work(work, labels, Replica(device(work.gpus)), _TuneChannel(mailbox), actor)


class _Proposals(Searcher):
    """What Tune asks for a configuration; the answers come from the source."""

    def __init__(self, source: TrialSource, collector: Collector, max_concurrent: Callable[[], int]) -> None:
        super().__init__()  # no metric: Tune would insist on one even from a trial that had nothing left to train
        self.source, self.collector, self.max_concurrent = source, collector, max_concurrent
        self.works: dict[str, Work] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next trial, None to be asked again, or that there is no more."""
        work = None
        with self.collector.kept():
            if len(self.works) < self.max_concurrent():
                work = self.source.next()
        if work is None:
            return Searcher.FINISHED if self.source.exhausted() else None
        self.works[trial_id] = work
        return {"work": work}

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Write what the trial sent, then tell the source; Tune would take what is raised here for the trial's fault,
        and try it again."""
        with self.collector.kept():
            self.collector.flush()
            self.source.ended(self.works.pop(trial_id))

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher for a restore that is never asked for; locks and sockets stay here."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Tune may save what it likes: the study folder is the truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Never used, for the same reason."""
        raise AssertionError("a search continues from the study folder")


class _Watch(tune.Callback):
    """Ends the run with what the source raised, between two steps, where Tune lets it pass."""

    def __init__(self, collector: Collector) -> None:
        self.collector = collector

    def on_step_end(self, iteration: int, trials: list, **info: Any) -> None:
        self.collector.check()

    def __getstate__(self) -> dict[str, Any]:
        """As in the searcher."""
        return {}


def _in_a_line(record: logging.LogRecord) -> bool:
    """Say in a line of ours that a trial lost its worker; Tune prints a traceback, which stays for all other errors."""
    error = record.exc_info and record.exc_info[1]
    if not isinstance(error, ray.exceptions.RayActorError):
        return True
    trial, cause = record.getMessage().split()[-1], str(error).strip().splitlines()[0]
    log.warning("%s: its worker was lost, another goes on with what is left (%s)", trial, cause)
    return False
