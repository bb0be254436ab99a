"""Numbers and findings in words: one format for each kind of number, one sentence for each finding and caveat."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context, Decimal
from typing import Any

import pandas as pd
import yaml

from hms_ray.ensemble.bootstrap import Estimate
from hms_ray.report.summary import EnsembleSummary, Line, selected_folds
from hms_ray.report.tables import Population, Scored, Study
from hms_ray.study.oof import optimism
from hms_ray.tasks import Task

NOTHING = "\u2013"  # an en dash
MINUS = "\u2212"
FEW_PATIENTS = 30
NO_INTERVAL = "too few patients for an interval"
EPOCHS = {"cross_fitted": "chosen on the other folds", "last": "the last", "best": "the best of each\u00a0‡"}
ROUNDING = 1e-12  # what two ways to the same score differ by


@dataclass(frozen=True)
class ScoreName:
    """What a score is called: short in a column's head, long in a caption; meaning: in a sentence."""

    short: str
    long: str
    meaning: str

    @property
    def head(self) -> str:
        """The short name where a sentence or a column begins."""
        return self.short[0].upper() + self.short[1:]


DIVERGENCE = ScoreName(
    "KL", "KL divergence", "mean Kullback-Leibler divergence of the prediction from the experts' votes"
)
LOG_LOSS = ScoreName("log loss", "log loss", "mean log loss over units and classes, each class a yes-or-no question")


@dataclass(frozen=True)
class ScoreRow:
    """One of the scores side by side. interval: None where none was estimated; meaning: how it was come by."""

    name: str
    score: float | None
    interval: Estimate | None
    meaning: str
    population: Population


def score_name(task: Task) -> ScoreName:
    """Name the score of a task: the one place that does."""
    return LOG_LOSS if task.asks_each_class else DIVERGENCE


def nats(value: float | None) -> str:
    """Five decimals, which is finer than any standard error seen; a dash for nothing."""
    return NOTHING if value is None or math.isnan(value) else f"{value:.5f}"


def signed(value: float | None) -> str:
    """A difference with its sign; one of 0, but for rounding, has none."""
    if value is not None and abs(value) < ROUNDING:
        return nats(0.0)
    return nats(value) if value is None or math.isnan(value) else f"{value:+.5f}".replace("-", MINUS)


def interval(estimate: Estimate) -> str:
    """The 95 % interval of a score."""
    return f"{nats(estimate.low)} to {nats(estimate.high)}" if estimate.known else NO_INTERVAL


def signed_interval(estimate: Estimate) -> str:
    """The 95 % interval of a difference."""
    return f"{signed(estimate.low)} to {signed(estimate.high)}" if estimate.known else NO_INTERVAL


def percent(share: float | None) -> str:
    """A share as a percentage with one decimal."""
    return NOTHING if share is None or math.isnan(share) else f"{100 * share:.1f}\u00a0%"


def area(value: float | None) -> str:
    """An area under a curve with three decimals."""
    return NOTHING if value is None or math.isnan(value) else f"{value:.3f}"


def signed_area(value: float) -> str:
    """A difference of two such areas with its sign."""
    return f"{value:+.3f}".replace("-", MINUS)


def margin(share: float) -> str:
    """A margin as "8.7 % lower" or "1.2 % higher"."""
    if math.isnan(share) or share == 0:
        return NOTHING if math.isnan(share) else "equal"
    return f"{percent(abs(share))} {'lower' if share >= 0 else 'higher'}"


def whole(value: float | None) -> str:
    """A whole number with separators."""
    return NOTHING if value is None or math.isnan(value) else f"{int(value):,}"


def bound(value: float | None) -> str:
    """Two digits rounded UP, so that "at most this" stays true; a bound below 0 is round-off and reads 0."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if value <= 0:
        return "0"
    return f"{Context(prec=2, rounding=ROUND_CEILING).plus(Decimal(repr(value))):.1e}"


def seconds(value: float | None) -> str:
    """A duration as "42 s", "3 min 20 s" or "2 h 05 min"."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if value < 9.95:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def value(content: Any) -> str:
    """A hyper-parameter in few characters: floats with four digits, the rest as YAML in one line."""
    if isinstance(content, float):
        return f"{content:.4g}"
    return "none" if content == [] else one_line(content)


