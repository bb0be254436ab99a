"""ensemble.json as the rows of the verdict: each score with its interval, its comparison and its population."""

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from hms_ray.report.tables import Population, Scored, Study, score_rows
from hms_ray.study.folder import StudyFolder
from hms_ray.study.oof import OofTable, optimism


@dataclass(frozen=True)
class Estimate:
    """A mean over units, its standard error and its 95 % interval, by patient; None where there is one patient."""

    value: float
    error: float | None
    low: float | None
    high: float | None

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return self.low is not None and self.high is not None

    @property
    def may_be_chance(self) -> bool:
        """Whether the interval of a difference holds 0."""
        return self.known and self.low <= 0 <= self.high

    @property
    def opposite(self) -> "Estimate":
        """The same difference, seen from the other side."""
        if not self.known:
            return Estimate(-self.value, self.error, None, None)
        return Estimate(-self.value, self.error, -self.high, -self.low)


@dataclass(frozen=True)
class Line:
    """One predictor beside the ensemble.

    score: None where it cannot be told; margin: how much lower the ensemble's score is, relative to this one's
    difference: how much worse than the ensemble it is, on the same units; None where that was not estimated
    """

    name: str
    score: float | None
    margin: float
    remark: str
    difference: Estimate | None = None


@dataclass(frozen=True)
class Block:
    """Scores that belong together because they are means over the same rows; the ensemble's comes first."""

    population: Population
    ensemble: float
    lines: list[Line]


@dataclass(frozen=True)
class PoolRow:
    """One method of pooling; difference: how much worse than the ensemble's method, None for that one itself."""

    method: str
    in_sample: float
    cross_fitted: Estimate
    difference: Estimate | None
    gap: float | None
    members: int


@dataclass(frozen=True)
class EnsembleSummary:
    """What the ensemble is worth, and how far that can be trusted.

    estimate: the cross-fitted score; pools: every method, the ensemble's first, then by cross-fitted score
    table: the cross-fitted predictions of every unit; rows: unit_id, group_id, fold, score of those that are scored
    plain: the plain baseline's predictions; None where it has none
    """

    content: dict[str, Any]
    block: Block
    outside: Block | None
    estimate: Estimate
    pools: list[PoolRow]
    table: OofTable
    rows: pd.DataFrame
    plain: OofTable | None

    @property
    def correction(self) -> float | None:
        """What is added to the cross-fitted score for the choice of configurations; None where it was not estimated."""
        corrected = self.content["kl_selection_corrected"]
        return None if corrected is None else max(0.0, corrected - self.block.ensemble)  # once it could be below 0

    @property
    def leading(self) -> Estimate:
        """The score to believe: corrected for the choice of configurations where that is known, else cross-fitted."""
        found, added = self.estimate, self.correction or 0.0
        value = self.block.ensemble + added
        return Estimate(value, found.error, *(found.low + added, found.high + added) if found.known else (None, None))

    @property
    def best(self) -> Line:
        """The best single table, in hindsight."""
        return self.block.lines[0]

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each member by trial id."""
        return {member["trial"]: member["weight"] for member in self.content["members"]}

    @property
    def thresholds(self) -> dict[str, list[float]] | None:
        """The thresholds (K,) of each fold, chosen on the others; None where decisions are no matter of thresholds."""
        return self.content["metrics"]["thresholds"]

    @property
    def linear(self) -> float:
        """Cross-fitted score of the linear pool, which the members' gains refer to."""
        return next(pool.cross_fitted.value for pool in self.pools if pool.method == "linear")

    @property
    def optimism(self) -> str:
        """What flatters every score but the prior's; nothing where no candidate's epochs were chosen on these rows."""
        return optimism("best") if self.content["optimistic_epochs"] else ""

    @property
    def notes(self) -> list[str]:
        """Remarks that the ensemble's maker left."""
        return self.content["notes"]


def read_verdict(folder: StudyFolder, study: Study) -> EnsembleSummary | None:
    """Set ensemble.json beside the ensemble's predictions; None while there is no ensemble."""
    content = study.ensemble
    if content is None:
        return None
    table = OofTable.read(folder.ensemble_oof)
    return EnsembleSummary(
        content=content,
        block=_block(content, study),
        outside=_outside(content["outside_selection"], study),
        estimate=Estimate(**content["interval"]),
        pools=_pools(content["methods"]),
        table=table,
        rows=score_rows(table, study.min_votes),
        plain=OofTable.read(folder.baseline) if folder.baseline.is_file() else None,
    )


def margin(ours: float, theirs: float | None) -> float:
    """Return (theirs - ours) / theirs: the share by which our score is lower; NaN where theirs is 0 or unknown."""
    return (theirs - ours) / theirs if theirs else math.nan


def selected_folds(finalists: list[Scored]) -> list[int]:
    """Return the folds on whose scores any configuration was chosen."""
    return sorted({fold for finalist in finalists for fold in finalist.selected_on})


def _block(content: dict[str, Any], study: Study) -> Block:
    ours, base = content["kl_cross_fitted"], content["baselines"]
    where, count = content["population"], content["candidates"]
    apart = {name: Estimate(**difference) for name, difference in base["differences"].items()}
    best, mean = f"Best single: {base['best_single_trial']}", f"Plain mean of all {count} candidates"
    honest = base["best_single_corrected"]
    if count == 1:
        only = f"The only table: {base['best_single_trial']}"
        singles = [_line(only, base["best_single"], ours, "as it is, without a pool", apart["best_single"])]
    else:
        singles = [
            _line(best, base["best_single"], ours, "chosen in hindsight", apart["best_single"]),
            _line("Best single, as it could be picked", honest, ours, "picked on some patients, scored on others"),
            _line(mean, base["mean"], ours, "no choice made", apart["mean"]),
        ]
    return Block(
        Population(where["units"], where["groups"], study.min_votes),
        ours,
        [
            *singles,
            _line("Class prior", base["prior"], ours, "no input looked at", apart["prior"]),
            *(
                [_line("Plain baseline", base["plain"], ours, base["plain_is"], apart["plain"])]
                if "plain" in apart
                else ()
            ),
        ],
    )


def _outside(content: dict[str, Any] | None, study: Study) -> Block | None:
    if content is None:
        return None
    ours = content["kl_cross_fitted"]
    names = {"best_single": "Best single there", "mean": "Plain mean of all candidates", "prior": "Class prior"}
    return Block(
        Population(content["units"], content["groups"], study.min_votes),
        ours,
        [_line(name, content[key], ours, "") for key, name in names.items()],
    )


def _line(name: str, theirs: float | None, ours: float, remark: str, difference: Estimate | None = None) -> Line:
    return Line(name, theirs, margin(ours, theirs), remark, difference)


def _pools(methods: list[dict[str, Any]]) -> list[PoolRow]:
    ours, *others = methods
    others = sorted((_pool_row(m, Estimate(**m["difference"])) for m in others), key=lambda row: row.cross_fitted.value)
    return [_pool_row(ours, None), *others]


def _pool_row(method: dict[str, Any], difference: Estimate | None) -> PoolRow:
    return PoolRow(
        method=method["method"],
        in_sample=method["kl_in_sample"],
        cross_fitted=Estimate(**method["kl_cross_fitted"]),
        difference=difference,
        gap=method["gap"],
        members=method["members"],
    )
