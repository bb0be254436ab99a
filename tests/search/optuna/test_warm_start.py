"""Warm starts: which configurations come over from another study, and which folds they were chosen on."""

import copy

import numpy as np
import pandas as pd
import pytest
import yaml

from hms_ray import tasks
from hms_ray.core import files
from hms_ray.core.errors import ConfigError
from hms_ray.search.optuna import warm_start
from hms_ray.search.optuna.journal import Journal
from hms_ray.search.space.space import load, parse
from hms_ray.study.folder import StudyFolder
from hms_ray.study.oof import OofTable

BASE = {
    "data": {"name": "hms"},
    "feature": {"name": "kaggle_spectrogram", "pool": 4},
    "model": {"name": "basic_cnn", "width": 4, "depth": 2},
    "stages": [{"epochs": 1, "lr": 0.01}],
}
LR = {"stages.0.lr": {"log_uniform": [1e-4, 1e-1]}}
WIDTH = {"model.width": {"int": [4, 64]}}
DECAY = {"optim.weight_decay": {"log_uniform": [1e-4, 1e-1]}}
PATIENTS = (np.array(["a", "b", "c", "d", "e", "f"]), np.array([0, 0, 1, 1, 2, 2]))
TASK = tasks.from_dict({"kind": "votes", "classes": ["a", "b"]})


def a_space(search, root=None, trials=4, name="toy"):
    sampler = {"warm_start": str(root), "warm_trials": trials} if root else {}
    return parse(name, {"base": copy.deepcopy(BASE), "search": search, "sampler": sampler})


RESNET = {"name": "timm_image", "arch": "resnet18", "pretrained": False}


