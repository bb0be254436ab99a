"""The figures as inline SVG: plain data in, markup out. The style sheet sets colours and fonts, this file sizes.

score: the name of the score, such as "KL".
"""

import math

import numpy as np
import pandas as pd
from markupsafe import Markup

from hms_ray.report._svg import Panel, Scale, dot, element, figure, legend, line, path, text
from hms_ray.report.tables import Curve, Scored

COLOURS = 8  # classes c0 ... c7 in the style sheet
MOST_DOT_ROWS = 40
FEW = 8  # values: quartiles of fewer are not used


def bar(value: float, largest: float) -> Markup:
    """Return a horizontal bar for a table cell, as long as value / largest."""
    length = 120 * value / largest if largest > 0 else 0.0
    mark = element("rect", x=0, y=2, width=length, height=10, rx=2, class_="bar")
    return element("svg", mark, viewBox="0 0 120 14", width=120, height=14, aria_hidden="true", class_="inline")


def fold_scores(finalists: list[Scored], title: str, score: str) -> Markup:
    """One row a table, the best on top: dots for the scores of folds, a tick for the mean. At most MOST_DOT_ROWS."""
    shown = [f for f in finalists if f.by_fold][:MOST_DOT_ROWS]
    folds = sorted({fold for f in shown for fold in f.by_fold})
    left, row = 20 + 6.6 * min(28, max((len(f.trial) for f in shown), default=0)), 22
    bottom = 34.0 + row * len(shown)
    x = Scale.around([s for f in shown for s in f.by_fold.values()], left, 885)
    parts = legend([(f"c{fold % COLOURS}", f"fold {fold}") for fold in folds], left + 5, 14, 62)
    for value, label in x.ticks(8):
        parts.append(line(x(value), 26, x(value), bottom, "rule"))
        parts.append(text(x(value), bottom + 15, label, anchor="middle"))
    parts.append(text(885, bottom + 31, f"{score} on the fold (lower is better)", "label", "end"))
    for i, finalist in enumerate(shown):
        y, scores = 40.0 + row * i, finalist.by_fold
        name = finalist.trial if len(finalist.trial) <= 28 else finalist.trial[:27] + "…"
        parts += [text(left - 10, y + 4, name, "name", "end"), line(left, y, 885, y, "rule")]
        parts.append(line(x(min(scores.values())), y, x(max(scores.values())), y, "span"))
        parts += [dot(x(s), y, 4, f"c{fold % COLOURS}", f"fold {fold}: {s:.5f}") for fold, s in scores.items()]
        parts.append(line(x(finalist.score), y - 8, x(finalist.score), y + 8, "mean"))
    return figure(900, bottom + 40, title, *parts)


def history(trials: pd.DataFrame, title: str, score: str) -> Markup:
    """Score of every trial of a space by its number; a line shows the best score of a COMPLETE trial so far.

    trials: trial, number, state, score, estimate. A stopped trial is a hollow dot at its estimate; trials with neither
    are crosses on the lower edge. Values beyond the outer fence (third quartile + 3 interquartile ranges) are triangles
    on the upper edge.
    """
    trials = trials.assign(height=trials["score"].where(trials["state"] == "COMPLETE", trials["estimate"]))
    values = trials["height"].to_numpy(dtype=float)
    finite, fence = values[np.isfinite(values)], math.inf
    if len(finite) >= FEW:
        low, high = np.quantile(finite, [0.25, 0.75])
        fence = float(high + 3 * (high - low))
    panel = Panel(Scale.around([*trials["number"], 0], 52, 625), Scale.around(values[values <= fence], 202, 26))
    parts = panel.grid("trial number", f"{score} on the trial folds", whole_x=True)
    done = trials[(trials["state"] == "COMPLETE") & trials["score"].notna()].sort_values("number")
    points: list[tuple[float, float]] = []  # a staircase of the best score so far
    for number, best in zip(done["number"], done["score"].cummin(), strict=True):
        points += [(panel.x(number), points[-1][1])] if points else []
        points.append((panel.x(number), panel.y(best)))
    points += [(panel.x(trials["number"].max()), points[-1][1])] if points else []
    parts.append(path(points, "best"))
    for name, number, state, height in trials[["trial", "number", "state", "height"]].itertuples(
        index=False, name=None
    ):
        kind, x = f"trial {state.lower()}", panel.x(number)
        words = f"{name}: {'' if state == 'COMPLETE' else 'about '}{height:.5f} ({state})"
        if not math.isfinite(height):
            cross, title_of = f"M{x - 3:.1f} {panel.y.start - 9}l6 6m0-6l-6 6", element("title", f"{name}: {state}")
            parts.append(element("path", title_of, d=cross, class_=f"{kind} cross"))
        elif height > fence:
            parts.append(element("path", element("title", words), d=f"M{x:.1f} {panel.y.end}l4 7h-8z", class_=kind))
        else:
            parts.append(dot(x, panel.y(height), 3.5, kind, words))
    return figure(640, 238, title, *parts)