def one_line(content: Any) -> str:
    """YAML in one line."""
    text = yaml.safe_dump(content, default_flow_style=True, sort_keys=False, width=math.inf)
    return text.removesuffix("...\n").strip()


def block(content: Any) -> str:
    """YAML in many lines, keys in their order."""
    return yaml.safe_dump(content, sort_keys=False)


def outcome(trial: Mapping[str, Any]) -> str:
    """Say why a trial of the trials table has no score of its own: what stopped it, or what it failed with."""
    match trial["state"]:
        case "PRUNED":
            return (
                f"stopped after {percent(trial['fidelity'])} of its schedule: {trial['cause'] or 'no cause recorded'}"
            )
        case "FAIL":
            return f"failed: {trial['cause'] or 'no cause recorded'}"
        case "RUNNING":
            return "had not ended when this was written"
        case _:
            return ""


def fold_list(folds: list[int] | tuple[int, ...]) -> str:
    """ "fold 0" or "folds 0, 2, 3"."""
    return f"fold{'' if len(folds) == 1 else 's'} {', '.join(map(str, folds))}"


def mark(said: str) -> str:
    """What flatters a score, as it follows a caption; nothing stays nothing."""
    return f" · {said}" if said else ""


def epochs(finalist: Scored) -> str:
    """Say which epoch of each fold predicts, and how it was chosen; nothing of a foreign table. ‡: see `optimism`."""
    if finalist.epoch_rule not in EPOCHS:
        return ""
    return f"epochs {', '.join(map(str, finalist.epochs))}, {EPOCHS[finalist.epoch_rule]}"


def skipped_steps(curve: pd.DataFrame) -> str:
    """Count the steps of a trial that were skipped, as it follows the trial's name; nothing where none was."""
    count = int(curve["skipped_steps"].sum()) if "skipped_steps" in curve else 0  # older studies do not know
    return mark(f"{count} steps skipped: infinite gradients in float16" if count else "")


def trial_epochs(study: Study, space: dict[str, Any] | None) -> str:
    """Say after which epoch the trials of a space are scored; nothing of trials whose space is not known."""
    if space is None:
        return ""
    if study.epoch != "cross_fitted":
        return optimism(study.epoch) or "scored after the last epoch"
    if space["budget"]["trial_folds"] < 3:
        return "scored after the last epoch: to choose another takes two other folds of the trial"
    return "each fold scored after its last epoch, or one that is surely better on the trial's other folds"


def headline(summary: EnsembleSummary) -> str:
    """Say what the ensemble is worth beside the best single table, and name whatever scores better than it."""
    best, lead = summary.best, summary.result.leading
    table = "the only table" if summary.result.candidates == 1 else "the best single table"
    start = f"The ensemble scores {nats(lead.value)}"
    start += f" (95\u00a0% interval {interval(lead)})" if lead.known else ""
    if summary.result.correction:
        start += f", {nats(summary.result.correction)} of it for the choice of its configurations"
        start += ". Without that correction it is "
    else:
        start += ", "
    if best.margin == 0:
        return f"{start}exactly what {table} scores.{_better(summary)}"
    return f"{start}{margin(best.margin)} than {table}: {_apart(best.difference)}.{_better(summary)}"


def scores_side_by_side(finalists: list[Scored], summary: EnsembleSummary) -> list[ScoreRow]:
    """Set the score in sample, cross-fitted and corrected for the choice of configurations side by side; the one to
    believe comes first."""
    everyone, chosen = summary.block.population, summary.result.correction is not None
    corrected = ScoreRow(
        "Selection-corrected",
        summary.result.leading.value if chosen else None,
        summary.result.leading if chosen else None,
        _correction(finalists, summary),
        everyone,
    )
    cross_fitted = ScoreRow(
        "Cross-fitted",
        summary.block.ensemble,
        None if chosen else summary.result.interval,
        "Each fold is predicted by a pool that was fitted, its settings chosen, on the other folds alone.",
        everyone,
    )
    in_sample = ScoreRow(
        "In sample",
        summary.result.score_in_sample,
        None,
        "Optimistic: weights fitted and scored on the same rows.",
        everyone,
    )
    return [corrected, cross_fitted, in_sample] if chosen else [cross_fitted, corrected, in_sample]


