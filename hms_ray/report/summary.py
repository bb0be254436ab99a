"""The scores of ensemble.json as rows of the page, each with its interval, comparison and population."""

import math
from dataclasses import dataclass, replace

import pandas as pd

from hms_ray.ensemble.bootstrap import Estimate
from hms_ray.ensemble.result import EnsembleResult, OutsideSelection
from hms_ray.report.tables import Population, Scored, Study, score_rows
from hms_ray.study.folder import StudyFolder
from hms_ray.study.oof import OofTable, optimism


@dataclass(frozen=True)
class Line:
    """One predictor that the ensemble is compared with.

    score: None if unknown; margin: how much lower the ensemble's score is, relative to this score
    difference: this score minus the ensemble's, on the same units; None if not estimated
    """

    name: str
    score: float | None
    margin: float
    remark: str
    difference: Estimate | None = None


@dataclass(frozen=True)
class Block:
    """Scores that can be compared: means over the same rows; the ensemble's is separate."""

    population: Population
    ensemble: float
    lines: list[Line]


@dataclass(frozen=True)
class PoolRow:
    """One pooling method; difference: its score minus that of the ensemble's method, whose own difference is None."""

    method: str
    in_sample: float
    cross_fitted: Estimate
    difference: Estimate | None
    gap: float | None
    members: int


@dataclass(frozen=True)
class EnsembleSummary:
    """The ensemble's scores beside those of the baselines and of the other methods.

    pools: every method, the ensemble's first, then by cross-fitted score
    table: the cross-fitted predictions of every unit; rows: unit_id, group_id, fold, score of the scored units
    plain: the plain baseline's predictions, if there are any
    """

    result: EnsembleResult
    block: Block
    outside: Block | None
    pools: list[PoolRow]
    table: OofTable
    rows: pd.DataFrame
    plain: OofTable | None

    @property
    def best(self) -> Line:
        """The best single table, chosen in hindsight."""
        return self.block.lines[0]

    @property
    def linear(self) -> float:
        """Cross-fitted score of the linear pool, to which the members' gains refer."""
        return next(pool.cross_fitted.value for pool in self.pools if pool.method == "linear")

    @property
    def optimism(self) -> str:
        """The reason why all scores but the prior's are optimistic; "" if they are not."""
        return optimism("best") if self.result.optimistic_epochs else ""


def read_summary(folder: StudyFolder, study: Study) -> EnsembleSummary | None:
    """Combine ensemble.json with the ensemble's predictions; None without an ensemble."""
    result = study.ensemble
    if result is None:
        return None
    table = OofTable.read(folder.ensemble_oof)
    first, *others = [
        PoolRow(row.method, row.score_in_sample, row.score_cross_fitted, row.difference, row.gap, row.members)
        for row in result.methods
    ]
    return EnsembleSummary(
        result=result,
        block=_block(result, study),
        outside=_outside(result.outside_selection, study),
        pools=[replace(first, difference=None), *sorted(others, key=lambda row: row.cross_fitted.value)],
        table=table,
        rows=score_rows(table, study.min_votes),
        plain=OofTable.read(folder.baseline) if folder.baseline.is_file() else None,
    )


def margin(score: float, other: float | None) -> float:
    """Return (other - score) / other: the share by which the score is lower; NaN if the other is 0 or unknown."""
    return (other - score) / other if other else math.nan


def selected_folds(finalists: list[Scored]) -> list[int]:
    """Return the folds on whose scores any configuration was chosen."""
    return sorted({fold for finalist in finalists for fold in finalist.selected_on})


def _block(result: EnsembleResult, study: Study) -> Block:
    score, base, differences = result.score_cross_fitted, result.baselines, result.baselines.differences
    best = differences.best_single
    if result.candidates == 1:
        name = f"The only table: {base.best_single_trial}"
        lines = [_line(name, base.best_single, score, "as it is, without a pool", best)]
    else:
        remark = "picked on some patients, scored on others"
        lines = [
            _line(f"Best single: {base.best_single_trial}", base.best_single, score, "chosen in hindsight", best),
            _line("Best single, as it could be picked", base.best_single_corrected, score, remark),
            _line(f"Plain mean of all {result.candidates} candidates", base.mean, score, "no choice", differences.mean),
        ]
    lines.append(_line("Class prior", base.prior, score, "no input used", differences.prior))
    if differences.plain is not None:
        lines.append(_line("Plain baseline", base.plain, score, base.plain_is or "", differences.plain))
    return Block(Population(result.population.units, result.population.groups, study.min_votes), score, lines)


def _outside(outside: OutsideSelection | None, study: Study) -> Block | None:
    if outside is None:
        return None
    scores = {
        "Best single there": outside.best_single,
        "Plain mean of all candidates": outside.mean,
        "Class prior": outside.prior,
    }
    return Block(
        Population(outside.units, outside.groups, study.min_votes),
        outside.score_cross_fitted,
        [_line(name, score, outside.score_cross_fitted, "") for name, score in scores.items()],
    )


def _line(name: str, score: float | None, ensemble: float, remark: str, difference: Estimate | None = None) -> Line:
    return Line(name, score, margin(ensemble, score), remark, difference)
