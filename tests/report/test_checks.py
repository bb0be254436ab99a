"""Each check holds on a true study, and fails on exactly the fault it is for."""

from dataclasses import replace

import pandas as pd
import pytest

from hms_ray.core import files
from hms_ray.report import tables
from hms_ray.report.checks import run_checks
from hms_ray.report.summary import read_summary


def failed(study, trials=None):
    found = tables.read_study(study.folder)
    finalists = tables.read_finalists(study.folder, found)
    trials = pd.DataFrame(columns=["trial", "state"]) if trials is None else trials
    checks = run_checks(found, finalists, read_summary(study.folder, found), trials)
    return [(check.rule, check.detail) for check in checks if not check.passed]


def one(faults, rule):
    assert len(faults) == 1, faults
    assert rule in faults[0][0]
    return faults[0][1]


def test_a_true_study_passes_all_of_them(complete, fake):
    assert failed(complete) == []
    assert failed(fake("no ensemble").write()) == []
    assert failed(fake("nothing", strengths={}).write()) == []


def test_an_ensemble_that_claims_too_much(complete):
    complete.add_ensemble(score_cross_fitted=0.2)
    assert "stored 0.2000000" in one(failed(complete), "have the score in ensemble.json")


def test_a_table_that_came_after_the_ensemble(complete):
    complete.table("spec-0009", complete.probs["spec-base"]).write(complete.folder.oof("spec-0009"))
    assert one(failed(complete), "fitted to the current tables and folds") == "5 tables when it was fitted, 6 now"


def test_a_member_whose_table_is_gone(complete):
    complete.folder.oof("spec-base").unlink()
    assert "no table of member spec-base" in one(failed(complete), "fitted to the current tables and folds")


def test_a_best_single_that_is_not_the_best(complete):
    content = files.read_json(complete.folder.ensemble)
    complete.add_ensemble(baselines=content["baselines"] | {"best_single": 0.5, "best_single_trial": "spec-base"})
    (score, detail), (difference, _) = failed(complete)
    assert score == "The best single is the best table of the study" and "spec-base stored 0.5" in detail
    assert difference.startswith("The difference to the best single")


@pytest.mark.parametrize("change", [{"error": 0.02}, {"low": 0.9}, {"value": 0.3}])
def test_an_interval_that_is_not_the_scores(complete, change):
    interval = files.read_json(complete.folder.ensemble)["interval"]
    complete.add_ensemble(interval=interval | change)
    assert "standard error stored" in one(failed(complete), "The interval contains the score of the predictions")


@pytest.mark.parametrize("change", [{"error": 0.02}, {"value": 0.3}])
def test_a_difference_that_is_not_the_tables(complete, change):
    baselines = files.read_json(complete.folder.ensemble)["baselines"]
    best = baselines["differences"]["best_single"] | change
    complete.add_ensemble(baselines=baselines | {"differences": baselines["differences"] | {"best_single": best}})
    assert "standard error stored" in one(failed(complete), "The difference to the best single")


def test_metrics_that_are_not_the_predictions(complete):
    metrics = files.read_json(complete.folder.ensemble)["metrics"]
    rule = "Metrics, and scores by number of votes, are those of the predictions"
    complete.add_ensemble(metrics=metrics | {"accuracy": 0.99, "macro_f1": None})
    assert one(failed(complete), rule) == "15 figures; different: accuracy, macro_f1"
    first, *others = metrics["score_by_min_votes"]
    complete.add_ensemble(metrics=metrics | {"score_by_min_votes": [first | {"units": 1, "ensemble": 0.2}, *others]})
    found = one(failed(complete), rule)
    assert found.endswith("different: number of all units, score of all units")


