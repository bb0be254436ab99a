"""The study folder as plain data, against the files it was written from."""

import numpy as np
import pytest

from hms_ray.core import files
from hms_ray.core.errors import ConfigError, DataError
from hms_ray.report import tables
from hms_ray.study.folder import StudyFolder


def finalists_of(study):
    return tables.read_finalists(study.folder, tables.read_study(study.folder))


def test_finalists_are_scored_on_the_population_only_and_sorted(complete):
    found = finalists_of(complete)
    kept = complete.kept
    expected = {trial: complete.task.score(complete.targets[kept], p[kept]) for trial, p in complete.probs.items()}
    assert {f.trial: f.score for f in found} == pytest.approx(expected)
    assert [f.score for f in found] == sorted(expected.values())
    assert all(len(f.rows) == kept.sum() for f in found)


def test_scores_by_fold_and_their_spread(complete):
    best = finalists_of(complete)[0]
    expected = {
        k: complete.task.score(complete.targets[rows], complete.probs[best.trial][rows])
        for k in range(5)
        if (rows := complete.kept & (complete.folds == k)).any()
    }
    assert best.by_fold == pytest.approx(expected)
    assert best.spread == pytest.approx(np.std(list(expected.values()), ddof=1))


def test_the_ensembles_population_is_everyones(fake):
    study = fake().write().add_ensemble(population={"units": 1, "groups": 1, "min_votes": 15})
    found = tables.read_study(study.folder)
    assert (found.min_votes, found.search_min_votes) == (15, 10)
    assert len(finalists_of(study)[0].rows) == (study.votes >= 15).sum()


def test_nobody_with_enough_votes_gives_no_score(fake):
    study = fake(patients=3, units_a_patient=1, votes=np.array([1, 2, 3]), k=3).write()
    found = finalists_of(study)
    assert all(np.isnan(f.score) and f.by_fold == {} and np.isnan(f.spread) for f in found)


def test_params_are_the_searched_values_of_the_trials_own_config(complete):
    found = {f.trial: f.params for f in finalists_of(complete)}
    expected = {"train.stages.0.lr": 0.001, "model.params.drop_rate": 0.1, "model.name": "basic_cnn"}
    assert found["eeg-0005"] == expected


def test_how_inputs_are_computed_stands_among_the_params_whether_searched_or_not(complete):
    inputs = {"compute": "batch", "window": "random", "dtype": "float16"}
    complete.change_run("eeg-0005", input=inputs, test_time=["mirror_sides"])
    params = {f.trial: f.params for f in finalists_of(complete)}["eeg-0005"]
    shown = {"input.compute": "batch", "input.window": "random", "test_time": ["mirror_sides"]}
    assert {path: params[path] for path in tables.INPUTS} == shown and len(params) == 6


def test_a_foreign_table_has_no_run(fake):
    assert all((f.config, f.params) == ({}, {}) for f in finalists_of(fake("foreign", foreign=True).write()))


def test_paths_that_a_config_lacks_are_left_out():
    assert tables.searched_params({"a": [{"b": 1}]}, ["a.0.b", "a.1.b", "a.x", "c"]) == {"a.0.b": 1}


def test_a_broken_config_is_named(complete):
    files.write_text(complete.folder.trial("eeg-base").config, "a: [1")
    with pytest.raises(DataError, match=r"config\.yaml: not valid YAML"):
        finalists_of(complete)


def test_fold_sizes_count_units_patients_and_scored_rows(complete):
    sizes = tables.fold_sizes(tables.read_study(complete.folder), finalists_of(complete))
    assert sizes["units"].tolist() == [72] * 5 and sizes["groups"].tolist() == [12] * 5
    assert sizes["scored_units"].sum() == complete.kept.sum()


def test_fold_sizes_without_tables_are_unknown_not_zero(fake):
    study = fake(strengths={}).write()
    assert tables.fold_sizes(tables.read_study(study.folder), [])["scored_units"].isna().all()


def test_population_says_its_rule_and_size():
    assert str(tables.Population(6329, 1054, 10)) == "≥ 10 votes · 6,329 units · 1,054 patients"
    assert str(tables.Population(1, 1, 1)) == "1 unit · 1 patient"
    assert tables.Population(1, 1, 1).rule == "all units"


def test_what_is_scored_is_worded_within_a_sentence():
    assert (tables.those("rows", 10), tables.those("units", 1)) == ("rows with ≥ 10 votes", "all units")


def test_a_folder_that_is_no_study_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="is no study"):
        tables.read_study(StudyFolder(tmp_path))
