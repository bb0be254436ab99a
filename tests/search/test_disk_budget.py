"""The disk space that a search needs at most, with its arithmetic, before anything starts."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest

from hms_ray.core.errors import ConfigError
from hms_ray.search import disk_budget, driver, open_study
from hms_ray.search.space.settings import Budget, Race
from hms_ray.study.folder import StudyFolder
from hms_ray.training import build, checkpoint, dry_run

WIDE = {"name": "basic_cnn", "width": 16, "depth": 2}


def sized(toy, budget=None, **search):
    return replace(toy.make_space("sized", search), budget=budget or Budget(trials=40, finalists=8))


def test_weights_are_as_large_as_their_file(toy):
    packed = checkpoint.pack(build.build_model(toy.space.run, toy.study.labels.task).state_dict())
    assert 0 < len(packed) - toy.study.rehearsals.weight_bytes(toy.space.run) < 10_000


def test_the_largest_network_and_the_longest_schedule_count(toy):
    weight_bytes, wide = toy.study.rehearsals.weight_bytes, toy.make_space(model=WIDE)
    ranges = {"model": {"choice": [toy.space.base["model"], WIDE]}, "stages.0.epochs": {"int": [1, 5]}}
    found = disk_budget.need(sized(toy, **ranges), weight_bytes, max_concurrent=2)
    assert found.each == weight_bytes(wide.run) > weight_bytes(toy.space.run)
    assert found.epochs == 3, "of the 6 epochs that both stages may have; the base run has 2"
    assert (found.folds, found.kept) == (12 * 2, 24), "of a trial with all 3 folds one epoch is left"
    assert found.files == 12 * 2 * 3 + 2 * (3 + disk_budget.STATE)


def test_a_choice_of_the_best_keeps_no_runners_up_and_a_base_run_no_trials(toy):
    space, weight_bytes = sized(toy), toy.study.rehearsals.weight_bytes
    best = disk_budget.need(replace(space, race=Race(rule="best")), weight_bytes, 1)
    assert (best.folds, best.max_concurrent) == (8 + 2, 1 + 3), "folds of a finalist wait for each other"
    base = disk_budget.need(space, weight_bytes, 1, searched=False)
    assert (base.folds, base.kept) == (0, 3)


@pytest.mark.parametrize(
    ("budget", "race", "folds", "kept"),
    [
        ({}, {}, 40 * 2, 40 * 3),
        ({}, {"folds": 0.5}, 60 - 10, 20 * 3),  # 60 may be trained, of which 10 trials have one that lost its weights
        ({}, {"folds": 0.9}, 40 * 2, 36 * 3),
        ({"finalists": 6}, {"folds": 0.5}, (6 + 4) * 2, 6 * 3),
        ({"trials": 3, "finalists": 8}, {}, 3 * 2, 3 * 3),
        ({"trials": 3}, {"folds": 0.1}, 3 * 1 + 2, 1 * 3),  # one is completed whatever the share
    ],
)
def test_without_a_cap_all_trials_may_get_all_folds(toy, budget, race, folds, kept):
    space = replace(sized(toy, Budget(**{"trials": 40} | budget)), race=Race(**race))
    found = disk_budget.need(space, toy.study.rehearsals.weight_bytes, max_concurrent=2)
    assert (found.folds, found.kept) == (folds, kept)


def test_many_trials_that_wait_for_earlier_ones_count(toy):
    found = disk_budget.need(sized(toy), toy.study.rehearsals.weight_bytes, max_concurrent=24)
    assert found.folds == 40, "more than 12 trials with 2 folds each"


def test_networks_that_were_rehearsed_are_not_built_again(toy, tmp_path, monkeypatch):
    built, build_model = [], build.build_model
    for module in (build, dry_run, open_study):
        monkeypatch.setattr(module, "build_model", lambda run, task: built.append(run.model) or build_model(run, task))
    room(monkeypatch, 0)
    ranges = {"model": {"choice": [toy.space.base["model"], WIDE]}, "stages.0.epochs": {"int": [1, 5]}}
    with pytest.raises(ConfigError, match=r"files of weights of .* and 0 B are free"):
        driver.search(StudyFolder(tmp_path / "new"), [sized(toy, **ranges)], toy.root, in_process=True)
    assert [model.params.width for model in built] == [4, 16]


def room(monkeypatch, count):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=count))


def test_too_little_room_is_said_with_the_arithmetic(toy, monkeypatch):
    its = disk_budget.Need("modern", 350 * 10**6, epochs=7, folds=20, max_concurrent=6, kept=60)
    room(monkeypatch, 30 * 10**9)
    with pytest.raises(ConfigError) as caught:
        disk_budget.check(toy.folder, [(its, None)])
    assert str(caught.value) == (
        f"space modern needs up to 72.1 GB: 206 files of weights of 350.0 MB (20 folds of trials that may become "
        "finalists x 7 epochs that may be chosen, or 60 files of finalists; 6 folds in training x 11), and 30.0 GB "
        f"are free at {toy.folder.root}. Free disk space, lower epoch_candidates.most, budget.finalists, "
        "race.folds or budget.trial_folds, or set budget.disk_gb to what the study may take"
    )
    disk_budget.check(toy.folder, [(its, 29.0)])
    with pytest.raises(ConfigError, match=r"30\.0 GB are free"):
        disk_budget.check(toy.folder, [(its, 31.0)])
    room(monkeypatch, its.files * its.each)
    disk_budget.check(toy.folder, [(its, None)])


def test_what_an_earlier_space_leaves_takes_room_and_what_is_there_counts(toy, monkeypatch):
    its = disk_budget.Need("a", 10**6, epochs=2, folds=3, max_concurrent=1, kept=4)
    room(monkeypatch, 16 * 10**6 - 1)
    with pytest.raises(ConfigError, match="space a needs"):
        disk_budget.check(toy.folder, [(its, None), (its, None)])
    weights = toy.folder.trial("a-0000").fold(0).weights(2)
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"x")
    disk_budget.check(toy.folder, [(its, None), (its, None)])
