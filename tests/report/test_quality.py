"""The recordings' quality and what training made of it, against numbers known beforehand. A patient has six units."""

import html
import re

import pytest

from hms_ray.core import files
from hms_ray.core.recordings import KINDS
from hms_ray.report import quality, tables
from hms_ray.report.page import write_report
from hms_ray.report.quality import Extent
from hms_ray.store.quality import MEASURES

SPECTROGRAM, EEG = {"name": "kaggle_spectrogram"}, {"name": "eeg_spectrogram"}
EEG_GAPS = {0: 0.1, 1: 0.3, 6: 0.5}  # two units of patient 0, one of patient 1


def look(study):
    found = tables.read_study(study.folder)
    return quality.read_quality(found, tables.read_finalists(study.folder, found))


def use(study, trial="eeg-base"):
    return next(use for use in look(study).uses if use.trial == trial)


def shown(study, trials, folder):
    text = write_report(study.folder, trials, folder).read_text()
    part = re.search(r'<section id="quality">.*?</section>', text, re.S)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", part.group(0)))) if part else ""


def test_units_and_patients_are_counted_by_kind_and_measure(complete):
    eeg, spectrogram = look(complete.add_quality(eeg={"nan": EEG_GAPS}, spectrogram={"flat": {359: 1.0}})).kinds
    gaps, flat, outliers, missing = eeg.rows
    assert (eeg.name, eeg.measured, spectrogram.name) == ("eeg", Extent(360, 60), "spectrogram")
    assert (gaps.touched, gaps.median, gaps.median_touched, gaps.worst) == (Extent(3, 2), 0, 0.3, 0.5)
    assert flat.touched == outliers.touched == missing.touched == Extent(0, 0) and flat.worst == 0
    assert [row.touched.units for row in spectrogram.rows] == [0, 1, 0, 0] and spectrogram.rows[1].worst == 1


def test_the_median_is_that_of_all_units(complete):
    row = look(complete.add_quality(eeg={"outliers": {unit: unit / 1000 for unit in range(360)}})).kinds[0].rows[2]
    assert (row.median, row.median_touched, row.worst) == pytest.approx((0.1795, 0.18, 0.359))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("measure", MEASURES)
def test_every_measure_of_every_kind_is_explained(complete, kind, measure):
    meanings = [row.meaning for row in look(complete.add_quality(**{kind: {}})).kinds[0].rows]
    assert len(meanings) == len(MEASURES) and measure in quality.NAMES
    assert not re.search(r"[{}]", " ".join(meanings))


def test_outliers_and_windows_are_those_of_the_kind(complete):
    eeg, spectrogram, sound = (
        " ".join(row.meaning for row in look(complete.add_quality(**{k: {}})).kinds[0].rows) for k in KINDS
    )
    assert "beyond 1,024 µV" in eeg and "a window of 50 s" in eeg
    assert "beyond 1 of full scale" in sound and "a window of 20 s" in sound
    assert "beyond 2,981 in the unit of the files" in spectrogram and "a window of 600 s" in spectrogram


def test_dropped_units_are_counted_by_limit_and_are_scored(complete):
    complete.add_quality(eeg={"nan": EEG_GAPS, "flat": {1: 0.2, 12: 0.2}})
    found = use(complete.change_run("eeg-base", quality={"nan": 0.2, "flat": 0.1}))
    assert (found.weight, found.effect, found.affected) == (0, "not trained on", Extent(3, 3))
    limits = [("gaps above 20\u00a0%", Extent(2, 2)), ("flat channels above 10\u00a0%", Extent(2, 2))]
    assert found.by_limit == limits
    assert found.scored == complete.kept[[1, 6, 12]].sum()


def test_a_unit_at_its_limit_is_good_enough(complete):
    complete.add_quality(eeg={"nan": EEG_GAPS})
    assert use(complete.change_run("eeg-base", quality={"nan": 0.3})).affected == Extent(1, 1)


def test_units_of_less_weight(complete):
    complete.add_quality(eeg={"nan": EEG_GAPS})
    found = use(complete.change_run("eeg-base", quality={"nan": 0.0, "weight": 0.25}))
    assert (found.effect, found.affected) == ("0.25 of the weight", Extent(3, 2))
    assert found.by_limit == [("gaps above 0\u00a0%", Extent(3, 2))]


@pytest.mark.parametrize(
    ("feature", "units"),
    [(EEG, 3), (SPECTROGRAM, 1), ({"name": "panels", "parts": [SPECTROGRAM, EEG]}, 4)],
)
def test_limits_hold_for_the_recordings_that_the_run_reads(complete, feature, units):
    complete.add_quality(eeg={"nan": EEG_GAPS}, spectrogram={"nan": {100: 0.9}})
    found = use(complete.change_run("eeg-base", quality={"nan": 0.05}, feature=feature))
    assert found.affected.units == units


