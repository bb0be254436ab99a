"""Scores side by side: every method's figures by hand, ours first, and the baselines' distance."""

from dataclasses import replace

import numpy as np
import pytest

from hms_ray.core.seeds import stream
from hms_ray.ensemble import baselines, methods, scores
from hms_ray.ensemble.nested import Fits, cross_fit
from hms_ray.ensemble.notes import member_losses

FAMILIES = ("a", "a", "b", "b")


def table_of(*arguments):
    """The rows of the table of methods as dicts."""
    return [row.model_dump() for row in scores.table(*arguments)]


@pytest.fixture(scope="module")
def scored(make_rows):
    """Weighted rows, the fits on them, and the table of methods with the tempered pool as ours."""
    rows = make_rows(families=FAMILIES, weight=np.tile([1.0, 2.0, 0.0], 16))
    fits = Fits(rows)
    return rows, fits, table_of(fits, scores.run(fits, "tempered"), stream(0, "scores"))


def test_every_method_has_a_row_and_ours_is_the_first(scored):
    _, _, table = scored
    assert [row["method"] for row in table] == ["tempered", *(n for n in methods.names() if n != "tempered")]


def test_two_levels_are_left_out_where_there_are_none(make_rows):
    fits = Fits(make_rows(n_groups=12))
    table = table_of(fits, scores.run(fits, "linear"), stream(0, "scores"))
    assert "two_level" not in [row["method"] for row in table]
    assert len(table) == len(methods.names()) - 1


def test_the_figures_are_those_of_each_methods_own_fit(scored):
    rows, fits, table = scored
    ours = rows.score(cross_fit(fits, "tempered").probs)
    for row in table:
        pool, nested = fits.chosen(row["method"]), cross_fit(fits, row["method"])
        assert row["score_in_sample"] == pytest.approx(rows.score(pool.predict(rows.probs)), rel=1e-13)
        assert row["score_cross_fitted"]["value"] == pytest.approx(rows.score(nested.probs), rel=1e-13)
        assert row["difference"]["value"] == pytest.approx(rows.score(nested.probs) - ours, abs=1e-13)
        assert row["members"] == (pool.weights > 0).sum()
        assert (row["gap"], row["gap_by_fold"]) == (pool.gap, nested.gap)


def test_intervals_hold_their_values_and_nothing_differs_from_itself(scored):
    *_, table = scored
    assert table[0]["difference"] == {"value": 0, "error": 0, "low": 0, "high": 0}
    for row in table:
        for estimate in (row["score_cross_fitted"], row["difference"]):
            assert estimate["low"] <= estimate["value"] <= estimate["high"]
    errors = {row["method"]: (row["score_cross_fitted"]["error"], row["difference"]["error"]) for row in table}
    assert errors["linear"][1] < errors["linear"][0] / 2, "two pools err on the same patients"


def test_baselines_are_scored_and_compared_on_the_same_rows(scored):
    rows, fits, _ = scored
    ours, losses = cross_fit(fits, "auto"), member_losses(rows)
    found = scores.baselines(rows, ours, losses, stream(0, "scores")).model_dump()
    singles = [rows.score(rows.probs[:, m]) for m in range(4)]
    assert found["best_single"] == pytest.approx(min(singles), rel=1e-13)
    assert found["best_single_trial"] == f"m{np.argmin(singles)}"
    assert found["mean"] == pytest.approx(rows.score(rows.probs.mean(1)), rel=1e-13)
    assert found["prior"] == pytest.approx(rows.score(baselines.prior(rows)), rel=1e-13)
    for name in ("best_single", "mean", "prior"):
        difference = found["differences"][name]
        assert difference["value"] == pytest.approx(found[name] - rows.score(ours.probs), abs=1e-13)
        assert difference["low"] <= difference["value"] <= difference["high"]
    assert found["best_single_corrected"] > found["best_single"]


def test_one_patient_has_values_and_no_intervals(make_rows):
    rows = make_rows(n_groups=6)
    rows = replace(rows, weight=(rows.groups == 2).astype(float))
    fits = Fits(rows)
    ours = scores.run(fits, "linear")
    [first, *_] = table_of(fits, ours, stream(0, "scores"))
    assert first["score_cross_fitted"] == {
        "value": pytest.approx(rows.score(ours.nested.probs)),
        "error": None,
        "low": None,
        "high": None,
    }
    found = scores.baselines(rows, ours.nested, member_losses(rows), stream(0, "scores")).model_dump()
    assert found["best_single_corrected"] is None
