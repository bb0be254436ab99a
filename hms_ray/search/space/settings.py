"""The sections of a space beside its run and ranges: what may be spent, on what, and how the search decides."""

from typing import Any, Literal

from pydantic import Field, model_validator

from hms_ray.core.params import Params


class Budget(Params):
    """How much a search may spend."""

    trials: int = Field(16, ge=1, le=100_000, description="configurations that are tried")
    trial_folds: int = Field(1, ge=1, description="folds that a trial trains unless it is stopped; finalists train all")
    finalists: int | None = Field(
        None,
        ge=1,
        description="how many trials at most get all their folds; none: as many as the ensemble needs, and 8 for the "
        "other rules",
    )
    fold_minutes: float | None = Field(None, gt=0, description="a fold that takes longer fails its trial; none: no end")
    disk_gb: float | None = Field(
        None, gt=0, description="how large the study folder may grow; none: what its weights need at most must be free"
    )
    same_failures: int = Field(5, ge=1, description="so many trials in a row failing with one error abort the search")


class Race(Params):
    """Which trials are stopped before they have trained all their folds, and which get all folds."""

    rule: Literal["ensemble", "best", "none"] = Field(
        "ensemble",
        description="ensemble: a trial goes on while it may improve the ensemble; best: while it may be the best "
        "model; none: no trial is stopped",
    )
    stop_rate: float = Field(
        0.1, gt=0, le=0.5, description="between trial_folds: the chance of stopping a trial that must not be stopped"
    )
    min_gain: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="nats that all the folds which a trial lacks after its first must bring to the score of the "
        "ensemble; none: 0.004 divided by the number of trials",
    )
    folds: float | None = Field(
        None,
        gt=0,
        le=1,
        description="share of trials x folds that may be trained, for rule ensemble; none: as many as the ensemble "
        "needs",
    )
    inside_folds: bool = Field(True, description="also stop inside a fold, by the curves of the others")

    def allowed(self, trials: int, folds: int) -> int:
        """Return how many folds of so many trials may be trained, by `folds`, of which each trial has so many."""
        return trials * folds if self.folds is None else int(self.folds * trials * folds + 1e-9)

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        """`race: best` is short for `race: {rule: best}`."""
        return {"rule": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _folds_of_the_ensemble(self) -> "Race":
        if self.folds is not None and self.rule != "ensemble":
            raise ValueError(f"folds is for rule ensemble; rule {self.rule} trains budget.finalists on all folds")
        return self


class Sampler(Params):
    """Who proposes configurations, and what it knows at the start."""

    name: Literal["tpe", "random", "gp", "cmaes"] = "tpe"
    warm_start: str | None = Field(None, description="another study's folder, whose best trials are tried first")
    warm_trials: int = Field(4, ge=1, description="how many of them")

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        """`sampler: gp` is short for `sampler: {name: gp}`."""
        return {"name": value} if isinstance(value, str) else value


class Resources(Params):
    """What one worker takes; a fold may have several workers."""

    cpus: float = Field(1, gt=0, description="CPUs a worker")
    gpus: float | None = Field(
        None, ge=0, le=1, description="GPUs a worker, at most one; none given: what it needs of a GPU, as measured"
    )
    memory_gb: float | None = Field(None, gt=0, description="memory a worker; none given: 1 GB")
    workers_per_fold: int = Field(1, ge=1, le=64, description="workers that train one fold together")

    @model_validator(mode="after")
    def _no_shared_device(self) -> "Resources":
        if self.workers_per_fold > 1 and self.gpus not in (None, 0, 1):
            raise ValueError(f"workers of one fold cannot share a GPU: gpus must be 0 or 1, not {self.gpus:g}")
        return self


class Log(Params):
    """Where else the curves go; TensorBoard files are always written."""

    mlflow: str | None = Field(None, description="an MLflow tracking URI")
    wandb: str | None = Field(None, description="a Weights & Biases project")


SETTINGS = {"budget": Budget, "race": Race, "sampler": Sampler, "resources": Resources, "log": Log}
