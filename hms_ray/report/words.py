"""Formats of numbers, and the sentences of the report: one format for each kind of number."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context, Decimal
from typing import Any

import pandas as pd
import yaml

from hms_ray.ensemble.bootstrap import Estimate
from hms_ray.report.summary import EnsembleSummary, selected_folds
from hms_ray.report.tables import Population, Scored, Study
from hms_ray.study.oof import optimism
from hms_ray.tasks import Task

NOTHING = "\u2013"  # an en dash
MINUS = "\u2212"
FEW_PATIENTS = 30
NO_INTERVAL = "too few patients for an interval"
EPOCHS = {"cross_fitted": "chosen on the other folds", "last": "the last", "best": "the best of each\u00a0‡"}
ROUNDING = 1e-12  # two ways to compute the same score differ by less


@dataclass(frozen=True)
class ScoreName:
    """Names of a score: short for a column, long for a caption; meaning: for a sentence."""

    short: str
    long: str
    meaning: str

    @property
    def head(self) -> str:
        """The short name with a capital letter."""
        return self.short[0].upper() + self.short[1:]


DIVERGENCE = ScoreName(
    "KL", "KL divergence", "mean Kullback-Leibler divergence of the prediction from the experts' votes"
)
LOG_LOSS = ScoreName("log loss", "log loss", "mean log loss over units and classes, each class a yes-or-no question")


@dataclass(frozen=True)
class ScoreRow:
    """One of the main scores; interval: None if not estimated; meaning: how the score was computed."""

    name: str
    score: float | None
    interval: Estimate | None
    meaning: str
    population: Population


def score_name(task: Task) -> ScoreName:
    """Return the names of a task's score."""
    return LOG_LOSS if task.asks_each_class else DIVERGENCE


def nats(value: float | None) -> str:
    """Five decimals, finer than any standard error seen; a dash if unknown."""
    return NOTHING if value is None or math.isnan(value) else f"{value:.5f}"


def signed(value: float | None) -> str:
    """A difference with its sign; a difference of 0, up to rounding, has none."""
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


def value(content: object) -> str:
    """A hyper-parameter in few characters: floats with four digits, the rest as YAML in one line."""
    if isinstance(content, float):
        return f"{content:.4g}"
    return "none" if content == [] else one_line(content)


def one_line(content: object) -> str:
    """YAML in one line."""
    text: str = yaml.safe_dump(content, default_flow_style=True, sort_keys=False, width=math.inf)
    return text.removesuffix("...\n").strip()


def block(content: object) -> str:
    """YAML in many lines, keys in their order."""
    return str(yaml.safe_dump(content, sort_keys=False))


def outcome(trial: Mapping[str, Any]) -> str:
    """Return why a trial of the trials table has no score: the cause of its stop or failure."""
    match trial["state"]:
        case "PRUNED":
            return (
                f"stopped after {percent(trial['fidelity'])} of its schedule: {trial['cause'] or 'no cause recorded'}"
            )
        case "FAIL":
            return f"failed: {trial['cause'] or 'no cause recorded'}"
        case "RUNNING":
            return "still running when this page was written"
        case _:
            return ""


def fold_list(folds: list[int] | tuple[int, ...]) -> str:
    """ "fold 0" or "folds 0, 2, 3"."""
    return f"fold{'' if len(folds) == 1 else 's'} {', '.join(map(str, folds))}"


def mark(note: str) -> str:
    """A note on optimism as the end of a caption; "" without a note."""
    return f" · {note}" if note else ""


def epochs(finalist: Scored) -> str:
    """Return which epoch of each fold predicts, and how it was chosen; "" for an imported table. ‡: see `optimism`."""
    if finalist.epoch_rule not in EPOCHS:
        return ""
    return f"epochs {', '.join(map(str, finalist.epochs))}, {EPOCHS[finalist.epoch_rule]}"


def skipped_steps(curve: pd.DataFrame) -> str:
    """Return the number of a trial's skipped steps as the end of a caption; "" if there are none."""
    count = int(curve["skipped_steps"].sum()) if "skipped_steps" in curve else 0  # missing in older studies
    return mark(f"{count} steps skipped: infinite gradients in float16" if count else "")


def trial_epochs(study: Study, space: Mapping[str, Any] | None) -> str:
    """Return after which epoch the trials of a space are scored; "" if the space is unknown."""
    if space is None:
        return ""
    if study.epoch != "cross_fitted":
        return optimism(study.epoch) or "scored after the last epoch"
    if space["budget"]["trial_folds"] < 3:
        return "scored after the last epoch: another choice needs two other folds of the trial"
    return "each fold scored after its last epoch, or after one that is clearly better on the trial's other folds"


