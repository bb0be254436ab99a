"""The schema of ensemble.json: the fitted pool, its scores with their populations, and further metrics.

The report, the command line, the API and prediction read the file with `EnsembleResult.load`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    model_validator,
)

from hms_ray.core import files, params
from hms_ray.core.errors import ConfigError, DataError, raise_all
from hms_ray.ensemble.bootstrap import Estimate
from hms_ray.ensemble.members import Limits
from hms_ray.ensemble.pools import _base

VERSION: Literal[2] = 2  # version 1 had no version number and named scores kl_*
RENAMED = {
    "kl_in_sample": "score_in_sample",
    "kl_cross_fitted": "score_cross_fitted",
    "kl_cross_fitted_by_fold": "score_cross_fitted_by_fold",
    "kl_selection_corrected": "score_selection_corrected",
    "kl": "ensemble",  # in metrics.score_by_min_votes
}

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Gap = float | None  # in nats; None if the method has no certificate
Confusion = tuple[tuple[int, ...], ...] | tuple[tuple[tuple[int, ...], ...], ...]


def _restored(content: object) -> _base.Pool:
    """Return the pool that JSON describes; a fitted pool is returned unchanged."""
    if not isinstance(content, dict):
        if content is None or isinstance(content, str | int | float | list):
            raise ValueError("it must be a mapping that names the pool's kind")
        return content  # type: ignore[return-value]  # made by `fit_study`
    if content.get("kind") is None:
        raise ValueError("it must name its kind, the pool's name")
    try:
        return _base.from_dict(content)
    except KeyError as error:
        raise ValueError(f"a pool of kind {content['kind']!r} needs {error.args[0]}") from error
    except (ConfigError, TypeError, AttributeError) as error:
        raise ValueError(str(error)) from error


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, arbitrary_types_allowed=True)


class Member(_Part):
    """A member with weight.

    without: score of the cross-fitted linear pool without it, after a refit of the others' weights; gain: how much
        worse, in nats, this is; negative: it is better. Both are None for the only member of a linear pool
    most_alike, error_correlation: the other member with weight whose errors correlate most; None without others
    """

    trial: str
    space: str
    weight: Annotated[float, Field(ge=0)]
    without: float | None
    gain: float | None
    most_alike: str | None
    error_correlation: float | None


class MethodScore(_Part):
    """Scores of one pooling method; difference: its cross-fitted score minus that of the ensemble's method."""

    method: str
    score_in_sample: float
    score_cross_fitted: Estimate
    difference: Estimate
    members: Count
    gap: Gap
    gap_by_fold: Gap


class Differences(_Part):
    """The score of each baseline minus the ensemble's cross-fitted score, on the same units."""

    best_single: Estimate
    mean: Estimate
    prior: Estimate
    plain: Estimate | None = None


class Baselines(_Part):
    """Scores of the baselines.

    best_single: the best table, chosen in hindsight; best_single_corrected: chosen on drawn patients, scored on the
        others
    mean: of all candidates; prior: the classes' shares; plain: the plain baseline, described by `plain_is`
    """

    best_single_trial: str
    best_single: float
    best_single_corrected: float | None
    mean: float
    prior: float
    plain: float | None
    plain_is: str | None
    differences: Differences


class ScoredUnits(_Part):
    """The population of the scores: units with at least `min_votes` votes."""

    units: Count
    groups: Count
    min_votes: Count


class Selection(_Part):
    """The estimated optimism of the choice of configurations: see `choice.correction`.

    configurations: number tried on `folds`, of which `kept` were chosen; optimism: in their score, in nats;
        share: of the scored units that lie in these folds
    """

    configurations: Count
    kept: Count
    folds: tuple[int, ...]
    units: Count
    groups: Count
    optimism: float
    share: Share


class OutsideSelection(_Part):
    """Scores on the folds on which no configuration was chosen."""

    folds: tuple[int, ...]
    units: Count
    groups: Count
    best_single: float
    score_cross_fitted: float
    mean: float
    prior: float


class VotesScore(_Part):
    """Scores on the units with at least `min_votes` votes."""

    min_votes: Count
    units: Count
    groups: Count
    ensemble: float
    best_single: float
    prior: float