def caveats(study: Study, finalists: list[Scored], summary: EnsembleSummary) -> list[str]:
    """Say what the figures do not mean; only what applies to this study."""
    found = [*_hindsight(summary), *_selection(finalists, summary)]
    return [*found, *_left_out(study, summary), *_patients(study, summary), *_shortcuts(study)]


def correction_sentence(study: Study, summary: EnsembleSummary) -> str:
    """Explain how the optimism of choosing configurations was estimated; nothing where it was not."""
    selection = summary.result.selection
    if not selection:
        return ""
    rows = Population(selection.units, selection.groups, study.min_votes)
    if selection.optimism > 0:
        in_the_score_of_all = f", so {signed(selection.share * selection.optimism)} in the score of all."
    else:
        in_the_score_of_all = ". An estimate that is not above 0 is chance, and corrects nothing."
    return (
        f"{selection.configurations:,} configurations were tried on {fold_list(selection.folds)} ({rows}) and "
        f"{selection.kept:,} kept. To see what that choice flatters, in the manner of BBC-CV, patients are drawn with "
        "replacement and the choice among all configurations is repeated on those drawn. What it loses on the patients "
        f"not drawn, beyond what a pool of the kept ones loses there, is the optimism: {signed(selection.optimism)} "
        f"nats on these rows{in_the_score_of_all} Trials that were stopped before they had predicted these "
        "folds are not among those tried."
    )


def outside_sentence(finalists: list[Scored], summary: EnsembleSummary) -> str:
    """Explain the figures on the folds that nothing was chosen on, or why there are none."""
    chosen_on = selected_folds(finalists)
    if summary.outside:
        return (
            f"On {fold_list(summary.result.outside_selection.folds)} no configuration was chosen: these rows "
            "took no part in picking hyper-parameters, and the pool that predicts each fold was fitted on others."
        )
    if not chosen_on:
        return (
            "No table names a fold that its configuration was chosen on, so there is no subset to set apart. "
            "For imported tables this is what their files say, not something that was seen here."
        )
    return f"Configurations were chosen on {fold_list(chosen_on)}; no scored rows lie outside these folds."


def _apart(difference: Estimate) -> str:
    """State a difference in the direction of its sentence, so that it is positive, and whether it may be chance."""
    gain = difference if difference.value >= 0 else difference.opposite
    if not gain.known:
        return f"the difference is {nats(gain.value)}; {NO_INTERVAL}"
    chance = ", so it may be chance" if gain.may_be_chance else ""
    return f"the difference is {nats(gain.value)} ({signed_interval(gain).replace('+', '')}){chance}"


def _better(summary: EnsembleSummary) -> str:
    better = [line for line in summary.block.lines[1:] if line.margin < 0]
    return "".join(f" Better still: {_name(line)}." for line in better)


def _name(line: Line) -> str:
    found = f"{line.name[0].lower()}{line.name[1:]}, {nats(line.score)}"
    return f"{found} ({_apart(line.difference)})" if line.difference else found


def _correction(finalists: list[Scored], summary: EnsembleSummary) -> str:
    """Say what the correction adds, or why there is none."""
    selection, chosen_on = summary.result.selection, selected_folds(finalists)
    if selection:
        picking = f"picking {selection.kept:,} of {selection.configurations:,} configurations"
        where = f"{signed(selection.optimism)} nats on {fold_list(selection.folds)}"
        if selection.optimism > 0:
            share = percent(selection.share)
            return f"Cross-fitted, plus the estimated optimism of {picking}: {where}, {share} of the scored units."
        return f"Cross-fitted: the estimated optimism of {picking} is not above 0 ({where}), and nothing is added."
    if not chosen_on:
        return "Not corrected: no table names a fold that its configuration was chosen on; foreign ones cannot tell."
    if not summary.rows["fold"].isin(chosen_on).any():
        return f"Not corrected: no unit of {fold_list(chosen_on)}, where configurations were chosen, is scored."
    return (
        "Not corrected: the choice cannot be repeated, since there are not predictions of "
        f"{fold_list(chosen_on)} both by configurations that were kept and by others that were not."
    )