def test_without_limits_nothing_was_dropped(complete):
    complete.add_quality(eeg={"nan": EEG_GAPS}).change_run("eeg-base", quality={"nan": 1.0, "weight": 0.5})
    found = look(complete)
    assert (found.uses, found.unknown) == ([], [])
    assert found.sentences == ["No run has quality limits: training and score use all recordings."]


def test_of_limited_runs_it_is_said_that_the_population_is_unchanged(complete):
    complete.add_quality(eeg={"nan": EEG_GAPS}).change_run("eeg-base", quality={"nan": 0.2})
    text = " ".join(look(complete).sentences)
    assert text.startswith("The runs of 1 of 5 tables have quality limits")
    assert (
        "Every unit with ≥ 10 votes is scored, whatever the quality" in text
        and "population of the score is unchanged" in text
    )


@pytest.mark.parametrize(
    "change",
    [
        {"quality": {"nan": 0.1}, "feature": {"name": "gone"}},
        {"quality": {"nan": 0.1}, "feature": SPECTROGRAM | {"gone": 1}},
        {"quality": {"gone": 0.1}},
    ],
)
def test_a_run_of_another_version_is_named_as_unknown(complete, change):
    found = look(complete.add_quality(eeg={}, spectrogram={}).change_run("eeg-base", **change))
    assert (found.uses, found.unknown) == ([], ["eeg-base"])
    assert found.sentences[0].startswith("No run that is recorded here has quality limits")
    assert found.sentences[1].startswith("For 1 table it is unknown") and "eeg-base." in found.sentences[1]


def test_of_foreign_tables_nothing_is_claimed(fake):
    found = look(fake("foreign", foreign=True).write().add_quality(eeg={}))
    assert len(found.unknown) == 5
    assert len(found.sentences) == 1 and found.sentences[0].startswith("For 5 tables it is unknown")


def test_without_tables_the_recordings_are_shown_all_the_same(fake, no_trials, tmp_path):
    study = fake(strengths={}).write().add_quality(eeg={"nan": EEG_GAPS})
    assert "so there are no tables" in shown(study, no_trials, tmp_path)


def test_a_study_without_measures_has_no_such_section(complete, no_trials, tmp_path):
    assert look(complete) is None
    assert shown(complete, no_trials, tmp_path) == ""
    assert "#quality" not in (tmp_path / "index.html").read_text()


def test_the_page_shows_measures_and_members(complete, no_trials, tmp_path):
    complete.add_quality(eeg={"nan": EEG_GAPS, "outliers": {5: 1e-5}})
    text = shown(complete.change_run("eeg-0002", quality={"nan": 0.2}), no_trials, tmp_path)
    gaps = "Gaps share of the values, of all channels, that are missing"
    assert f"{gaps} 3 0.8 % 2 3.3 % 0 30.0 % 50.0 %" in text
    assert "1 0.3 % 1 1.7 % 0 < 0.1 % < 0.1 %" in text
    scored = complete.kept[[1, 6]].sum()
    assert f"eeg-0002 0.5000 not trained on 2 2 {scored} gaps above 20 %: 2 units of 2 patients" in text


def test_how_inputs_are_computed_is_shown_and_explained(complete, no_trials, tmp_path):
    complete.change_run("eeg-0002", input={"compute": "batch", "window": "random"}, test_time=[])
    text = re.sub(r"(<[^>]*>|\s)+", " ", write_report(complete.folder, no_trials, tmp_path).read_text())
    assert "input.compute batch input.window random test_time none" in text
    assert "test_time: versions of each input that are predicted as well" in text


def test_a_share_that_is_not_nothing_is_not_shown_as_0():
    assert [quality.share(v) for v in (0.0, 1e-6, 0.001, 0.25, 1.0)] == [
        *("0", "< 0.1\u00a0%", "0.1\u00a0%", "25.0\u00a0%", "100.0\u00a0%")
    ]


def leave_out(study, *recordings):
    content = files.read_json(study.folder.study)
    files.write_json(study.folder.study, content | {"data": content["data"] | {"left_out": list(recordings)}})
    return study


def test_recordings_left_out_are_named_with_their_cause(complete, no_trials, tmp_path):
    gone = {"unit_id": "patient_004", "name": "patient_004_sit_Mit.wav", "cause": "the file is not there"}
    leave_out(complete.add_quality(eeg={}), gone, gone | {"name": "<b>.wav", "cause": "it holds no sample"})
    text = shown(complete, no_trials, tmp_path)
    assert "2 listed recordings left out" in text and "Use in training" in text
    assert "patient_004 patient_004_sit_Mit.wav the file is not there" in text
    assert "patient_004 <b>.wav it holds no sample" in text


def test_what_was_left_out_is_shown_without_any_measures(complete, no_trials, tmp_path):
    gone = {"unit_id": "patient_004", "name": "a.wav", "cause": "the file is not there"}
    text = shown(leave_out(complete, gone), no_trials, tmp_path)
    assert "1 listed recording left out" in text and "Use in training" not in text
    assert "Measured" not in text
