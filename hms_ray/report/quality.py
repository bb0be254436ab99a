"""How good the study's recordings are, and of which units training left recordings out, or trusted them less, for it.

A unit may have several recordings: its measures are those of the worst of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from hms_ray import registry
from hms_ray.core import params, recordings
from hms_ray.core.errors import ConfigError
from hms_ray.report.tables import Scored, Study, count, rule, those
from hms_ray.store.quality import MEASURES, QualityParams, trust

NAMES = {"nan": "gaps", "flat": "flat channels", "outliers": "outliers", "missing": "missing steps"}
MEANINGS = {
    "nan": "share of the values, of all channels, that are missing",
    "flat": "share of the channels that never change, or hold nothing",
    "outliers": "share of the values that lie beyond {outlier}, either way",
    "missing": "share of the time steps at which no channel holds anything; what a recording lacks of a window of "
    "{seconds:g} s counts as well",
}
UNITS = {"eeg": "µV", "heart_sound": "of full scale"}


@dataclass(frozen=True)
class Extent:
    """Some of the study's units, and the patients that they are of."""

    units: int
    groups: int

    def __str__(self) -> str:
        return f"{count(self.units, 'unit')} of {count(self.groups, 'patient')}"


@dataclass(frozen=True)
class Measured:
    """One measure of one kind of recording. touched: the units with any of it, of which `median_touched` is.

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
    """What the quality limits of a table's run did to its training; the units held out are scored without any limit.

    weight: the factor of the loss weight of inputs that have more than a limit allows; 0: never trained on
    affected: the units with any such input; `scored` of them are in the table's scored population
    by_limit: each limit in words, and the units beyond it; a unit may be beyond several
    """

    trial: str
    weight: float
    affected: Extent
    scored: int
    by_limit: list[tuple[str, Extent]]

    @property
    def effect(self) -> str:
        """What happened to the inputs beyond a limit."""
        return f"{self.weight:g} of the weight" if self.weight else "not trained on"


@dataclass(frozen=True)
class LeftOut:
    """A recording that the dataset lists and that was left out."""

    unit_id: str
    name: str
    cause: str


@dataclass(frozen=True)
class Quality:
    """The section of the page.

    kinds: the measures, [] where none were taken; left_out: listed recordings that are not there or hold nothing
    uses: tables whose run has limits; unknown: those of which that cannot be told; tables: how many there are
    min_votes: what a scored unit has
    """

    kinds: list[KindView]
    left_out: list[LeftOut]
    uses: list[Use]
    unknown: list[str]
    tables: int
    min_votes: int

    @property
    def scored(self) -> str:
        """Which units are scored."""
        return those("units", self.min_votes)

    @property
    def sentences(self) -> list[str]:
        """Say what was left out, of what, and what cannot be told."""
        if not self.tables:
            return ["No configuration has finished all folds yet, so there is no table to speak of."]
        return [*self._known(), *self._unknown()]

    def _known(self) -> list[str]:
        if self.uses:
            which = f" with {rule(self.min_votes)}" if self.min_votes > 1 else ""
            return [
                f"The runs of {len(self.uses)} of {count(self.tables, 'table')} have quality limits: inputs made of a "
                "recording that has more of anything than its limit allows were not trained on, or with less weight.",
                "A unit is beyond a limit if any of its recordings is; inputs of it that are made of others were "
                "trained on as those of any unit.",
                f"Every unit{which} is scored all the same, whatever its recordings are like, so the population of the "
                "score is unchanged.",
            ]
        if len(self.unknown) == self.tables:
            return []
        which = "that is recorded here " if self.unknown else ""
        left = "nothing was left out for its quality, neither of training nor of the score."
        return [f"No run {which}has quality limits: {left}"]

    def _unknown(self) -> list[str]:
        if not self.unknown:
            return []
        names = ", ".join(self.unknown[:5]) + (", …" if len(self.unknown) > 5 else "")
        return [
            f"Of {count(len(self.unknown), 'table')} it cannot be told whether training left anything out, since how "
            f"they were made is not recorded here, or not in words that this version knows: {names}."
        ]


def look(study: Study, finalists: list[Scored]) -> Quality | None:
    """Return the recordings' quality and what the tables' training made of it, and which recordings were left out.

    None where nothing was measured, and nothing left out.
    """
    left_out = [LeftOut(its["unit_id"], its["name"], its["cause"]) for its in study.data.get("left_out") or ()]
    if study.quality is None:
        return Quality([], left_out, [], [], len(finalists), study.min_votes) if left_out else None
    uses, unknown = [], []
    for finalist in finalists:
        try:
            uses += _uses(study, finalist)
        except ConfigError:
            unknown.append(finalist.trial)
    kinds = [_kind(str(name), study, rows) for name, rows in study.quality.groupby("kind")]
    return Quality(kinds, left_out, uses, unknown, len(finalists), study.min_votes)


def share(value: float) -> str:
    """A share as a percentage; one that is too small for its decimal is not 0."""
    return "< 0.1\u00a0%" if 0 < value < 0.001 else f"{100 * value:.1f}\u00a0%" if value else "0"


def _kind(name: str, study: Study, rows: pd.DataFrame) -> KindView:
    rows = _with_patients(study, rows)
    return KindView(name, _extent(rows), [_measured(measure, name, rows) for measure in MEASURES])


def _measured(measure: str, kind: str, rows: pd.DataFrame) -> Measured:
    touched = rows[rows[measure] > 0]
    median, worst = float(rows[measure].median()), float(rows[measure].max())
    extent, name, meaning = _extent(touched), NAMES[measure].capitalize(), _meaning(measure, kind)
    return Measured(name, meaning, extent, median, float(touched[measure].median()) if len(touched) else 0.0, worst)


def _meaning(measure: str, kind: str) -> str:
    known = recordings.KINDS[kind]
    outlier = f"{known.outlier:,.4g} {UNITS.get(kind, 'in the unit of the files')}"
    return MEANINGS[measure].format(outlier=outlier, seconds=known.window_s)


def _uses(study: Study, finalist: Scored) -> list[Use]:
    """Return what limits did to a table's training; nothing where its run has none.

    Raises:
        ConfigError: its run is not recorded, or not one that this version knows.
    """
    if not finalist.config:
        raise ConfigError(f"{finalist.trial}: its run is not recorded")
    limits = params.parse(QualityParams, finalist.config.get("quality") or {}, "quality")
    limited = [measure for measure in MEASURES if getattr(limits, measure) < 1]
    if not limited:
        return []
    units = _worst(study, finalist.config)
    affected = units[trust(units, limits) < 1]
    scored = int(finalist.rows["unit_id"].isin(affected["unit_id"]).sum())
    by_limit = [_beyond(units, measure, getattr(limits, measure)) for measure in limited]
    return [Use(finalist.trial, limits.weight, _extent(affected), scored, by_limit)]


def _beyond(units: pd.DataFrame, measure: str, limit: float) -> tuple[str, Extent]:
    """Return a limit in words, and the units that it would affect if there were no other."""
    alone = QualityParams.model_validate({measure: limit})
    return f"{NAMES[measure]} above {100 * limit:g}\u00a0%", _extent(units[trust(units, alone) < 1])


def _worst(study: Study, config: Mapping[str, Any]) -> pd.DataFrame:
    """Return unit_id, group_id and the measures of each unit, the worst of the recordings that the run reads."""
    kinds = _kinds(study, config)
    mine = study.quality[study.quality["kind"].isin(kinds)]
    return _with_patients(study, mine.groupby("unit_id")[list(MEASURES)].max().reset_index())


def _kinds(study: Study, config: Mapping[str, Any]) -> set[str]:
    """Return the kinds of recordings that a run reads; its feature's file is loaded only where there is a choice."""
    measured = set(study.quality["kind"])
    if len(measured) == 1:
        return measured
    section = dict(config.get("feature") or {})
    feature = registry.load("features", str(section.pop("name", "")))
    kinds = set(feature.spec(params.parse(feature.Params, section, "feature")).kinds)
    if not kinds <= measured:
        raise ConfigError(f"the quality of {', '.join(sorted(kinds - measured))} was not measured")
    return kinds


def _with_patients(study: Study, rows: pd.DataFrame) -> pd.DataFrame:
    return rows.merge(study.units[["unit_id", "group_id"]], on="unit_id")


def _extent(rows: pd.DataFrame) -> Extent:
    return Extent(len(rows), int(rows["group_id"].nunique()))
