"""The quality of the study's recordings, and the units that training left out or weighted less because of it.

A unit may have several recordings: its measures are those of the worst one.
"""

from dataclasses import dataclass

import pandas as pd

from hms_ray import registry
from hms_ray.core import params, recordings
from hms_ray.core.errors import ConfigError
from hms_ray.report.tables import Scored, Study, count, rule, those
from hms_ray.store.quality import MEASURES, QualityParams, trust

NAMES = {"nan": "gaps", "flat": "flat channels", "outliers": "outliers", "missing": "missing steps"}
MEANINGS = {
    "nan": "share of the values, of all channels, that are missing",
    "flat": "share of the channels that are constant or empty",
    "outliers": "share of the values that are beyond {outlier}, positive or negative",
    "missing": "share of the time steps without a value in any channel; the part of a window of "
    "{seconds:g} s that a shorter recording lacks counts as well",
}
UNITS = {"eeg": "µV", "heart_sound": "of full scale"}


@dataclass(frozen=True)
class Extent:
    """Numbers of units and of their patients."""

    units: int
    groups: int

    @classmethod
    def of(cls, rows: pd.DataFrame) -> "Extent":
        """Count the units, one a row, and the patients in group_id."""
        return cls(len(rows), int(rows["group_id"].nunique()))

    def __str__(self) -> str:
        return f"{count(self.units, 'unit')} of {count(self.groups, 'patient')}"


@dataclass(frozen=True)
class Measured:
    """One measure of one kind of recording.

    touched: the units with a value above 0, whose median is `median_touched`
    median, worst: of all units, each by its worst recording
    """

    name: str
    meaning: str
    touched: Extent
    median: float
    median_touched: float
    worst: float


@dataclass(frozen=True)
class KindView:
    """One kind of recording, measure by measure."""

    name: str
    measured: Extent
    rows: list[Measured]


@dataclass(frozen=True)
class Use:
    """The effect of a run's quality limits on training; held-out units are scored without limits.

    weight: the factor of the loss weight of inputs beyond a limit; 0: not trained on
    affected: the units with such an input; `scored`: how many of them are in the scored population
    by_limit: each limit in words, and the units beyond it; a unit may be beyond several
    """

    trial: str
    weight: float
    affected: Extent
    scored: int
    by_limit: list[tuple[str, Extent]]

    @property
    def effect(self) -> str:
        """The treatment of inputs beyond a limit, in words."""
        return f"{self.weight:g} of the weight" if self.weight else "not trained on"


@dataclass(frozen=True)
class LeftOut:
    """A recording of the dataset's list that was left out."""

    unit_id: str
    name: str
    cause: str


@dataclass(frozen=True)
class Quality:
    """The section of the page.

    kinds: the measures, [] if none were taken; left_out: recordings in the dataset's list that are missing or empty
    uses: tables whose run has limits; unknown: tables whose limits are unknown; tables: the number of tables
    min_votes: of a scored unit
    """

    kinds: list[KindView]
    left_out: list[LeftOut]
    uses: list[Use]
    unknown: list[str]
    tables: int
    min_votes: int

    @property
    def scored(self) -> str:
        """The units that are scored, in words."""
        return those("units", self.min_votes)

    @property
    def sentences(self) -> list[str]:
        """Sentences on what was left out, and on what is unknown."""
        if not self.tables:
            return ["No configuration has finished all folds yet, so there are no tables."]
        sentences = []
        if self.uses:
            votes = f" with {rule(self.min_votes)}" if self.min_votes > 1 else ""
            sentences = [
                f"The runs of {len(self.uses)} of {count(self.tables, 'table')} have quality limits: inputs from a "
                "recording beyond a limit were not used for training, or with a smaller weight.",
                "A unit is beyond a limit if any of its recordings is. Its inputs from other recordings were used for "
                "training as those of other units.",
                f"Every unit{votes} is scored, whatever the quality of its recordings, so the population of the "
                "score is unchanged.",
            ]
        elif len(self.unknown) < self.tables:
            recorded = "that is recorded here " if self.unknown else ""
            sentences = [f"No run {recorded}has quality limits: training and score use all recordings."]
        if self.unknown:
            names = ", ".join(self.unknown[:5]) + (", …" if len(self.unknown) > 5 else "")
            sentences.append(
                f"For {count(len(self.unknown), 'table')} it is unknown whether training left anything out: their runs "
                f"are not recorded, or cannot be read by this version: {names}."
            )
        return sentences


