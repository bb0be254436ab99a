"""Numbers and findings in words: one format for each kind of number, one sentence for each finding and caveat."""

import math
from collections.abc import Mapping
from decimal import ROUND_CEILING, Context, Decimal
from typing import Any

import yaml

from hms_ray.report.tables import Scored, Study
from hms_ray.report.verdict import Verdict, selected_folds

NOTHING = "\u2013"  # an en dash
FEW_PATIENTS = 30
BEYOND_CHANCE = 2.0  # standard errors


def kl(value: float | None) -> str:
    """Five decimals, which is finer than any standard error seen; a dash for nothing."""
    return NOTHING if value is None or math.isnan(value) else f"{value:.5f}"


def percent(share: float | None) -> str:
    """A share as a percentage with one decimal."""
    return NOTHING if share is None or math.isnan(share) else f"{100 * share:.1f}\u00a0%"


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
    return one_line(content)


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


def headline(verdict: Verdict) -> str:
    """Say what the ensemble is worth beside the best single table, and name whatever scores better than it."""
    best = verdict.block.lines[0]
    start = f"The ensemble scores {kl(verdict.block.ensemble)}"
    if best.margin == 0:
        return f"{start}, exactly what the best single table scores.{_better(verdict)}"
    return f"{start}, {margin(best.margin)} than the best single table{_weigh(verdict.against_best)}.{_better(verdict)}"


def caveats(study: Study, finalists: list[Scored], verdict: Verdict) -> list[str]:
    """Say what the figures do not mean; only what applies to this study."""
    found = [*_hindsight(verdict), *_selection(finalists, verdict)]
    return [*found, *_left_out(study, verdict), *_patients(study, verdict)]


def outside_sentence(finalists: list[Scored], verdict: Verdict) -> str:
    """Explain the figures on the folds that nothing was chosen on, or why there are none."""
    chosen_on = selected_folds(finalists)
    if verdict.outside:
        return (
            f"On {fold_list(verdict.content['outside_selection']['folds'])} no configuration was chosen: these rows "
            "took no part in picking hyper-parameters, so nothing but the weights, which are cross-fitted, was fitted."
        )
    if not chosen_on:
        return (
            "No table names a fold that its configuration was chosen on, so there is no subset to set apart. "
            "For imported tables this is what their files say, not something that was seen here."
        )
    return f"Configurations were chosen on {fold_list(chosen_on)}; no scored rows lie outside these folds."


def _weigh(against_best: tuple[float, float] | None) -> str:
    """Set a difference beside its standard error, if it has one."""
    if against_best is None or math.isnan(against_best[1]):
        return ""
    gain, error = against_best
    beyond = "more" if abs(gain) > BEYOND_CHANCE * error else "not more"
    finding = f"{beyond} than two standard errors" + ("" if beyond == "more" else ", so it may be chance")
    return f": a difference of {kl(abs(gain))} ± {kl(error)} (standard error, by patient), {finding}"


def _better(verdict: Verdict) -> str:
    better = [line for line in verdict.block.lines[1:] if line.margin < 0]
    return "".join(f" Better still: {line.name[0].lower()}{line.name[1:]}, {kl(line.score)}." for line in better)


def _hindsight(verdict: Verdict) -> list[str]:
    if verdict.content["candidates"] == 1:
        return ["There is one table only, so the ensemble is that table."]
    return ["The best single table was picked in hindsight on the very rows it is scored on: its figure is optimistic."]


def _selection(finalists: list[Scored], verdict: Verdict) -> list[str]:
    folds = selected_folds(finalists)
    if not folds:
        return []
    chosen = sum(bool(f.selected_on) for f in finalists)
    share = f"{int(verdict.rows['fold'].isin(folds).sum()):,} of {len(verdict.rows):,} units"
    return [
        f"{chosen} of {len(finalists)} configurations were chosen by their score on {fold_list(folds)}, which "
        f"{'is' if len(folds) == 1 else 'are'} part of the cross-fitted population ({share}): "
        "there the score is optimistic. The figures outside selection leave these rows out."
    ]


def _left_out(study: Study, verdict: Verdict) -> list[str]:
    """Name units, folds and figures that the ensemble's score does not speak for."""
    found, total, scored = [], len(study.units), verdict.block.population.units
    empty = sorted(set(study.fold_numbers) - set(verdict.rows["fold"]))
    if scored < total:
        found.append(
            f"{total - scored:,} of {total:,} units ({percent(1 - scored / total)}) do not have {study.rule} and are "
            "not scored; no score here speaks for them."
        )
    if empty:
        found.append(f"No unit with {study.rule} lies in {fold_list(empty)}: nothing was scored there.")
    if study.spaces and study.min_votes != study.search_min_votes:
        found.append(
            f"The ensemble and the tables are scored on {study.rule}, the study's own trials and learning curves on "
            f"{study.search_rule}: these are different populations, and their scores cannot be compared."
        )
    return found


def _patients(study: Study, verdict: Verdict) -> list[str]:
    found, groups = [], verdict.block.population.groups
    if study.units["group_id"].nunique() == len(study.units):
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
