"""ensemble.json as the sentences and rows of the verdict: each score with its rows, its comparison and its caveat."""

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from hms_ray.oof import OofTable
from hms_ray.report import diagnostics
from hms_ray.report.tables import Population, Scored, Study, score_rows
from hms_ray.study_folder import StudyFolder


@dataclass(frozen=True)
class Line:
    """One predictor beside the ensemble. margin: how much lower the ensemble's score is, relative to this one's."""

    name: str
    score: float
    margin: float
    remark: str


@dataclass(frozen=True)
class Block:
    """Scores that belong together because they are means over the same rows; the ensemble's comes first."""

    population: Population
    ensemble: float
    lines: list[Line]


@dataclass(frozen=True)
class Verdict:
    """What the ensemble is worth, and how far that can be trusted.

    error: standard error of the ensemble's score, by patient; NaN for fewer than two patients
    against_best: how much lower than the best single's the ensemble's score is, and the standard error of that
    """

    content: dict[str, Any]
    block: Block
    outside: Block | None
    error: float
    against_best: tuple[float, float] | None
    rows: pd.DataFrame

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each member by trial id."""
        return {member["trial"]: member["weight"] for member in self.content["members"]}

    @property
    def notes(self) -> list[str]:
        """Remarks that the ensemble's maker left."""
        return self.content.get("notes", [])


def read_verdict(folder: StudyFolder, study: Study, finalists: list[Scored]) -> Verdict | None:
    """Set ensemble.json beside the ensemble's predictions; None while there is no ensemble."""
    content = study.ensemble
    if content is None:
        return None
    rows = score_rows(OofTable.read(folder.ensemble_oof), study.min_votes)
    best = next((f for f in finalists if f.trial == content["baselines"]["best_single_trial"]), None)
    return Verdict(
        content=content,
        block=_block(content, study),
        outside=_outside(content["outside_selection"], study),
        error=diagnostics.cluster_error(rows["score"], rows["group_id"]),
        against_best=None if best is None else _paired(best.rows, rows),
        rows=rows,
    )


def margin(ours: float, theirs: float) -> float:
    """Return (theirs - ours) / theirs: the share by which our score is lower; NaN where theirs is 0."""
    return (theirs - ours) / theirs if theirs else math.nan


def selected_folds(finalists: list[Scored]) -> list[int]:
    """Return the folds on whose scores any configuration was chosen."""
    return sorted({fold for finalist in finalists for fold in finalist.selected_on})


def _block(content: dict[str, Any], study: Study) -> Block:
    ours, base = content["kl_cross_fitted"], content["baselines"]
    where, count = content["population"], content["candidates"]
    return Block(
        Population(where["units"], where["groups"], study.min_votes),
        ours,
        [
            _line(f"Best single: {base['best_single_trial']}", base["best_single"], ours, "chosen in hindsight"),
            _line(f"Plain mean of all {count} candidates", base["mean"], ours, "no choice made"),
            _line("Class prior", base["prior"], ours, "no input looked at"),
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


def _line(name: str, theirs: float, ours: float, remark: str) -> Line:
    return Line(name, theirs, margin(ours, theirs), remark)


def _paired(theirs: pd.DataFrame, ours: pd.DataFrame) -> tuple[float, float] | None:
    """Return the mean difference (theirs - ours) over the units of both and its standard error by patient."""
    both = ours.merge(theirs, on="unit_id", suffixes=("", "_theirs"))
    if both.empty:
        return None
    gain = both["score_theirs"] - both["score"]
    return float(gain.mean()), diagnostics.cluster_error(gain, both["group_id"])
