"""Samplers: each one by name proposes inside the space, learns, and proposes the same after a restart."""

import copy
import math

import numpy as np
import pytest
import yaml

from hms_ray.core.errors import ConfigError, SearchAborted
from hms_ray.search.optuna import samplers
from hms_ray.search.optuna.journal import Journal
from hms_ray.search.optuna.samplers import Proposer
from hms_ray.search.space.space import load, parse
from hms_ray.study.folder import StudyFolder

NAMES = ["tpe", "random", "gp", "cmaes"]
BASE = {
    "data": {"name": "hms"},
    "feature": {"name": "kaggle_spectrogram", "pool": 4},
    "model": {"name": "basic_cnn", "width": 4, "depth": 2},
    "stages": [{"epochs": 1, "lr": 0.01}],
}
SEARCH = {
    "model.depth": {"choice": [2, 3]},
    "model.width": {"int": [4, 64], "when": {"model.depth": 3}},
    "model.drop_rate": {"uniform": [0.0, 0.5]},
    "stages.0.lr": {"log_uniform": [1e-4, 1e-1]},
}
TRIALS = 12  # the Gaussian process begins after 10


def a_space(sampler, search=SEARCH):
    return parse("toy", {"base": copy.deepcopy(BASE), "search": search, "sampler": sampler})


def value_of(run):
    """A made-up score, best at lr = e^-5 without dropout."""
    return abs(math.log(run["stages"][0]["lr"]) + 5) + run["model"].get("drop_rate", 0.1)


def play(root, sampler, trials=TRIALS, reopen=False, result_lag=0, end=None):
    """Run so many trials, each ended `behind` later, and return their runs."""
    root.mkdir()
    folder, space = StudyFolder(root), a_space(sampler)
    end = end or (lambda journal, number, value: journal.complete(number, value, 1.0))
    journal, runs = Journal(folder, space), []
    for number in range(trials):
        journal = Journal(folder, space) if reopen else journal
        runs.append(journal.propose(result_lag)[1])
        if number >= result_lag:
            end(journal, number - result_lag, value_of(runs[number - result_lag]))
    return runs


@pytest.mark.parametrize("name", NAMES)
def test_proposals_lie_in_the_space_and_keep_its_conditions(name, tmp_path):
    space = a_space(name)
    for run in play(tmp_path / "s", name):
        for item in space.ranges:
            section, key = (run["stages"][0], "lr") if "lr" in item.path else (run["model"], item.path.split(".")[1])
            assert item.path == "model.width" or item.has(section[key]) or run == BASE
        assert run["model"]["width"] == 4 or run["model"]["depth"] == 3


@pytest.mark.parametrize("name", NAMES)
def test_a_search_reopened_before_every_trial_proposes_the_same(name, tmp_path):
    for result_lag in (0, 3):
        kept, reopened = (
            play(tmp_path / f"{result_lag}{n}", name, reopen=n, result_lag=result_lag) for n in (False, True)
        )
        assert kept == reopened
        assert len({run["stages"][0]["lr"] for run in kept}) == TRIALS


@pytest.mark.parametrize("name", ["tpe", "gp", "cmaes"])
def test_it_learns(name, tmp_path):
    trials = {"cmaes": 80, "gp": 24}.get(name, 30)
    values = [value_of(run) for run in play(tmp_path / "s", name, trials)]
    by_chance = [value_of(run) for run in play(tmp_path / "r", "random", trials)]
    assert np.median(values[-10:]) < 0.5 * np.median(by_chance)


@pytest.mark.parametrize("name", ["tpe", "gp", "cmaes"])
def test_a_stopped_trial_counts_at_its_estimate(name, tmp_path):
    def stop_every_third(journal, number, value):
        journal.report(number, 1, 9.0)
        if number % 3:
            journal.complete(number, value, 1.0)
        else:
            journal.prune(number, value, 0.4, "cannot improve the ensemble", 1.0)

    assert play(tmp_path / "stopped", name, end=stop_every_third) == play(tmp_path / "whole", name)


