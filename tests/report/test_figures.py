"""Figures: every datum is drawn, in the right order, and missing ones do no harm."""

import re

import numpy as np
import pandas as pd
import pytest

from hms_ray.report import figures, tables
from hms_ray.report.tables import Curve


def finalists_of(study):
    return tables.read_finalists(study.folder, tables.read_study(study.folder))


def trials_of(rows):
    """A trials table of (trial, number, state, score or estimate)."""
    table = pd.DataFrame(rows, columns=["trial", "number", "state", "figure"])
    stopped = table["state"] == "PRUNED"
    return table.assign(score=table["figure"].mask(stopped), estimate=table["figure"].where(stopped))


def heights(drawn):
    return [float(y) for y in re.findall(r'<circle cx="[^"]*" cy="([^"]*)"', drawn)]


def test_fold_scores_draws_a_dot_for_each_fold_and_a_tick_for_each_mean(complete):
    found = finalists_of(complete)
    drawn = figures.fold_scores(found, "title", "KL")
    assert len(re.findall(r"<title>fold \d: ", drawn)) == sum(len(f.by_fold) for f in found)
    assert drawn.count('class="mean"') == len(found)
    assert drawn.index("eeg-0002") < drawn.index("spec-base")


def test_history_marks_every_trial_by_its_state():
    rows = [("a-0", 0, "COMPLETE", 0.5), ("a-1", 1, "PRUNED", 0.6), ("a-2", 2, "FAIL", np.nan)]
    drawn = figures.history(trials_of(rows), "title", "KL")
    assert drawn.count('class="trial complete"') == drawn.count('class="trial pruned"') == 1
    assert drawn.count('class="trial fail cross"') == 1
    assert "a-0: 0.50000 (COMPLETE)" in drawn
    assert "a-1: about 0.60000 (PRUNED)" in drawn, "a stopped trial has no score, only an estimate"


def test_history_line_follows_the_best_complete_trial():
    rows = [("a", 0, "COMPLETE", 0.5), ("b", 1, "PRUNED", 0.1), ("c", 2, "COMPLETE", 0.7), ("d", 3, "COMPLETE", 0.3)]
    drawn = figures.history(trials_of(rows), "title", "KL")
    line = re.search(r'<path d="([^"]*)" class="best"', drawn).group(1)
    ys = [float(point.split()[1]) for point in re.split("[ML]", line) if point]
    dots = dict(zip("abcd", heights(drawn), strict=True))
    assert ys[0] == ys[1] == ys[2] == dots["a"] and ys[-1] == dots["d"]


def test_one_diverged_trial_does_not_flatten_the_others():
    values = [0.30, 0.31, 0.32, 0.33, 0.34, 0.35, 0.36, 0.37, 14.0]
    rows = [(f"a-{n}", n, "COMPLETE", v) for n, v in enumerate(values)]
    drawn = figures.history(trials_of(rows), "title", "KL")
    assert len(heights(drawn)) == 8 and max(heights(drawn)) - min(heights(drawn)) > 80
    assert "a-8: 14.00000" in drawn


@pytest.mark.parametrize("state", ["FAIL", "RUNNING", "PRUNED"])
def test_history_without_any_value(state):
    drawn = figures.history(trials_of([("a-0", 0, state, np.nan)]), "title", "KL")
    assert f'class="trial {state.lower()} cross"' in drawn and "nan" not in drawn


def test_learning_curve_has_a_line_a_fold_and_a_boundary_a_stage(complete):
    drawn = figures.learning_curve(Curve("eeg-base", complete.epochs()), "title", "KL")
    assert len(re.findall(r'class="thin s\d"', drawn)) == 2 * 5
    assert drawn.count('class="bold"') == 2 and drawn.count('class="stage"') == 1


def test_learning_curve_without_scored_rows_says_so(fake):
    study = fake(votes=np.full(360, 3))
    drawn = figures.learning_curve(Curve("eeg-base", study.epochs()), "title", "KL")
    assert "no scored rows in these folds" in drawn and "nan" not in drawn


def test_stage_starts_and_means_only_where_all_folds_are():
    rows = [(0, "a", 1, 1.0), (1, "a", 1, 3.0), (0, "b", 2, 5.0), (2, "a", 1, np.nan)]
    epochs = pd.DataFrame(rows, columns=["fold", "stage", "epoch", "score"])
    assert figures.stage_starts(epochs) == [2]
    assert figures.mean_curve(epochs, "score").to_dict() == {1: 2.0}


def test_calibration_draws_a_whisker_only_where_there_is_an_error():
    bins = pd.DataFrame({"predicted": [0.1, 0.5], "observed": [0.2, 0.4], "error": [0.01, np.nan], "units": [30, 31]})
    drawn = figures.calibration(bins, "a <b>", "title")
    assert drawn.count('class="whisker"') == 1 and len(heights(drawn)) == 2
    assert "a &lt;b&gt;" in drawn and "nan" not in drawn


def test_a_bar_is_as_long_as_its_share():
    assert 'width="60"' in figures.bar(0.2, 0.4)