def read_quality(study: Study, finalists: list[Scored]) -> Quality | None:
    """Return the quality of the recordings and its effect on training; None if nothing was measured or left out."""
    left_out = [LeftOut(row["unit_id"], row["name"], row["cause"]) for row in study.data.get("left_out") or ()]
    if study.quality is None:
        return Quality([], left_out, [], [], len(finalists), study.min_votes) if left_out else None
    measured = study.quality.merge(study.units[["unit_id", "group_id"]], on="unit_id")
    uses, unknown = [], []
    for finalist in finalists:
        try:
            uses += _uses(measured, finalist)
        except ConfigError:
            unknown.append(finalist.trial)
    kinds = [_kind(str(name), rows) for name, rows in measured.groupby("kind")]
    return Quality(kinds, left_out, uses, unknown, len(finalists), study.min_votes)


def share(value: float) -> str:
    """Format a share as a percentage; a value that rounds to 0 is shown as below 0.1 %."""
    return "< 0.1\u00a0%" if 0 < value < 0.001 else f"{100 * value:.1f}\u00a0%" if value else "0"


def _kind(name: str, rows: pd.DataFrame) -> KindView:
    kind, measures = recordings.KINDS[name], []
    outlier = f"{kind.outlier:,.4g} {UNITS.get(name, 'in the unit of the files')}"
    for measure in MEASURES:
        touched = rows[rows[measure] > 0]
        measures.append(
            Measured(
                name=NAMES[measure].capitalize(),
                meaning=MEANINGS[measure].format(outlier=outlier, seconds=kind.window_s),
                touched=Extent.of(touched),
                median=float(rows[measure].median()),
                median_touched=float(touched[measure].median()) if len(touched) else 0.0,
                worst=float(rows[measure].max()),
            )
        )
    return KindView(name, Extent.of(rows), measures)


def _uses(measured: pd.DataFrame, finalist: Scored) -> list[Use]:
    """Return the effect of quality limits on a table's training; [] if its run has none.

    measured: unit_id, group_id, kind and the measures

    Raises:
        ConfigError: the run is not recorded, or this version cannot read it.
    """
    if not finalist.config:
        raise ConfigError(f"{finalist.trial}: its run is not recorded")
    limits = params.parse(QualityParams, finalist.config.get("quality") or {}, "quality")
    limited = [measure for measure in MEASURES if getattr(limits, measure) < 1]
    if not limited:
        return []
    kinds = set(measured["kind"])
    if len(kinds) > 1:  # only then the file of the feature is needed
        section = dict(finalist.config.get("feature") or {})
        feature = registry.load("features", str(section.pop("name", "")))
        kinds = set(feature.spec(params.parse(feature.Params, section, "feature")).kinds)
        unmeasured = sorted(kinds - set(measured["kind"]))
        if unmeasured:
            raise ConfigError(f"the quality of {', '.join(unmeasured)} was not measured")
    inputs = measured[measured["kind"].isin(kinds)]
    units = inputs.groupby(["unit_id", "group_id"])[list(MEASURES)].max().reset_index()  # the worst recording
    affected, by_limit = units[trust(units, limits) < 1], []
    for measure in limited:
        limit = getattr(limits, measure)
        beyond = units[trust(units, QualityParams.model_validate({measure: limit})) < 1]  # with no other limit
        by_limit.append((f"{NAMES[measure]} above {100 * limit:g}\u00a0%", Extent.of(beyond)))
    scored = int(finalist.rows["unit_id"].isin(affected["unit_id"]).sum())
    return [Use(finalist.trial, limits.weight, Extent.of(affected), scored, by_limit)]
