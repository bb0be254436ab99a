"""The verdict: margins, differences with their errors, sentences and caveats."""

import numpy as np
import pandas as pd
import pytest

from hms_ray import files
from hms_ray.report import tables, words
from hms_ray.report.verdict import margin, read_verdict, selected_folds


def read(study):
    found = tables.read_study(study.folder)
    finalists = tables.read_finalists(study.folder, found)
    return found, finalists, read_verdict(study.folder, found, finalists)


def row_scores(study, trial):
    return study.task.row_scores(study.targets[study.kept], study.probs[trial][study.kept])


def test_no_ensemble_no_verdict(fake):
    assert read(fake().write())[2] is None


def test_margins_and_difference_are_those_of_the_files(complete):
    _, _, verdict = read(complete)
    content = files.read_json(complete.folder.ensemble)
    ours, best = content["kl_cross_fitted"], content["baselines"]["best_single"]
    assert verdict.block.lines[0].margin == pytest.approx((best - ours) / best)
    assert verdict.against_best[0] == pytest.approx(best - ours)
    gain = pd.Series(row_scores(complete, "eeg-0002") - verdict.rows["score"].to_numpy())
    by_patient = (gain - gain.mean()).groupby(complete.groups[complete.kept]).sum()
    variance = (by_patient**2).sum() * len(by_patient) / (len(by_patient) - 1) / len(gain) ** 2
    assert verdict.against_best[1] == pytest.approx(np.sqrt(variance))


def test_margin_has_a_sign():
    assert margin(0.2, 0.25) == pytest.approx(0.2) and margin(0.3, 0.25) == pytest.approx(-0.2)
    assert np.isnan(margin(0.1, 0.0))


def test_headline_names_what_beats_the_ensemble(fake):
    study = fake().write()
    study.add_ensemble(baselines={"best_single": 0.9, "best_single_trial": "gone", "mean": 0.0001, "prior": 2.0})
    sentence = words.headline(read(study)[2])
    assert "lower than the best single table." in sentence
    assert "Better still: plain mean of all 5 candidates, 0.00010." in sentence
    assert "prior" not in sentence


def test_headline_says_higher_when_the_ensemble_loses(fake):
    study = fake().write()
    study.add_ensemble(baselines={"best_single": 0.0001, "best_single_trial": "gone", "mean": 9.0, "prior": 9.0})
    assert "higher than the best single table" in words.headline(read(study)[2])


def test_one_member_is_not_called_better(fake):
    study = fake(strengths={"eeg-base": 2.0}).write().add_ensemble()
    found, finalists, verdict = read(study)
    assert "exactly what the best single table scores" in words.headline(verdict)
    assert "There is one table only" in words.caveats(found, finalists, verdict)[0]


def test_selection_is_owned_up_to(complete):
    found, finalists, verdict = read(complete)
    inside = int((complete.kept & (complete.folds == 0)).sum())
    caveat = words.caveats(found, finalists, verdict)[1]
    assert "3 of 5 configurations were chosen by their score on fold 0" in caveat
    assert f"({inside} of {complete.kept.sum()} units)" in caveat
    assert selected_folds(finalists) == [0]
    assert words.outside_sentence(finalists, verdict).startswith("On folds 1, 2, 3, 4 no configuration was chosen")


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
    assert "With 2 scored patients" in text and "Each unit counts as a patient of its own" in text


def test_another_population_than_the_searchs_is_named(fake):
    kept = {"units": 1, "groups": 40, "min_votes": 15}
    text = " ".join(words.caveats(*read(fake().write().add_ensemble(population=kept))))
    assert "scored on ≥ 15 votes, the study's own trials and learning curves on ≥ 10 votes" in text
