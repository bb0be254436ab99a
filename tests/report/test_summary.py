"""The verdict: margins, differences with their errors, sentences and caveats."""

from dataclasses import replace

import numpy as np
import pytest

from hms_ray.core import files
from hms_ray.ensemble.bootstrap import Estimate
from hms_ray.report import tables, words
from hms_ray.report.summary import margin, read_summary, selected_folds

TWO = {"eeg-0002": 2.6, "eeg-base": 1.9}


def read(study):
    found = tables.read_study(study.folder)
    finalists = tables.read_finalists(study.folder, found)
    return found, finalists, read_summary(study.folder, found)


def apart(value, low, high):
    return {"value": value, "error": 0.01, "low": low, "high": high}


def baselines(study, scores=None, apart=None):
    """The study's baselines with some other scores and differences, as an argument of add_ensemble."""
    content = files.read_json(study.folder.ensemble)["baselines"]
    return {"baselines": content | (scores or {}) | {"differences": content["differences"] | (apart or {})}}


def test_no_ensemble_no_verdict(fake):
    assert read(fake().write())[2] is None


def test_margins_and_differences_are_those_of_the_file(complete):
    _, _, summary = read(complete)
    content = files.read_json(complete.folder.ensemble)
    ours, best = content["score_cross_fitted"], content["baselines"]["best_single"]
    assert summary.best.margin == pytest.approx((best - ours) / best)
    assert vars(summary.best.difference) == content["baselines"]["differences"]["best_single"]
    assert [line.score for line in summary.block.lines] == [
        content["baselines"][name] for name in ("best_single", "best_single_corrected", "mean", "prior")
    ]


def test_the_other_methods_follow_by_cross_fitted_score(complete):
    content = files.read_json(complete.folder.ensemble)["methods"]
    pools = read(complete)[2].pools
    assert (pools[0].method, pools[0].difference) == (content[0]["method"], None)
    scores = [pool.cross_fitted.value for pool in pools[1:]]
    assert scores == sorted(method["score_cross_fitted"]["value"] for method in content[1:])


def test_a_difference_seen_from_the_other_side():
    difference = Estimate(-0.1, 0.05, -0.2, 0.01)
    assert difference.opposite == Estimate(0.1, 0.05, -0.01, 0.2) and difference.may_be_chance
    alone = Estimate(-0.1, None, None, None)
    assert alone.opposite.value == 0.1 and not alone.opposite.known and not alone.may_be_chance


def test_margin_has_a_sign():
    assert margin(0.2, 0.25) == pytest.approx(0.2) and margin(0.3, 0.25) == pytest.approx(-0.2)
    assert np.isnan(margin(0.1, 0.0))


def test_headline_states_score_and_difference_with_intervals(complete):
    content = files.read_json(complete.folder.ensemble)
    sentence = words.headline(read(complete)[2])
    score, best = content["interval"], content["baselines"]["differences"]["best_single"]
    added = content["score_selection_corrected"] - score["value"]
    value, low, high = (score[key] + added for key in ("value", "low", "high"))
    start = (
        f"The ensemble scores {value:.5f} (95\u00a0% interval {low:.5f} to {high:.5f}), including {added:.5f} for the "
    )
    assert sentence.startswith(f"{start}choice of its configurations. Without this correction it is ")
    assert f"the difference is {best['value']:.5f} ({best['low']:.5f} to {best['high']:.5f})." in sentence
    assert "chance" not in sentence


def test_headline_owns_up_to_chance_where_the_interval_holds_0(complete):
    complete.add_ensemble(**baselines(complete, apart={"best_single": apart(0.001, -0.0005, 0.0025)}))
    sentence = words.headline(read(complete)[2])
    assert "the difference is 0.00100 (\u22120.00050 to 0.00250), so it may be chance." in sentence


def test_headline_names_what_beats_the_ensemble(complete):
    beaten = {"mean": apart(-0.3, -0.4, -0.2)}
    complete.add_ensemble(**baselines(complete, {"best_single": 0.9, "mean": 0.0001, "prior": 2.0}, beaten))
    sentence = words.headline(read(complete)[2])
    assert "lower than the best single table: the difference is" in sentence
    better = "plain mean of all 5 candidates, 0.00010 (the difference is 0.30000 (0.20000 to 0.40000))"
    assert sentence.endswith(f" Better still: {better}.")


def test_headline_says_higher_when_the_ensemble_loses(complete):
    lost = {"best_single": apart(-0.3, -0.4, -0.2)}
    complete.add_ensemble(**baselines(complete, {"best_single": 0.0001}, lost))
    sentence = words.headline(read(complete)[2])
    assert "higher than the best single table: the difference is 0.30000 (0.20000 to 0.40000)" in sentence


def test_one_patient_has_no_interval(fake):
    study = fake(patients=1, units_a_patient=6, votes=np.full(6, 12), k=1).write()
    summary = read(study.add_ensemble())[2]
    assert "too few patients for an interval" in words.headline(summary) and "95" not in words.headline(summary)
    assert words.interval(summary.result.interval) == "too few patients for an interval"


def test_one_member_is_not_called_better(fake):
    study = fake(strengths={"eeg-base": 2.0}).write().add_ensemble()
    found, finalists, summary = read(study)
    assert "exactly the score of the only table" in words.headline(summary)
    said = words.caveats(found, finalists, summary)[0]
    assert said == "There is a single table, and the ensemble predicts the same as this table."