def _hindsight(summary: EnsembleSummary) -> list[str]:
    if summary.result.candidates == 1:
        if summary.best.difference.value == 0:
            return ["There is one table only, and the ensemble predicts what that table does."]
        return [
            "There is one table only: the ensemble is that table as the pool changes it, by its temperature and its "
            "class bias. The difference between their scores is due to that, not to combining models."
        ]
    found = "The best single table was picked in hindsight on the very rows it is scored on: its figure is optimistic."
    honest = summary.result.baselines.best_single_corrected
    if honest is None:
        return [found]
    return [f"{found} Picked on patients drawn with replacement, and scored on those not drawn, it is {nats(honest)}."]


def _selection(finalists: list[Scored], summary: EnsembleSummary) -> list[str]:
    folds = selected_folds(finalists)
    if not folds:
        return []
    chosen = sum(bool(f.selected_on) for f in finalists)
    share = f"{int(summary.rows['fold'].isin(folds).sum()):,} of {len(summary.rows):,} units"
    return [
        f"{chosen} of {len(finalists)} configurations were chosen by their score on {fold_list(folds)}, which "
        f"{'is' if len(folds) == 1 else 'are'} part of the cross-fitted population ({share}): "
        f"there the score is optimistic.{_remedies(summary, folds)}"
    ]


def _remedies(summary: EnsembleSummary, chosen_on: list[int]) -> str:
    selection, said = summary.result.selection, ""
    if selection and selection.optimism > 0:
        said = " The selection-corrected score adds what that is estimated to be worth"
        later = [fold for fold in chosen_on if fold not in selection.folds]
        said += f" on {fold_list(selection.folds)}" if later else ""
        said += (
            f"; on {fold_list(later)} it cannot be estimated, since only those kept were trained there."
            if later
            else "."
        )
    return said + (" The figures outside selection leave these rows out." if summary.outside else "")


def _left_out(study: Study, summary: EnsembleSummary) -> list[str]:
    """Name units, folds and figures that the ensemble's score does not speak for."""
    found, total, scored = [], len(study.units), summary.block.population.units
    empty = sorted(set(study.fold_numbers) - set(summary.rows["fold"]))
    if scored < total:
        lack = f"do not have {study.rule} and " if study.min_votes > 1 else ""
        found.append(
            f"{total - scored:,} of {total:,} units ({percent(1 - scored / total)}) {lack}are "
            "not scored; no score here speaks for them."
        )
    if empty:
        which = f"unit with {study.rule}" if study.min_votes > 1 else "scored unit"
        found.append(f"No {which} lies in {fold_list(empty)}: nothing was scored there.")
    if study.spaces and study.min_votes != study.search_min_votes:
        found.append(
            f"The ensemble and the tables are scored on {study.rule}, the study's own trials and learning curves on "
            f"{study.search_rule}: these are different populations, and their scores cannot be compared."
        )
    return found


def _patients(study: Study, summary: EnsembleSummary) -> list[str]:
    found, groups = [], summary.block.population.groups
    if not study.spaces and study.units["group_id"].nunique() == len(study.units):  # imported; our datasets know
        found.append(
            "Each unit counts as a patient of its own. If the source did not say whose units they are, patients may be "
            "in several folds, and scores and standard errors are then optimistic."
        )
    if groups < FEW_PATIENTS:
        found.append(
            f"With {groups} scored patient{'' if groups == 1 else 's'}, differences and standard errors show that the "
            "pipeline runs, not which model is better."
        )
    return found


def _shortcuts(study: Study) -> list[str]:
    """Name what tells a class apart without any recording."""
    by_class: dict[str, list[str]] = {}
    for its in study.data.get("shortcuts", ()):
        by_class.setdefault(its["class"], []).append(f"{its['by']} ({area(its['auroc'])})")
    return [
        f"{name} can be told without any recording. AUROC over all units, each alone: {', '.join(told)}. How well "
        f"{name} is told here may come of these, or of whatever goes with them, and need not be so elsewhere."
        for name, told in by_class.items()
    ]