def test_without_value_or_estimate_a_sampler_learns_nothing_whatever_was_reported(tmp_path):
    def fail_every_third(journal, number, value):
        journal.report(number, 1, value)
        if number % 3:
            journal.complete(number, value, 1.0)
        elif number % 2:
            journal.fail(number, "it broke")
        else:
            journal.prune(number, math.nan, 0.1, "too slow to say what it would reach", 1.0)

    play(tmp_path / "s", "tpe", end=fail_every_third)
    trials = Journal(StudyFolder(tmp_path / "s"), a_space("tpe")).trials()
    proposer = Proposer(a_space("tpe"))
    proposer.propose(trials, TRIALS, None)
    shown = proposer.view.trials[:TRIALS]
    assert [trial.value for trial in shown if trial.number % 3] == [t.value for t in trials if t.number % 3]
    assert all((trial.value is None) == (trial.number % 3 == 0) for trial in shown)
    assert not any(trial.intermediate_values for trial in shown)


def test_cmaes_goes_on_when_a_conditional_dimension_drops_out(tmp_path):
    """Optuna's own takes the dimensions that all trials so far have, and stops for good when these become fewer."""
    play(tmp_path / "s", "cmaes", 40)
    trials = Journal(StudyFolder(tmp_path / "s"), a_space("cmaes")).trials()
    generations = [trial.system_attrs["cma:generation"] for trial in trials[1:]]
    assert generations[0] == 0 and generations[-1] >= 4
    assert len({"model.width" in trial.params for trial in trials}) == 2


def test_cmaes_is_refused_without_its_package(monkeypatch):
    samplers.check(a_space("cmaes"))
    monkeypatch.setattr(samplers, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="sampler cmaes needs the package cmaes: pip install cmaes"):
        samplers.check(a_space("cmaes"))
    samplers.check(a_space("tpe"))


def test_cmaes_is_refused_where_no_number_is_always_searched():
    search = {path: SEARCH[path] for path in ("model.depth", "model.width")}
    with pytest.raises(ConfigError, match="space toy: sampler cmaes needs a uniform, log_uniform or int range without"):
        samplers.check(a_space("cmaes", search))
    for name in ("tpe", "random", "gp"):
        samplers.check(a_space(name, search))


@pytest.mark.parametrize("name", NAMES)
def test_a_single_number_can_be_searched(name, tmp_path):
    space = a_space(name, {"stages.0.lr": SEARCH["stages.0.lr"]})
    samplers.check(space)
    journal = Journal(StudyFolder(tmp_path), space)
    for _ in range(14):
        number, run = journal.propose(0)
        journal.complete(number, value_of(run), 1.0)
    assert len({trial.params["stages.0.lr"] for trial in journal.trials()}) == 14


@pytest.mark.parametrize("name", NAMES)
def test_a_proposal_that_was_never_recorded_is_made_again(name, tmp_path):
    play(tmp_path / "s", name, 12)
    space = a_space(name)
    trials = Journal(StudyFolder(tmp_path / "s"), space).trials()
    proposer = Proposer(space)
    first = proposer.propose(trials, 12, None)[1]
    assert proposer.propose(trials, 12, None)[1] == first
    proposer.propose(trials, 12, None)
    assert proposer.propose(trials[:9], 6, None)[1] == Proposer(space).propose(trials[:9], 6, None)[1]


def test_what_a_start_lacks_is_filled_in(tmp_path):
    start = {"stages.0.lr": 0.02, "model.depth": 3, "no.such": 1}
    trial, run = Proposer(a_space("tpe")).propose([], 0, start)
    assert run["stages"][0]["lr"] == 0.02 and run["model"]["depth"] == 3
    assert set(trial.params) == set(SEARCH)