def test_one_member_that_the_pool_changes_is_not_called_that_table(fake):
    study = fake(strengths={"eeg-base": 2.0}).write().add_ensemble()
    better = baselines(study, {"best_single": 0.9}, {"best_single": apart(0.3, 0.2, 0.4)})
    found, finalists, summary = read(study.add_ensemble(**better))
    assert "% lower than the only table: the difference is 0.30000" in words.headline(summary)
    said = " ".join(words.caveats(found, finalists, summary))
    assert "this table as the pool changes it" in said
    assert "predicts the same as this table" not in said and "hindsight" not in said
    assert [line.name for line in summary.block.lines] == ["The only table: eeg-base", "Class prior"]


def test_an_optimism_below_0_corrects_nothing(complete):
    selection = files.read_json(complete.folder.ensemble)["selection"] | {"optimism": -0.002}
    earlier = files.read_json(complete.folder.ensemble)["score_cross_fitted"] - 0.001  # as earlier versions wrote it
    found, finalists, summary = read(complete.add_ensemble(selection=selection, score_selection_corrected=earlier))
    row = words.scores_side_by_side(finalists, summary)[0]
    assert row.score == summary.block.ensemble == summary.result.leading.value
    assert "is not above 0 (\u22120.00200 nats on fold 0), and nothing is added" in row.meaning
    assert "is chance, and is not applied" in words.correction_sentence(found, summary)
    assert "adds the estimate of this optimism" not in " ".join(words.caveats(found, finalists, summary))


def test_three_scores_side_by_side(complete):
    found, finalists, summary = read(complete)
    content = files.read_json(complete.folder.ensemble)
    rows = words.scores_side_by_side(finalists, summary)
    keys = ("score_selection_corrected", "score_cross_fitted", "score_in_sample")
    assert [row.score for row in rows] == pytest.approx([content[key] for key in keys], abs=1e-15)
    assert [row.interval is None for row in rows] == [False, True, True]
    added = content["score_selection_corrected"] - content["score_cross_fitted"]
    assert rows[0].interval.low == pytest.approx(content["interval"]["low"] + added) and added > 0
    assert all(row.population == summary.block.population for row in rows)
    said, share = rows[0].meaning, content["selection"]["share"]
    assert "the estimated optimism of picking 3 of 12 configurations: +0.00345 nats on fold 0" in said
    assert words.percent(share) in said
    explained = words.correction_sentence(found, summary)
    assert "as in BBC-CV" in explained and f"so {0.00345 * share:+.5f} in the score of all" in explained


def uncorrected(study, **changes):
    found, finalists, summary = read(study.add_ensemble(selection=None, score_selection_corrected=None, **changes))
    assert words.correction_sentence(found, summary) == ""
    first, row, _ = words.scores_side_by_side(finalists, summary)
    assert first.score == summary.result.leading.value == summary.block.ensemble, "the cross-fitted score leads"
    assert row.score is None
    return row.meaning


def test_why_a_score_is_not_corrected(complete, fake):
    assert "cannot be repeated" in uncorrected(complete)
    assert "no table names a fold" in uncorrected(fake("foreign", foreign=True).write())
    nobody = fake("nobody", strengths=TWO, votes=np.where(np.arange(360) % 30 < 6, 3, 12)).write()
    assert "no unit of fold 0, where configurations were chosen, is scored" in uncorrected(nobody)


def test_selection_is_owned_up_to(complete):
    found, finalists, summary = read(complete)
    inside = int((complete.kept & (complete.folds == 0)).sum())
    caveat = words.caveats(found, finalists, summary)[1]
    assert "3 of 5 configurations were chosen by their score on fold 0" in caveat
    assert f"({inside} of {complete.kept.sum()} units)" in caveat
    assert "The selection-corrected score adds" in caveat and "The figures outside selection leave" in caveat
    assert selected_folds(finalists) == [0]
    assert words.outside_sentence(finalists, summary).startswith("On folds 1, 2, 3, 4 no configuration was chosen")


def test_folds_on_which_rounds_chose_are_told_apart_from_those_that_the_correction_is_of(complete):
    found, finalists, summary = read(complete)
    finalists = [replace(finalist, selected_on=(0, 1, 3)) for finalist in finalists]
    caveat = words.caveats(found, finalists, summary)[1]
    assert "were chosen by their score on folds 0, 1, 3, which are part of" in caveat
    assert (
        "adds the estimate of this optimism on fold 0; on folds 1, 3 there is no estimate: only kept configurations "
        "were trained there. The figures outside" in caveat
    )


def test_all_folds_selected_on_leaves_nothing_outside(complete, fake):
    _, finalists, _ = read(complete)
    bare = read(complete.add_ensemble(outside_selection=None))[2]
    assert "no scored rows lie outside" in words.outside_sentence(finalists, bare)
    foreign = read(fake("foreign", foreign=True).write().add_ensemble())
    assert words.outside_sentence(foreign[1], foreign[2]).startswith("No table names a fold")


def test_small_and_empty_parts_are_named(fake):
    study = fake(patients=3, units_a_patient=1, votes=np.array([3, 12, 15]), k=3, strengths={"eeg-base": 2.0})
    text = " ".join(words.caveats(*read(study.write().add_ensemble())))
    assert "1 of 3 units (33.3\u00a0%) do not have ≥ 10 votes" in text
    assert "No unit with ≥ 10 votes lies in fold 0" in text
    assert "With 2 scored patients" in text


def test_another_population_than_the_searchs_is_named(fake):
    kept = {"units": 1, "groups": 40, "min_votes": 15}
    text = " ".join(words.caveats(*read(fake().write().add_ensemble(population=kept))))
    assert "scored on ≥ 15 votes, the study's own trials and learning curves on ≥ 10 votes" in text