def headline(summary: EnsembleSummary) -> str:
    """Compare the ensemble with the best single table, and name everything that scores better."""
    best, lead = summary.best, summary.result.leading
    table = "the only table" if summary.result.candidates == 1 else "the best single table"
    start = f"The ensemble scores {nats(lead.value)}"
    start += f" (95\u00a0% interval {interval(lead)})" if lead.known else ""
    if summary.result.correction:
        start += f", including {nats(summary.result.correction)} for the choice of its configurations"
        start += ". Without this correction it is "
    else:
        start += ", "
    better = ""
    for line in summary.block.lines[1:]:
        if line.margin < 0:
            difference = f" ({_difference(line.difference)})" if line.difference else ""
            better += f" Better still: {line.name[0].lower()}{line.name[1:]}, {nats(line.score)}{difference}."
    if best.margin == 0:
        return f"{start}exactly the score of {table}.{better}"
    return f"{start}{margin(best.margin)} than {table}: {_difference(best.difference)}.{better}"


def scores_side_by_side(finalists: list[Scored], summary: EnsembleSummary) -> list[ScoreRow]:
    """Return the scores in sample, cross-fitted and corrected for the choice of configurations; the main one first."""
    result, population = summary.result, summary.block.population
    is_corrected = result.correction is not None
    corrected = ScoreRow(
        "Selection-corrected",
        result.leading.value if is_corrected else None,
        result.leading if is_corrected else None,
        _correction(finalists, summary),
        population,
    )
    cross_fitted = ScoreRow(
        "Cross-fitted",
        summary.block.ensemble,
        None if is_corrected else result.interval,
        "Each fold is predicted by a pool that was fitted, with its settings chosen, on the other folds only.",
        population,
    )
    meaning = "Optimistic: weights fitted and scored on the same rows."
    in_sample = ScoreRow("In sample", result.score_in_sample, None, meaning, population)
    return [corrected, cross_fitted, in_sample] if is_corrected else [cross_fitted, corrected, in_sample]


def correction_sentence(study: Study, summary: EnsembleSummary) -> str:
    """Explain how the optimism of choosing configurations was estimated; "" if it was not."""
    selection = summary.result.selection
    if not selection:
        return ""
    rows = Population(selection.units, selection.groups, study.min_votes)
    if selection.optimism > 0:
        effect = f", so {signed(selection.share * selection.optimism)} in the score of all rows."
    else:
        effect = ". An estimate that is not above 0 is chance, and is not applied."
    return (
        f"{selection.configurations:,} configurations were tried on {fold_list(selection.folds)} ({rows}) and "
        f"{selection.kept:,} kept. The optimism of this choice is estimated as in BBC-CV: patients are drawn with "
        "replacement, and the choice among all configurations is repeated on the drawn patients. Its loss on the "
        "patients not drawn, minus the loss of a pool of the kept configurations there, is the optimism: "
        f"{signed(selection.optimism)} nats on these rows{effect} Trials that were stopped before they had predicted "
        "these folds are not included."
    )


def outside_sentence(finalists: list[Scored], summary: EnsembleSummary) -> str:
    """Explain the figures on the folds on which nothing was chosen, or why there are none."""
    chosen_on, outside = selected_folds(finalists), summary.result.outside_selection
    if outside:
        return (
            f"On {fold_list(outside.folds)} no configuration was chosen: these rows were not used to choose "
            "hyper-parameters, and the pool that predicts each fold was fitted on other folds."
        )
    if not chosen_on:
        return (
            "No table names a fold that its configuration was chosen on, so there is no subset to report separately. "
            "For imported tables this is the statement of their files; it was not checked."
        )
    return f"Configurations were chosen on {fold_list(chosen_on)}; no scored rows lie outside these folds."


def caveats(study: Study, finalists: list[Scored], summary: EnsembleSummary) -> list[str]:
    """Return the limits of what the figures show; only those that apply to this study."""
    by_class: dict[str, list[str]] = {}  # what predicts a class without any recording
    for shortcut in study.data.get("shortcuts", ()):
        by_class.setdefault(shortcut["class"], []).append(f"{shortcut['by']} ({area(shortcut['auroc'])})")
    shortcuts = [
        f"{name} can be predicted without any recording. AUROC over all units, each alone: {', '.join(predictors)}. "
        f"The performance on {name} may be due to these, or to anything related to them, and may not transfer."
        for name, predictors in by_class.items()
    ]
    return [*_choice_caveats(finalists, summary), *_population_caveats(study, summary), *shortcuts]


def _difference(difference: Estimate | None) -> str:
    """Return a difference without its sign, with its interval, and whether it may be chance."""
    assert difference is not None, "the first baseline has a difference"
    gain = difference if difference.value >= 0 else difference.opposite
    if not gain.known:
        return f"the difference is {nats(gain.value)}; {NO_INTERVAL}"
    chance = ", so it may be chance" if gain.may_be_chance else ""
    return f"the difference is {nats(gain.value)} ({signed_interval(gain).replace('+', '')}){chance}"


