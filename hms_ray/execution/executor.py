"""Where folds are trained: in this process, or on a Ray cluster in Tune actors and Train worker groups."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from hms_ray.core.errors import ConfigError
from hms_ray.execution import loggers
from hms_ray.execution.cluster import Cluster
from hms_ray.execution.collector import TrialSource
from hms_ray.execution.local import run_here
from hms_ray.execution.packing import SMALLEST, GpuPacking
from hms_ray.execution.ray_train import run_group
from hms_ray.execution.ray_tune import run_trials
from hms_ray.execution.resources import Request, WorkerNeeds
from hms_ray.training.labels import TrainingLabels


class Executor(Protocol):
    """Where the trials and the folds of one space are trained."""

    def max_concurrent_trials(self, wanted: int) -> int:
        """Return how many trials can run side by side now, of so many that are left; nodes may come and go."""

    def gpus(self, packing: GpuPacking) -> float | GpuPacking:
        """Return what a trial takes of a GPU: a number, or by measurement."""

    def run_trials(self, source: TrialSource) -> None:
        """Run trials until the source has no more."""

    def run_folds(self, source: TrialSource, share: float) -> None:
        """Run folds until the source has no more; each takes that share of a GPU."""


@dataclass(frozen=True)
class LocalExecutor:
    """This process, without Ray: one fold at a time, with as many threads as a worker has CPUs."""

    labels: TrainingLabels
    cpus: float
    fold_s: float | None = None
    max_concurrent: int = 1

    @classmethod
    def of(cls, wanted: WorkerNeeds, labels: TrainingLabels, fold_s: float | None) -> "LocalExecutor":
        """Return this process as a place, or refuse folds of several workers."""
        if wanted.workers_per_fold > 1:
            raise ConfigError(
                f"--here: a fold has one process, but resources.workers_per_fold is {wanted.workers_per_fold}; "
                "set it to 1"
            )
        return cls(labels, wanted.cpus, fold_s)

    def max_concurrent_trials(self, wanted: int) -> int:
        return self.max_concurrent

    def gpus(self, packing: GpuPacking) -> float:
        return 1.0

    def run_trials(self, source: TrialSource) -> None:
        run_here(source, self.labels, max(1, int(self.cpus)), self.fold_s)

    def run_folds(self, source: TrialSource, share: float) -> None:
        run_here(source, self.labels, max(1, int(self.cpus)), self.fold_s)


@dataclass(frozen=True)
class RayExecutor:
    """A Ray cluster. Trials whose folds have one worker run in reused Tune actors, several to a GPU where its memory
    allows; those whose folds have more, and chosen configurations, run in a Train worker group."""

    labels: TrainingLabels
    request: Request
    shared: bool
    cluster: Cluster
    logs: Path
    fold_s: float | None
    mlflow: str | None
    wandb: str | None

    @classmethod
    def of(
        cls,
        wanted: WorkerNeeds,
        cluster: Cluster,
        labels: TrainingLabels,
        logs: Path,
        fold_s: float | None,
        mlflow: str | None,
        wandb: str | None,
    ) -> "RayExecutor":
        """Return the place, or refuse what no node can do; errors as in `Cluster.fit`."""
        request = cluster.fit(wanted)
        shared = wanted.gpus is None and request.gpus > 0 and request.workers_per_fold == 1
        return cls(labels, request, shared, cluster, logs, fold_s, mlflow, wandb)

    def max_concurrent_trials(self, wanted: int) -> int:
        return self.cluster.folds(self._smallest(), wanted)

    def gpus(self, packing: GpuPacking) -> float | GpuPacking:
        return packing if self.shared else self.request.gpus

    def run_trials(self, source: TrialSource) -> None:
        self.cluster.wait(self._smallest(), source.remaining(), source.exhausted)
        if self.request.workers_per_fold > 1:
            run_group(source, self.labels, self.request, self.cluster, self.logs, self.fold_s)
            return
        self.logs.mkdir(parents=True, exist_ok=True)
        callbacks = loggers.callbacks(self.mlflow, self.wandb, self.logs)
        run_trials(
            source,
            self.labels,
            self.request,
            lambda: self.max_concurrent_trials(source.remaining()),
            self.logs,
            self.fold_s,
            callbacks,
        )

    def run_folds(self, source: TrialSource, share: float) -> None:
        request = replace(self.request, gpus=share) if self.shared else self.request
        run_group(source, self.labels, request, self.cluster, self.logs, self.fold_s)

    def _smallest(self) -> Request:
        """Return what a trial takes when as many as possible share a GPU."""
        return replace(self.request, gpus=SMALLEST) if self.shared else self.request
