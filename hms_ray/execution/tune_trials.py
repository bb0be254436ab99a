"""Trials in reused Tune actors: one trial trains its folds one after the other on a share of a device."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import ray
import torch
from ray import tune
from ray.tune.search import Searcher

from hms_ray.crossval import FoldJob, Labels, train_job
from hms_ray.errors import TrialFailed
from hms_ray.execution.mailbox import Collector, EpochDone, FoldDone, FoldFailed, cause_of
from hms_ray.execution.resources import Request
from hms_ray.training.loop import Replica

RESTARTS = 2  # of a trial whose worker was lost


class TrialSource(Protocol):
    """Who decides what is trained next and hears how it ended."""

    def next(self) -> tuple[str, Sequence[FoldJob]] | None:
        """Return the next trial and its folds, or None when there is none now."""

    def exhausted(self) -> bool:
        """Whether there will be none any more."""

    def ended(self, trial: str) -> None:
        """Take note that a trial has ended; its folds and failures were handled before."""


def run_trials(
    source: TrialSource, labels: Labels, request: Request, at_once: int, collector: Collector, logs: Path
) -> None:
    """Run trials until the source has no more, `at_once` of them at a time."""
    trainable = tune.with_parameters(_train_trial, labels=labels, mailbox=collector.mailbox)
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": request.cpus, "gpu": request.gpus}),
        tune_config=tune.TuneConfig(
            search_alg=_Proposals(source, collector, request.gpus),
            num_samples=-1,
            max_concurrent_trials=at_once,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(logs),
            failure_config=tune.FailureConfig(max_failures=RESTARTS),
            verbose=0,
        ),
    )
    tuner.fit()


def _train_trial(config: Mapping[str, Any], labels: Labels, mailbox: Any) -> None:
    """Train the trial's folds. What fails is posted, not raised: what Tune sees as an error is a lost worker."""
    for job in config["jobs"]:
        if ray.get(mailbox.has_ended.remote(job.trial, job.fold)):
            continue  # ended before the worker was lost and started again
        message = _train_fold(job, labels, config["gpus"], mailbox)
        ray.get(mailbox.post.remote(message))
        if isinstance(message, FoldFailed):
            return


def _train_fold(job: FoldJob, labels: Labels, gpus: float, mailbox: Any) -> FoldDone | FoldFailed:
    def on_epoch(row: Mapping[str, Any]) -> None:
        ray.get(mailbox.post.remote(EpochDone(job.trial, row)))
        tune.report({name: row[name] for name in ("fold", "epoch", "train_loss", "score")})

    try:
        return FoldDone(job.trial, train_job(job, labels, Replica(_device(gpus)), on_epoch))
    except Exception as error:  # whatever it is, it is this configuration's; the search goes on
        return FoldFailed(job.trial, job.fold, cause_of(error))


def _device(gpus: float) -> torch.device:
    """Return the device that Ray gave this process."""
    if gpus and not torch.cuda.is_available():
        raise TrialFailed(f"the trial was given {gpus:g} GPU, but torch {torch.__version__} finds none on its node")
    return torch.device("cuda" if gpus else "cpu")


class _Proposals(Searcher):
    """What Tune asks for a configuration; the answers come from the source."""

    def __init__(self, source: TrialSource, collector: Collector, gpus: float) -> None:
        super().__init__()  # no metric: Tune would insist on one even from a trial that had nothing left to train
        self.source, self.collector, self.gpus = source, collector, gpus
        self.names: dict[str, str] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next trial, None to be asked again, or that there is no more."""
        proposal = self.source.next()
        if proposal is None:
            return Searcher.FINISHED if self.source.exhausted() else None
        self.names[trial_id], jobs = proposal
        return {"trial": self.names[trial_id], "jobs": list(jobs), "gpus": self.gpus}

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Write what the trial sent, then tell the source."""
        self.collector.flush()
        self.source.ended(self.names[trial_id])

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher for a restore that is never asked for; locks and sockets stay here."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Tune may save what it likes: the study folder is the truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Never used, for the same reason."""
        raise AssertionError("a search continues from the study folder")