def _correction(finalists: list[Scored], summary: EnsembleSummary) -> str:
    """Return what the correction adds, or why there is none."""
    selection, chosen_on = summary.result.selection, selected_folds(finalists)
    if selection:
        picking = f"picking {selection.kept:,} of {selection.configurations:,} configurations"
        amount = f"{signed(selection.optimism)} nats on {fold_list(selection.folds)}"
        if selection.optimism > 0:
            share = percent(selection.share)
            return f"Cross-fitted, plus the estimated optimism of {picking}: {amount}, {share} of the scored units."
        return f"Cross-fitted: the estimated optimism of {picking} is not above 0 ({amount}), and nothing is added."
    if not chosen_on:
        return "Not corrected: no table names a fold that its configuration was chosen on; imported ones cannot tell."
    if not summary.rows["fold"].isin(chosen_on).any():
        return f"Not corrected: no unit of {fold_list(chosen_on)}, where configurations were chosen, is scored."
    return (
        "Not corrected: the choice cannot be repeated, because there are no predictions of "
        f"{fold_list(chosen_on)} both by configurations that were kept and by others that were not."
    )


def _choice_caveats(finalists: list[Scored], summary: EnsembleSummary) -> list[str]:
    """Caveats on choices that used the scored rows: of the best single table, and of configurations."""
    result, folds = summary.result, selected_folds(finalists)
    sentences, difference = [], summary.best.difference
    if result.candidates == 1 and difference and difference.value == 0:
        sentences.append("There is a single table, and the ensemble predicts the same as this table.")
    elif result.candidates == 1:
        sentences.append(
            "There is a single table: the ensemble is this table as the pool changes it, by its temperature and its "
            "class bias. The difference between their scores is due to that, not to combining models."
        )
    else:
        sentence = "The best single table was picked in hindsight on the rows it is scored on: its score is optimistic."
        corrected = result.baselines.best_single_corrected
        if corrected is not None:
            sentence += f" Picked on drawn patients and scored on those not drawn, it is {nats(corrected)}."
        sentences.append(sentence)
    if not folds:
        return sentences
    selection, remedies = result.selection, ""
    if selection and selection.optimism > 0:
        later = [fold for fold in folds if fold not in selection.folds]
        remedies = " The selection-corrected score adds the estimate of this optimism"
        remedies += f" on {fold_list(selection.folds)}" if later else "."
        if later:
            remedies += f"; on {fold_list(later)} there is no estimate: only kept configurations were trained there."
    remedies += " The figures outside selection leave these rows out." if summary.outside else ""
    chosen = sum(bool(f.selected_on) for f in finalists)
    share = f"{int(summary.rows['fold'].isin(folds).sum()):,} of {len(summary.rows):,} units"
    return [
        *sentences,
        f"{chosen} of {len(finalists)} configurations were chosen by their score on {fold_list(folds)}, which "
        f"{'is' if len(folds) == 1 else 'are'} part of the cross-fitted population ({share}): "
        f"there the score is optimistic.{remedies}",
    ]


def _population_caveats(study: Study, summary: EnsembleSummary) -> list[str]:
    """Caveats on units and folds that the score does not cover, and on patients."""
    sentences, total, scored = [], len(study.units), summary.block.population.units
    empty = sorted(set(study.fold_numbers) - set(summary.rows["fold"]))
    if scored < total:
        lack = f"do not have {study.rule} and " if study.min_votes > 1 else ""
        sentences.append(
            f"{total - scored:,} of {total:,} units ({percent(1 - scored / total)}) {lack}are "
            "not scored; no score here covers them."
        )
    if empty:
        unit = f"unit with {study.rule}" if study.min_votes > 1 else "scored unit"
        sentences.append(f"No {unit} lies in {fold_list(empty)}: nothing was scored there.")
    if study.spaces and study.min_votes != study.search_min_votes:
        sentences.append(
            f"The ensemble and the tables are scored on {study.rule}, the study's own trials and learning curves on "
            f"{study.search_rule}: these are different populations, and their scores cannot be compared."
        )
    if not study.spaces and study.units["group_id"].nunique() == len(study.units):  # an imported study
        sentences.append(
            "Each unit counts as a patient of its own. If the source does not name the patients, a patient may be in "
            "several folds, and scores and standard errors are then optimistic."
        )
    patients = summary.block.population.groups
    if patients < FEW_PATIENTS:
        sentences.append(
            f"With {patients} scored patient{'' if patients == 1 else 's'}, differences and standard errors show that "
            "the pipeline runs, not which model is better."
        )
    return sentences
