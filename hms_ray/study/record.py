"""The schema of study.json, by which every reader of a study is sure of what it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from hms_ray import registry, tasks
from hms_ray.core.errors import ConfigError, DataError, raise_all
from hms_ray.core.params import faults

VERSION = 1  # of the schema; a study of an earlier one lacks the key and is read alike
BROKEN = "put the file back from a copy, or begin another study"


class Part(BaseModel):
    """A part of a record; keys that only a later version knows are kept and not read."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False, strict=True)


class TaskRecord(Part):
    """What is predicted: the kind of task, and its classes."""

    kind: str
    classes: list[str] = Field(min_length=1)

    @field_validator("kind")
    @classmethod
    def _exists(cls, kind: str) -> str:
        if kind not in registry.names("tasks"):
            raise ValueError(f"must be one of {', '.join(registry.names('tasks'))}")
        return kind

    @field_validator("classes")
    @classmethod
    def _differ(cls, classes: list[str]) -> list[str]:
        if len(set(classes)) < len(classes):
            raise ValueError("a class must stand once")
        return classes

    def task(self) -> tasks.Task:
        """Return the task itself; ConfigError where it has too few classes."""
        return tasks.from_dict({"kind": self.kind, "classes": self.classes})


class DataRecord(Part):
    """Whose data it is. notes: rows that an import left out; baseline: what the plain model is, if there is one."""

    name: str
    fingerprint: str
    units: int = Field(ge=1)
    groups: int = Field(ge=1)
    params: dict[str, Any]
    root: str | None = None
    recordings: dict[str, str] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)
    baseline: str | None = None


class FoldsRecord(Part):
    """How the units were dealt to folds. seed: None where they came with the data."""

    k: int = Field(ge=1)
    fingerprint: str
    seed: int | None


class ScoreRecord(Part):
    """Which units are scored."""

    min_votes: int = Field(ge=0)


class RunRecord(Part):
    """A base run, as far as a report shows it; its parameters are checked where it is trained."""

    data: dict[str, Any] = Field(default_factory=dict)
    feature: dict[str, Any] = Field(default_factory=dict)
    model: dict[str, Any] = Field(default_factory=dict)
    stages: list[dict[str, Any]] = Field(default_factory=list)
    score: dict[str, Any] = Field(default_factory=dict)


class SpaceRecord(Part):
    """A search space as it was resolved. members: the base run of each space of a union."""

    base: RunRecord
    search: dict[str, dict[str, Any] | list[Any]]
    description: str
    budget: dict[str, Any]
    race: dict[str, Any] = Field(default_factory=dict)
    sampler: dict[str, Any] = Field(default_factory=dict)
    resources: dict[str, Any] = Field(default_factory=dict)
    log: dict[str, Any] = Field(default_factory=dict)
    members: dict[str, RunRecord] = Field(default_factory=dict)
    warm_start_chosen_on: list[int] = Field(default_factory=list)


class CodeRecord(Part):
    """Code that the study was made with earlier."""

    versions: dict[str, str]
    code: dict[str, str] = Field(default_factory=dict)


class StudyRecord(Part):
    """study.json: whose study it is, and what was searched. Paths and meanings as in `hms_ray.study.folder`."""

    schema_version: int = Field(0, ge=0)
    versions: dict[str, str]
    code: dict[str, str] = Field(default_factory=dict)
    task: TaskRecord
    data: DataRecord
    folds: FoldsRecord
    score: ScoreRecord
    epoch: Literal["cross_fitted", "last", "best", "given"]
    epoch_candidates: dict[str, float] | None = None
    spaces: dict[str, SpaceRecord]
    earlier_code: list[CodeRecord] = Field(default_factory=list)


class Provenance(Part):
    """What an out-of-fold table says of itself in its metadata; meanings as in `hms_ray.study.oof.OofTable`."""

    trial: str
    space: str
    task: TaskRecord
    data_fingerprint: str
    folds_fingerprint: str
    selected_on: list[int]
    epoch_rule: Literal["cross_fitted", "last", "best", "given"]
    epochs: list[int]

    @field_validator("epochs")
    @classmethod
    def _begin_at_1(cls, epochs: list[int]) -> list[int]:
        if any(epoch < 1 for epoch in epochs):
            raise ValueError("epochs are counted from 1")
        return epochs


R = TypeVar("R", StudyRecord, Provenance)


def check_provenance(path: Path, metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of an out-of-fold table, or raise DataError: it is none, or was edited."""
    missing = [key for key in Provenance.model_fields if key not in metadata]
    if missing:
        raise DataError(f"{path}: not an out-of-fold table of hms_ray: its metadata lacks {', '.join(missing)}")
    where = f"{path}: metadata"
    _checked(Provenance, metadata, where, where)
    return {key: metadata[key] for key in Provenance.model_fields}


def check_record(path: Path, content: Any) -> StudyRecord:
    """Return what study.json holds.

    Raises:
        DataError: it is not what hms-ray wrote; the message lists the keys, their values and what would be right.
        ConfigError: a later version of hms-ray wrote it.
    """
    if not isinstance(content, dict):
        raise DataError(f"{path}: must hold a mapping, but holds a {type(content).__name__}; {BROKEN}")
    version = content.get("schema_version", 0)
    if isinstance(version, int) and version > VERSION:
        raise ConfigError(
            f"{path}: its schema_version is {version}, this hms-ray reads up to {VERSION}; install a newer one"
        )
    return _checked(StudyRecord, content, str(path), f"{path} is not as hms-ray wrote it ({BROKEN})")


def _checked(kind: type[R], content: dict[str, Any], where: str, heading: str) -> R:
    """Return the record, or raise DataError: faults under `heading`, a task that cannot be after `where`."""
    try:
        record = kind.model_validate(content)
        record.task.task()
    except ValidationError as error:
        raise_all(faults(error), DataError, heading)
        raise AssertionError("a ValidationError has at least one fault") from error
    except ConfigError as error:
        raise DataError(f"{where}: task: {error}") from error
    return record