class ClassMetrics(_Part):
    """Metrics of one class, as in `tasks.Metrics`; None if undefined."""

    units: Count
    precision: float | None
    recall: float | None
    specificity: float | None
    f1: float | None
    auroc: float | None
    calibration_error: float | None


class MetricFigures(_Part):
    """Metrics of predictions of `units` units, as in `tasks.Metrics`; None if undefined."""

    units: Count
    log_loss: float | None
    accuracy: float | None
    macro_f1: float | None
    micro_f1: float | None
    macro_auroc: float | None
    calibration_error: float | None
    per_class: dict[str, ClassMetrics]
    confusion: Confusion


class PredictionMetrics(MetricFigures):
    """Metrics of out-of-fold predictions.

    thresholds: of each fold (K,), chosen on the other folds; thresholded: the metrics at them; both are None
        if the task's decisions use no thresholds
    """

    thresholds: dict[str, tuple[float, ...]] | None
    thresholded: MetricFigures | None
    macro_auroc_interval: Estimate | None = None

    @model_validator(mode="after")
    def check_thresholds(self) -> Self:
        """Require one threshold a class."""
        for fold, row in (self.thresholds or {}).items():
            if len(row) != len(self.per_class):
                raise ValueError(f"thresholds.{fold} must be {len(self.per_class)} numbers, but has {len(row)}")
        return self


class EnsembleMetrics(PredictionMetrics):
    """Metrics of the cross-fitted predictions; macro_auroc_gain: their macro AUROC minus the plain baseline's."""

    macro_auroc_gain: Estimate | None
    score_by_min_votes: tuple[VotesScore, ...]