def learning_curve(curve: Curve, title: str, score: str) -> Markup:
    """Held-out score above training loss by epoch: a thin line a fold, a bold line for their mean, dashes by stage."""
    epochs = curve.epochs
    x = Scale.around(epochs["epoch"], 46, 330)
    parts = _curve_panel(epochs, "score", Panel(x, Scale.around(epochs["score"], 140, 26)), f"held-out {score}", "")
    loss = Panel(x, Scale.around(epochs["train_loss"], 254, 176))
    parts += _curve_panel(epochs, "train_loss", loss, "training loss", "epoch")
    for boundary in stage_starts(epochs):
        parts.append(line(x(boundary - 0.5), 26, x(boundary - 0.5), 254, "stage"))
    return figure(340, 290, title, *parts)


def calibration(bins: pd.DataFrame, name: str, title: str) -> Markup:
    """Mean predicted share against mean target share of one class; whiskers are two standard errors each way."""
    top = max(0.05, float(np.nanmax([*bins["predicted"], *(bins["observed"] + 2 * bins["error"].fillna(0)), 0])))
    panel = Panel(Scale(0, top * 1.05, 42, 305), Scale(0, top * 1.05, 212, 30))
    parts = panel.grid("mean predicted share", "")
    parts.append(text(42, 18, name, "name"))
    parts.append(line(panel.x(0), panel.y(0), panel.x(top), panel.y(top), "diagonal"))
    columns = bins[["predicted", "observed", "error", "units"]]
    for predicted, observed, error, units in columns.itertuples(index=False, name=None):
        x, y = panel.x(predicted), panel.y(observed)
        if math.isfinite(error):
            low, high = panel.y(max(observed - 2 * error, 0)), panel.y(observed + 2 * error)
            parts.append(line(x, low, x, high, "whisker"))
        parts.append(dot(x, y, 3.5, "c0", f"predicted {predicted:.3f}, observed {observed:.3f}, {units} units"))
    return figure(320, 248, title, *parts)


def stage_starts(epochs: pd.DataFrame) -> list[int]:
    """Return the first epoch of every stage except the first stage."""
    first = epochs.groupby("stage", sort=False)["epoch"].min().sort_values()
    return [int(epoch) for epoch in first.iloc[1:]]


def mean_curve(epochs: pd.DataFrame, column: str) -> pd.Series:
    """Return the mean over folds by epoch; only epochs that no fold with values lacks, so that it does not jump."""
    known = epochs[epochs[column].notna()]
    by_epoch = known.groupby("epoch")[column].agg(["mean", "size"])
    return by_epoch["mean"][by_epoch["size"] == known["fold"].nunique()]


def _curve_panel(epochs: pd.DataFrame, column: str, panel: Panel, y_label: str, x_label: str) -> list[Markup]:
    parts = panel.grid(x_label, y_label, (6 if x_label else 0, 4), whole_x=True)
    for fold, rows in epochs.sort_values("epoch").groupby("fold"):
        points = [(panel.x(e), panel.y(v)) for e, v in zip(rows["epoch"], rows[column], strict=True)]
        parts.append(path(points, f"thin s{int(str(fold)) % COLOURS}"))
    if epochs[column].isna().all():
        return [*parts, text(panel.x.start + 8, (panel.y.start + panel.y.end) / 2, "no scored rows in these folds")]
    mean = mean_curve(epochs, column)
    points = [(panel.x(e), panel.y(v)) for e, v in zip(mean.index, mean, strict=True)]
    parts.append(path(points, "bold"))
    if len(mean) == 1:  # a line of one point is not visible
        parts.append(dot(panel.x(mean.index[0]), panel.y(mean.iloc[0]), 3, "best-dot", f"{mean.iloc[0]:.5f}"))
    return parts
