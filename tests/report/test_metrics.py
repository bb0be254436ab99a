"""The metrics of the page: those of the task, each beside its population."""

import html
import re

import numpy as np
import pytest

from hms_ray.core import files
from hms_ray.report.metrics import MOST_COMPARED
from hms_ray.report.page import write_report


@pytest.fixture
def section(tmp_path, no_trials):
    """section(study) -> the words of the page's metrics."""

    def written(study):
        text = write_report(study.folder, no_trials, tmp_path / "out").read_text()
        found = re.search(r'<section id="metrics">.*?</section>', text, re.S).group(0)
        return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", found)))

    return written


def metrics_of(study, probs):
    return study.task.metrics(study.targets[study.kept], probs[study.kept])


def blend_of(study):
    content = files.read_json(study.folder.ensemble)
    return sum(member["weight"] * study.probs[member["trial"]] for member in content["members"])


def everyone(study):
    return f"≥ 10 votes · {study.kept.sum()} units · {len(set(study.groups[study.kept]))} patients"


def test_metrics_of_the_ensemble_are_the_tasks_and_name_their_population(complete, section):
    found, text = metrics_of(complete, blend_of(complete)), section(complete)
    assert f"of the ensemble, cross-fitted · {everyone(complete)}" in text
    entropy = found.log_loss - found.score
    assert f"Log loss {found.log_loss:.5f} Cross-entropy with the targets: the KL plus the targets' own entropy" in text
    assert f"own entropy, {entropy:.5f}." in text
    assert f"Accuracy {100 * found.accuracy:.1f} %" in text
    assert f"Macro F1 {100 * found.macro_f1:.1f} %" in text and "Micro F1" not in text
    assert f"Macro AUROC {found.macro_auroc:.3f} Mean over classes" in text and "at thresholds" not in text
    assert f"Calibration error {100 * found.calibration_error:.1f} %" in text


def test_the_score_by_number_of_votes_stands_with_the_population_of_every_row(complete, section):
    text, blend = section(complete), blend_of(complete)
    for n, rule in ((1, "all units"), (5, "≥ 5 votes"), (10, "≥ 10 votes the study's score"), (15, "≥ 15")):
        rows = complete.votes >= n
        size = f"{rows.sum()} {len(set(complete.groups[rows]))}"
        row = f"{rule} votes {size}" if n == 15 else f"{rule} {size}"
        assert f"{row} {complete.score(blend, rows):.5f} " in text
    assert "different populations, whose scores cannot be compared with each other" in text
    assert f"The study's score is the marked row, {everyone(complete)}." in text
    best = files.read_json(complete.folder.ensemble)["baselines"]["best_single_trial"]
    assert f"Best single: {best}, which is the best on the marked row" in text


def test_units_that_nothing_was_fitted_on_are_owned_up_to_where_there_are_any(complete, fake, section):
    said = "no pool and no class prior was fitted on them: these were fitted on units with ≥ 10 votes only"
    assert said in section(complete)
    many = fake("many votes", votes=np.tile([12, 16], 180)).write().add_ensemble()
    content = files.read_json(many.folder.ensemble)
    rows = [row for row in content["metrics"]["score_by_min_votes"] if row["min_votes"] >= 10]
    many.add_ensemble(metrics=content["metrics"] | {"score_by_min_votes": rows})
    text = section(many)
    assert "fitted on" not in text and "≥ 15 votes 180" in text


def test_one_population_alone_needs_no_table_of_several(complete, section):
    metrics = files.read_json(complete.folder.ensemble)["metrics"]
    rows = [row for row in metrics["score_by_min_votes"] if row["min_votes"] == 10]
    complete.add_ensemble(metrics=metrics | {"score_by_min_votes": rows})
    text = section(complete)
    assert "By number of votes" not in text and "Accuracy" in text


def test_the_ensemble_and_the_best_tables_stand_side_by_side(complete, section):
    text = section(complete)
    for name, probs in (("the ensemble, cross-fitted", blend_of(complete)), *complete.probs.items()):
        found = metrics_of(complete, probs)
        shares = " ".join(f"{100 * x:.1f} %" for x in (found.accuracy, found.macro_f1, found.calibration_error))
        assert f"{name} {found.score:.5f} {shares} {found.macro_auroc:.3f}" in text


def test_only_the_best_of_many_tables_are_compared(fake, section):
    strengths = {f"eeg-{n:04d}": 1 + 0.2 * n for n in range(MOST_COMPARED + 2)}
    text = section(fake(strengths=strengths).write().add_ensemble())
    named = re.findall(r"eeg-\d{4} 0\.\d{5}", text)
    assert len(named) == MOST_COMPARED and "at most 10 · ≥ 10 votes" in text


def test_without_an_ensemble_the_best_table_has_metrics(fake, section):
    study = fake().write()
    best = min(study.probs, key=lambda trial: study.score(study.probs[trial], study.kept))
    text = section(study)
    assert f"of the best table, {best} · {everyone(study)}" in text
    assert f"Accuracy {100 * metrics_of(study, study.probs[best]).accuracy:.1f} %" in text
    assert "By number of votes" not in text and "Tables with the lowest KL, at most 10" in text


def test_without_scored_units_there_are_no_metrics(fake, no_trials, tmp_path):
    study = fake(votes=np.full(360, 2)).write()
    text = write_report(study.folder, no_trials, tmp_path / "out").read_text()
    assert 'id="metrics"' not in text and "#metrics" not in text and "Accuracy" not in text


def test_classes_without_f1_are_named(fake, section):
    study = fake(votes=np.full(360, 12))
    study.targets = np.eye(6)[np.zeros(360, int)]
    study.truth = np.tile([3.0, 0, 0, 0, 0, -60.0], (360, 1))
    text = section(study.write().add_ensemble())
    assert re.search(r"Left out, since no unit has it and none is predicted to: [a-z, ]*other\.", text)


def test_questions_have_metrics_at_the_thresholds_of_other_folds_too(sounds, section):
    text, content = section(sounds), files.read_json(sounds.folder.ensemble)["metrics"]
    found = metrics_of(sounds, blend_of(sounds))
    assert f"Micro F1 {100 * found.micro_f1:.1f} %" in text
    for name, key in (("Accuracy", "accuracy"), ("Macro F1", "macro_f1"), ("Micro F1", "micro_f1")):
        assert f"{name} at thresholds {100 * content['thresholded'][key]:.1f} % The same at thresholds" in text


def test_the_auroc_stands_with_its_interval_and_its_gain(sounds, section):
    text, content = section(sounds), files.read_json(sounds.folder.ensemble)["metrics"]
    mine, gain = content["macro_auroc_interval"], content["macro_auroc_gain"]
    assert f"Macro AUROC {mine['value']:.3f} " in text
    assert f"95\u00a0% interval, by patient: {mine['low']:.3f} to {mine['high']:.3f}".replace("\u00a0", " ") in text
    assert f"Gain of macro AUROC {gain['value']:+.3f} " in text.replace("\u2212", "-")
    assert f"{gain['low']:+.3f} to {gain['high']:+.3f}" in text.replace("\u2212", "-")


def test_the_plain_baseline_stands_below_the_tables(sounds, section):
    found = metrics_of(sounds, sounds.plain_probs)
    row = f"plain baseline: logistic regression on two numbers {found.score:.5f} {100 * found.accuracy:.1f} %"
    assert row in section(sounds)


def test_all_units_are_called_so(sounds, section):
    text = section(sounds)
    assert "of the ensemble, cross-fitted · 360 units · 60 patients" in text
    assert "By number of votes" not in text and "votes" not in text
