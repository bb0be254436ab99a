"""ensemble.json as the rows of the verdict: each score with its interval, its comparison and its population."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from hms_ray.ensemble.bootstrap import Estimate
from hms_ray.ensemble.result import EnsembleResult, MethodScore, OutsideSelection
from hms_ray.report.tables import Population, Scored, Study, score_rows
from hms_ray.study.folder import StudyFolder
from hms_ray.study.oof import OofTable, optimism


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

    pools: every method, the ensemble's first, then by cross-fitted score
    table: the cross-fitted predictions of every unit; rows: unit_id, group_id, fold, score of those that are scored
    plain: the plain baseline's predictions; None where it has none
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
        """The best single table, in hindsight."""
        return self.block.lines[0]

    @property
    def linear(self) -> float:
        """Cross-fitted score of the linear pool, which the members' gains refer to."""
        return next(pool.cross_fitted.value for pool in self.pools if pool.method == "linear")

    @property
    def optimism(self) -> str:
        """What flatters every score but the prior's; nothing where no candidate's epochs were chosen on these rows."""
        return optimism("best") if self.result.optimistic_epochs else ""


def read_verdict(folder: StudyFolder, study: Study) -> EnsembleSummary | None:
    """Set ensemble.json beside the ensemble's predictions; None while there is no ensemble."""
    result = study.ensemble
    if result is None:
        return None
    table = OofTable.read(folder.ensemble_oof)
    return EnsembleSummary(
        result=result,
        block=_block(result, study),
        outside=_outside(result.outside_selection, study),
        pools=_pools(result.methods),
        table=table,
        rows=score_rows(table, study.min_votes),
        plain=OofTable.read(folder.baseline) if folder.baseline.is_file() else None,
    )


def margin(score: float, other: float | None) -> float:
    """Return (other - score) / other: the share by which the score is lower; NaN where the other is 0 or unknown."""
    return (other - score) / other if other else math.nan


def selected_folds(finalists: list[Scored]) -> list[int]:
    """Return the folds on whose scores any configuration was chosen."""
    return sorted({fold for finalist in finalists for fold in finalist.selected_on})


def _block(result: EnsembleResult, study: Study) -> Block:
    score, base, apart = result.score_cross_fitted, result.baselines, result.baselines.differences
    if result.candidates == 1:
        only = f"The only table: {base.best_single_trial}"
        lines = [_line(only, base.best_single, score, "as it is, without a pool", apart.best_single)]
    else:
        best, mean = f"Best single: {base.best_single_trial}", f"Plain mean of all {result.candidates} candidates"
        honest = "picked on some patients, scored on others"
        lines = [
            _line(best, base.best_single, score, "chosen in hindsight", apart.best_single),
            _line("Best single, as it could be picked", base.best_single_corrected, score, honest),
            _line(mean, base.mean, score, "no choice made", apart.mean),
        ]
    lines.append(_line("Class prior", base.prior, score, "no input looked at", apart.prior))
    if apart.plain is not None:
        lines.append(_line("Plain baseline", base.plain, score, base.plain_is or "", apart.plain))
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


def _pools(methods: Sequence[MethodScore]) -> list[PoolRow]:
    first, *others = [
        PoolRow(row.method, row.score_in_sample, row.score_cross_fitted, row.difference, row.gap, row.members)
        for row in methods
    ]
    return [replace(first, difference=None), *sorted(others, key=lambda row: row.cross_fitted.value)]