@pytest.fixture
def a_union(tmp_path, monkeypatch):
    """A function that returns the union of cnn, whose lr is searched, and net, another model with another base."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "search_spaces").mkdir()
    contents = {
        "cnn": {"base": BASE, "search": LR | WIDTH},
        "net": {"base": BASE | {"model": RESNET, "stages": [{"epochs": 1, "lr": 0.05}]}, "search": LR | DECAY},
    }

    def write(root=None, **changes):
        both = {"spaces": ["cnn", "net"], "sampler": {"warm_start": str(root), "warm_trials": 8} if root else {}}
        for name, content in (contents | {"both": both} | changes).items():
            (tmp_path / "search_spaces" / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        return load("both")

    return write


@pytest.fixture
def other(tmp_path):
    """An empty study of data d and folds f, in which a space can be searched."""
    folder = StudyFolder(tmp_path / "other")
    score = {"min_votes": 1}
    data = {"name": "toy", "params": {}, "fingerprint": "d", "units": 4, "groups": 2}
    identity = {"task": TASK.to_dict(), "data": data, "folds": {"k": 3, "seed": 0, "fingerprint": "f"}}
    folder.claim(identity | {"score": score, "epoch": "last"})
    return folder


def search(folder, space, values):
    """Record one trial a value, None for one that failed; return their runs."""
    folder.add_space(space.name, space.resolved())
    journal, runs = Journal(folder, space), []
    for value in values:
        number, run = journal.propose(0)
        runs.append(run)
        if value is None:
            journal.fail(number, "it broke")
        else:
            journal.complete(number, value, 1.0)
    return runs


def dealt(folder):
    """Write the folds of the other study."""
    groups, folds = PATIENTS
    files.write_table(folder.folds, pd.DataFrame({"unit_id": groups, "group_id": groups, "fold": folds}))


def lr_of(run):
    return run["stages"][0]["lr"]


def table(folder, path, trial, chosen_on):
    """Write an out-of-fold table of a trial that names those folds."""
    ids, probs = np.array(["u", "v"]), np.full((2, 2), 0.5)
    rows = (ids, ids, np.arange(2), np.full(2, 9), probs, probs)
    OofTable(*rows, TASK, trial, "toy", "d", "f", chosen_on).write(path)


def test_the_best_complete_trials_come_over_best_first(other):
    runs = search(other, a_space(LR), [0.5, 0.2, None, 0.4, 0.3])
    found = warm_start.configurations(a_space(LR, other.root, trials=3))
    assert [params["stages.0.lr"] for params in found] == [lr_of(runs[n]) for n in (1, 4, 3)]


def test_all_spaces_of_a_study_are_drawn_from_and_equals_go_by_name(other):
    a, b = (search(other, a_space(LR, name=name), values) for name, values in (("a", [0.4, 0.2]), ("b", [0.4, 0.2])))
    found = warm_start.configurations(a_space(LR, other.root))
    assert [params["stages.0.lr"] for params in found] == [lr_of(a[1]), lr_of(b[1]), lr_of(a[0])]
    assert lr_of(a[0]) == lr_of(b[0]), "the base of both comes over once"


def test_what_counts_is_a_trials_own_score(other):
    other.add_space("toy", a_space(LR).resolved())
    journal = Journal(other, a_space(LR))
    for value, score in ((-0.02, 0.6), (-0.01, 0.4)):
        journal.complete(journal.propose(0)[0], value, 1.0, score=score)
    best = warm_start.configurations(a_space(LR, other.root))[0]
    assert best == journal.trial(1).params


def test_trials_outside_the_ranges_stay_away(other):
    runs = search(other, a_space(LR), [0.1 * n for n in range(8)])
    narrow = {"stages.0.lr": {"log_uniform": [3e-3, 3e-2]}}
    inside = [lr_of(run) for run in runs if 3e-3 <= lr_of(run) <= 3e-2]
    found = warm_start.configurations(a_space(narrow, other.root, trials=8))
    assert 0 < len(inside) < 8
    assert [params["stages.0.lr"] for params in found] == inside


def test_what_the_other_study_did_not_search_is_its_base_and_what_is_not_searched_here_is_dropped(other):
    search(other, a_space(LR | {"model.drop_rate": {"uniform": [0.0, 0.5]}}), [0.3])
    assert warm_start.configurations(a_space(LR | WIDTH, other.root)) == [{"stages.0.lr": 0.01, "model.width": 4}]
    wide = {"model.width": {"int": [8, 64]}}
    assert warm_start.configurations(a_space(LR | wide, other.root)) == [{"stages.0.lr": 0.01}]


def test_sections_come_over_as_optuna_holds_them(other):
    model = {"model": {"choice": [{"name": "basic_cnn", "depth": 3}, {"name": "basic_cnn", "width": 4, "depth": 2}]}}
    search(other, a_space(model | WIDTH), [0.3])
    (params,) = warm_start.configurations(a_space(model | WIDTH, other.root))
    assert params == {"model": '{"depth": 2, "name": "basic_cnn", "width": 4}', "model.width": 4}


def test_trials_of_a_union_come_over_by_the_runs_own_paths_and_from_their_own_base(other, a_union):
    """Each trial is its space's base run: the lr that the other's base has is no news of it."""
    search(other, a_union(), [0.5, 0.2])
    assert warm_start.configurations(a_space(DECAY | LR, other.root)) == [
        {"optim.weight_decay": 0.01, "stages.0.lr": 0.05},
        {"stages.0.lr": 0.01, "optim.weight_decay": 0.01},
    ]
    pools = {"feature.pool": {"choice": [2, 4]}}
    (params,) = warm_start.configurations(a_space(LR | pools, other.root, trials=1))
    assert params == {"stages.0.lr": 0.05, "feature.pool": 4}


def test_a_trial_goes_only_to_those_spaces_of_a_union_whose_model_is_its_own(other, a_union):
    search(other, a_space(LR), [0.3])
    assert warm_start.configurations(a_union(other.root)) == [
        {"space": "cnn", "cnn.stages.0.lr": 0.01, "cnn.model.width": 4}
    ]
    (params,) = warm_start.configurations(a_space(LR | DECAY, other.root))
    assert params["stages.0.lr"] == 0.01, "a space alone takes what fits, whatever the model"


def test_from_one_union_to_another_each_trial_goes_to_its_own_model(other, a_union):
    search(other, a_union(), [0.5, 0.2])
    net, cnn = warm_start.configurations(a_union(other.root))
    assert net == {"space": "net", "net.stages.0.lr": 0.05, "net.optim.weight_decay": 0.01}
    assert cnn == {"space": "cnn", "cnn.stages.0.lr": 0.01, "cnn.model.width": 4}


def test_a_union_without_a_trials_model_says_so(other, a_union):
    search(other, a_space(LR), [0.3])
    deep = {"base": BASE | {"model": RESNET}, "search": LR}
    with pytest.raises(
        ConfigError, match=r"none of its 1 complete trials fits into the ranges of space both, or has a"
    ):
        warm_start.check(a_union(other.root, cnn=deep))


def test_a_searched_model_decides_where_a_trial_goes(other, a_union):
    either = {"model": {"choice": [RESNET, {"name": "basic_cnn", "width": 4, "depth": 2}]}}
    search(other, a_space(LR | either), [0.3])
    found = warm_start.configurations(
        a_union(other.root, net={"base": BASE | {"model": RESNET}, "search": either | LR})
    )
    assert sorted(params["space"] for params in found) == ["cnn", "net"], "one of net's models is the trial's"


def test_a_new_search_begins_with_its_base_and_then_with_them(other, tmp_path):
    theirs = search(other, a_space(LR), [0.5, 0.2, 0.4])
    (tmp_path / "new").mkdir()
    folder, space = StudyFolder(tmp_path / "new"), a_space(LR | WIDTH, other.root, trials=2)
    first = Journal(folder, space)
    runs = [first.propose(8)[1]]
    search(other, a_space(LR), [0.1])  # the other study goes on; this one has begun
    again = Journal(folder, space)
    runs += [again.propose(8)[1] for _ in range(3)]
    assert [lr_of(run) for run in runs[:3]] == [0.01, lr_of(theirs[1]), lr_of(theirs[2])]
    assert runs[3] not in theirs and lr_of(runs[3]) not in {lr_of(run) for run in theirs}


def test_faults_are_named_before_anything_starts(other, tmp_path):
    def fault(search, root):
        with pytest.raises(ConfigError) as error:
            warm_start.check(a_space(search, root))
        return str(error.value)

    assert f"space toy: sampler.warm_start: {tmp_path / 'none'}: no such folder" in fault(LR, tmp_path / "none")
    assert "is no study" in fault(LR, tmp_path)
    assert "it has no complete trial to fit into the ranges of space toy" in fault(LR, other.root)
    search(other, a_space(LR), [None])
    assert "it has no complete trial" in fault(LR, other.root)
    search(other, a_space(LR), [0.3, 0.2])
    assert "none of its 2 complete trials fits into the ranges of space toy" in fault(WIDTH, other.root)
    assert "none of its 2 complete trials fits" in fault({"stages.0.lr": {"log_uniform": [0.5, 0.9]}}, other.root)
    warm_start.check(a_space(LR, other.root))
    warm_start.check(a_space(LR))


def test_the_folds_that_chose_it_are_those_of_the_other_study(other):
    search(other, a_space(LR), [0.3, 0.2])
    space = a_space(LR, other.root)
    dealt(other)
    assert warm_start.selected_on(space, *PATIENTS) == (0, 1, 2), "no table is left to say which: the worst"
    table(other, other.trial("toy-0000").fold(1).oof, "toy-0000", (1,))
    assert warm_start.selected_on(space, *PATIENTS) == (1,)
    table(other, other.oof("toy-0001"), "toy-0001", (1, 2))
    table(other, other.oof("toy-base"), "toy-base", ())
    assert warm_start.selected_on(space, *PATIENTS) == (1, 2)
    table(other, other.trial("toy-0001").fold(2).oof, "toy-0001", (2,))
    table(other, other.oof("toy-0001"), "toy-0001", (0, 1, 2))
    assert warm_start.selected_on(space, *PATIENTS) == (1, 2), (
        "on fold 0 a round chose, of trials that are best on others"
    )


def test_other_folds_are_spoiled_by_their_patients_and_other_patients_spoil_none(other):
    search(other, a_space(LR), [0.3])
    dealt(other)
    table(other, other.oof("toy-0000"), "toy-0000", (0,))
    space, (groups, folds) = a_space(LR, other.root), PATIENTS
    assert warm_start.selected_on(space, groups, folds) == (0,)
    assert warm_start.selected_on(space, np.repeat(groups, 3), np.tile([0, 1, 2], 6)) == (0, 1, 2), "dealt out anew"
    assert warm_start.selected_on(space, groups[::2], np.array([4, 3, 2])) == (4,), "units may differ, patients count"
    assert warm_start.selected_on(space, np.array(["someone", "else"]), np.array([0, 1])) == ()
    assert warm_start.selected_on(a_space(LR), groups, folds) == ()