def test_a_running_trial_is_shown_with_the_parameters_that_it_has(tmp_path):
    """The tpe sampler notes values for both sides of a condition; only one of them is trained."""
    play(tmp_path / "s", "tpe", 20)
    trials = Journal(StudyFolder(tmp_path / "s"), a_space("tpe")).trials()
    assert {"model.width" in trial.params for trial in trials[12:]} == {True, False}
    assert not any("relative_params" in key for trial in trials for key in trial.system_attrs)


@pytest.mark.parametrize("name", ["gp", "cmaes"])
def test_samplers_without_a_model_of_conditions_are_refused_for_a_union(name, tmp_path, monkeypatch):
    """All dimensions of a union but the choice of its space are conditional."""
    (tmp_path / "search_spaces").mkdir()
    monkeypatch.chdir(tmp_path)
    contents = {"a": {"base": BASE, "search": SEARCH}, "both": {"spaces": ["a"], "sampler": name}}
    for space, content in contents.items():
        (tmp_path / "search_spaces" / f"{space}.yaml").write_text(yaml.safe_dump(content))
    sentence = f"space both: sampler {name} needs ranges that every trial has, and of a union no trial has all"
    with pytest.raises(ConfigError, match=f"{sentence}; take tpe or random"):
        samplers.check(load("both"))
    for other in ("tpe", "random"):
        samplers.check(load("both", (f"sampler={other}",)))


def too_wide(run):
    """A rule that half of the space breaks; who breaks it would have the best scores."""
    return f"lr {run['stages'][0]['lr']:.0e} is below 1e-2" if run["stages"][0]["lr"] < 1e-2 else None


def play_valid(root, sampler, reopen=False, trials=TRIALS):
    root.mkdir()
    folder, space = StudyFolder(root), a_space(sampler)
    journal = Journal(folder, space)
    for number in range(trials):
        journal = Journal(folder, space) if reopen else journal
        _, run = journal.propose(0, too_wide)
        journal.complete(number, value_of(run), 1.0)
    return journal.trials()


@pytest.mark.parametrize("name", NAMES)
def test_an_invalid_proposal_is_replaced_and_costs_no_trial(name, tmp_path):
    kept, reopened = (play_valid(tmp_path / str(again), name, again) for again in (False, True))
    assert [trial.number for trial in kept] == list(range(TRIALS))
    assert all(trial.params["stages.0.lr"] >= 1e-2 for trial in kept)
    assert any("replaced" in trial.user_attrs for trial in kept)
    assert [trial.params for trial in kept] == [trial.params for trial in reopened], "whatever was replaced before"


@pytest.mark.parametrize("name", NAMES)
def test_a_sampler_that_wants_nothing_but_what_is_invalid_still_proposes(name, tmp_path):
    """The best score lies where only the invalid is: all good trials are at its border."""
    play(tmp_path / "s", name, 12)
    trials = Journal(StudyFolder(tmp_path / "s"), a_space(name)).trials()
    narrow = lambda run: None if run["stages"][0]["lr"] > 5e-2 and run["model"]["depth"] == 2 else "no"  # noqa: E731
    trial, run = Proposer(a_space(name)).propose(trials, 12, None, narrow)
    assert narrow(run) is None and trial.user_attrs["replaced"]["no"] > 0
    assert Proposer(a_space(name)).propose(trials, 12, None, narrow)[1] == run


def test_a_start_that_is_invalid_is_replaced_too():
    start = {"stages.0.lr": 1e-3, "model.depth": 3}
    trial, run = Proposer(a_space("tpe")).propose([], 0, start, too_wide)
    assert run["stages"][0]["lr"] >= 1e-2
    assert trial.user_attrs["replaced"]["lr 1e-03 is below 1e-2"] == 1


def test_a_space_of_invalid_configurations_is_named(tmp_path):
    journal = Journal(StudyFolder(tmp_path), a_space("random"))
    with pytest.raises(SearchAborted, match=r"space toy: 100 proposals in a row were invalid: no room \(100 of 100\)"):
        journal.propose(0, lambda run: "no room")
    assert not journal.trials(), "nothing was begun"