class EnsembleResult(_Part):
    """The content of ensemble.json.

    pool: the requested method; fitted: the pool of all rows, which predicts; members: those with weight, in its order
    duality_gap: its certificate; gap_by_fold: the largest gap of a cross-fitting fit
    score_in_sample: on the rows of the fit, optimistic; interval: the cross-fitted score with its interval
    score_selection_corrected: adds the optimism of choosing configurations; None if it was not estimated
    methods: every method, the ensemble's first; outside_selection: None if no configuration was chosen on any fold
    metrics_of_plain: of the plain baseline, which is not a candidate; None if the study has none
    optimistic_epochs: the candidates whose epochs were chosen on the rows that they are scored on
    notes: warnings
    """

    version: Literal[2] = VERSION
    pool: str
    fitted: Annotated[_base.Pool, PlainValidator(_restored), PlainSerializer(_base.to_dict)]
    members: tuple[Member, ...]
    duality_gap: Gap
    gap_by_fold: Gap
    limits: Limits | None
    score_in_sample: float
    score_cross_fitted: float
    score_cross_fitted_by_fold: dict[str, float | None]
    interval: Estimate
    methods: Annotated[tuple[MethodScore, ...], Field(min_length=1)]
    baselines: Baselines
    selection: Selection | None
    score_selection_corrected: float | None
    outside_selection: OutsideSelection | None
    population: ScoredUnits
    candidates: Annotated[int, Field(ge=1)]
    folds_fingerprint: str
    metrics: EnsembleMetrics
    metrics_of_plain: PredictionMetrics | None
    optimistic_epochs: tuple[str, ...]
    notes: tuple[str, ...]

    @model_validator(mode="after")
    def check_parts_agree(self) -> Self:
        """Require parts that match each other."""
        if len(self.fitted.weights) != len(self.members):
            raise ValueError(
                f"fitted must have {len(self.members)} weights, one a member, but has {len(self.fitted.weights)}"
            )
        for member, weight in zip(self.members, self.fitted.weights, strict=True):
            if not math.isclose(member.weight, weight, rel_tol=1e-9, abs_tol=1e-12):
                raise ValueError(f"the weight of member {member.trial} is {member.weight}, but {weight} in fitted")
        trials = [member.trial for member in self.members]
        if len(set(trials)) < len(trials):
            raise ValueError(f"members must be of different trials, but are {', '.join(trials)}")
        if len(trials) > self.candidates:
            raise ValueError(f"candidates must be at least {len(trials)}, the members, but is {self.candidates}")
        methods = [row.method for row in self.methods]
        if methods[0] != self.pool or "linear" not in methods:
            raise ValueError(f"methods must begin with {self.pool} and hold linear, but are {', '.join(methods)}")
        if (self.selection is None) != (self.score_selection_corrected is None):
            raise ValueError("selection and score_selection_corrected must both be given, or both be null")
        return self

    @classmethod
    def load(cls, path: Path) -> EnsembleResult:
        """Read and check ensemble.json; a file of the previous version is read if it has all keys.

        Raises:
            ConfigError: another version wrote the file, and a key is missing.
            DataError: the file is missing or broken; the message names every faulty key.
        """
        content = files.read_json(path)
        command = f"run `hms-ray ensemble --study {path.parent.parent}` again"
        if not isinstance(content, dict):
            raise DataError(f"{path}: must be a JSON object, but is {type(content).__name__}; {command}")
        version = content.get("version", 1)
        if version not in (1, VERSION):
            raise ConfigError(f"{path} is of version {version!r}, but this hms-ray reads version {VERSION}; {command}")
        raise_all(list(_not_finite(content.get("fitted"), content.get("members"))), DataError, f"{path} ({command})")
        try:
            text = json.dumps(content if version == VERSION else _renamed(content | {"version": VERSION}))
            return cls.model_validate_json(text, strict=True)
        except ValidationError as error:
            if version == 1:
                lacking = [".".join(map(str, item["loc"])) for item in error.errors() if item["type"] == "missing"]
                why = f": it lacks {', '.join(lacking)}" if lacking else ""
                raise ConfigError(f"{path} was written by an earlier version; {command}{why}") from error
            raise_all(params.faults(error), DataError, f"{path} ({command})")
            raise AssertionError("a ValidationError has at least one fault") from error

    def __eq__(self, other: object) -> bool:
        """Compare as JSON: the arrays of the fitted pools cannot be compared with ==."""
        return isinstance(other, EnsembleResult) and self.model_dump(mode="json") == other.model_dump(mode="json")

    __hash__ = None  # type: ignore[assignment]

    def write(self, path: Path) -> None:
        """Write the file, atomically."""
        files.write_json(path, self.model_dump(mode="json"))

    @property
    def correction(self) -> float | None:
        """The amount added to the cross-fitted score for the choice of configurations; None if it was not estimated."""
        corrected = self.score_selection_corrected
        return None if corrected is None else max(0.0, corrected - self.score_cross_fitted)  # below 0 in version 1

    @property
    def leading(self) -> Estimate:
        """The main score: corrected for the choice of configurations if this is known, else cross-fitted."""
        moved = self.interval.moved(self.correction or 0.0)
        return Estimate(self.score_cross_fitted + (self.correction or 0.0), moved.error, moved.low, moved.high)

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each member by trial id."""
        return {member.trial: member.weight for member in self.members}

    @property
    def gaps(self) -> list[float]:
        """All duality gaps: of the ensemble's fits and of the other methods' fits."""
        pairs = [(self.duality_gap, self.gap_by_fold), *((row.gap, row.gap_by_fold) for row in self.methods)]
        return [gap for pair in pairs for gap in pair if gap is not None]


def _renamed(content: object) -> object:
    """Return JSON of version 1 with the names of version 2."""
    if isinstance(content, list):
        return [_renamed(item) for item in content]
    if isinstance(content, dict):
        return {RENAMED.get(key, key): _renamed(item) for key, item in content.items()}
    return content


def _not_finite(content: object, members: object, path: tuple[str | int, ...] = ("fitted",)) -> Iterator[str]:
    """Name each number of the fitted pool's JSON that is not finite; a member's weight with the member's trial."""
    if isinstance(content, dict | list):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from _not_finite(value, members, (*path, key))
    elif isinstance(content, int | float) and not math.isfinite(content):
        position, owner = path[-1], ""
        if path[-2] == "weights" and isinstance(members, list) and isinstance(position, int):
            member = members[position] if position < len(members) else None
            owner = f", the weight of {member.get('trial')}," if isinstance(member, dict) else ""
        yield f"{'.'.join(map(str, path))}{owner} must be a finite number, but is {content}"