def test_metrics_at_thresholds_that_are_not_the_predictions(sounds):
    assert failed(sounds) == []
    metrics = files.read_json(sounds.folder.ensemble)["metrics"]
    rule = "Metrics are those of the predictions"
    sounds.add_ensemble(metrics=metrics | {"thresholded": metrics["thresholded"] | {"macro_f1": 0.99}})
    assert one(failed(sounds), rule).endswith("different: macro_f1 at thresholds")
    changed = {fold: [0.99] * 3 for fold in metrics["thresholds"]}
    sounds.add_ensemble(metrics=metrics | {"thresholds": changed})
    assert "accuracy at thresholds" in one(failed(sounds), rule)
    sounds.add_ensemble(metrics=metrics | {"macro_auroc": 0.5})
    assert one(failed(sounds), rule).endswith("different: macro_auroc")


def test_a_plain_baseline_that_is_not_what_is_said_of_it(sounds):
    rule = "The plain baseline has the score and the metrics in ensemble.json"
    baselines = files.read_json(sounds.folder.ensemble)["baselines"]
    sounds.add_ensemble(baselines=baselines | {"plain": 0.1})
    assert one(failed(sounds), rule).endswith("different: score")
    sounds.add_ensemble()
    sounds.folder.baseline.unlink()
    assert one(failed(sounds), rule) == "only its figures are present"


def test_a_plain_baseline_that_came_after_the_ensemble(complete):
    complete.table("plain", complete.probs["spec-base"]).write(complete.folder.baseline)
    assert "only its predictions are present" in one(failed(complete), "The plain baseline")


@pytest.mark.parametrize("where", ["duality_gap", "gap_by_fold"])
def test_an_open_certificate_has_to_be_owned_up_to(complete, where):
    complete.add_ensemble(**{where: 3e-6})
    assert one(failed(complete), "duality gap").endswith("largest gap 3.0e-6, limit 1e-09; a note on it is missing")
    complete.add_ensemble(
        **{where: 3e-6}, notes=["weights are not certified: the duality gap is 3e-06, not below 1e-09"]
    )
    assert failed(complete) == []


def test_a_table_of_a_trial_that_was_stopped(complete):
    states = {"eeg-0002": "COMPLETE", "eeg-0005": "PRUNED", "spec-0001": "FAIL", "spec-0009": "PRUNED"}
    trials = pd.DataFrame(states.items(), columns=["trial", "state"])
    found = one(failed(complete, trials), "No table is of a trial that was stopped or failed")
    assert found == "3 tables of trials; not complete: eeg-0005 (PRUNED), spec-0001 (FAIL)"
    assert failed(complete, trials.assign(state="COMPLETE")) == []


def test_a_patient_in_two_folds(complete):
    table = files.read_table(complete.folder.folds)
    files.write_table(complete.folder.folds, table.assign(fold=[1, *table["fold"][1:]]))
    assert one(failed(complete), "more than one fold") == "60 patients, 1 of them in several folds"


def test_recordings_that_were_not_measured(complete):
    complete.add_quality(eeg={}, spectrogram={})
    assert failed(complete) == []
    table = files.read_table(complete.folder.quality)
    files.write_table(complete.folder.quality, table.iloc[1:])
    assert one(failed(complete), "every unit were measured") == "eeg: 359 of 360 units; spectrogram: 360 of 360 units"
    files.write_table(complete.folder.quality, pd.concat([table, table.iloc[:1]]))
    assert one(failed(complete), "every unit were measured").startswith("eeg: 361 of 360 units")


@pytest.mark.parametrize("field", ["data_fingerprint", "folds_fingerprint"])
def test_a_table_of_other_data_or_folds(complete, field):
    table = complete.table("eeg-base", complete.probs["eeg-base"])
    replace(table, **{field: "0" * 16}).write(complete.folder.oof("eeg-base"))
    assert one(failed(complete), "made from this study").endswith("others in eeg-base")


def test_a_table_of_fewer_units(complete):
    path = complete.folder.oof("spec-base")
    table = files.read_table(path)
    kept = table[table["unit_id"] != table.loc[table["votes"] >= 10, "unit_id"].iloc[0]]
    files.write_table(path, pd.DataFrame(kept), files.read_metadata(path))
    assert "spec-base" in one(failed(complete), "same units")
