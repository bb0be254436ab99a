"""Search spaces: found, checked whole, overridden, suggested; conditions hold only where they should."""

import copy
from pathlib import Path

import optuna
import pytest
import yaml

from hms_ray.core.errors import ConfigError
from hms_ray.search.space import space, validation
from hms_ray.search.space.paths import put
from hms_ray.search.space.space import parse
from hms_ray.study import journal_records
from hms_ray.training import run_config
from hms_ray.training.run_config import parse_run, try_run

BASE = {
    "data": {"name": "hms"},
    "feature": {"name": "kaggle_spectrogram", "pool": 4},
    "model": {"name": "basic_cnn", "width": 4, "depth": 2},
    "augment": {"mixup": {"p": 0.5}},
    "stages": [{"epochs": 5, "lr": 0.01}],
    "folds": 3,
}
TIMM = {"name": "timm_image", "arch": "resnet18", "pretrained": True}
CNN = {"name": "basic_cnn"}


def made(search=None, base=None, name="toy", **sections):
    return parse(name, {"base": copy.deepcopy(base or BASE), "search": search or {}, **sections})


def suggestions(item, count=60, seed=0):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [item.suggest(study.ask()) for _ in range(count)]


def refused(match, **content):
    with pytest.raises(ConfigError, match=match):
        made(**content)


def test_suggestions_are_valid_runs_that_differ_only_where_searched():
    item = made({"model.width": {"int": [4, 16]}, "stages.0.lr": {"log_uniform": [1e-3, 1e-1]}})
    before = copy.deepcopy(item.base)
    found = suggestions(item)
    assert len({run["model"]["width"] for run in found}) > 5
    for run in found:
        assert try_run(run)[1] == []
        run["model"]["width"], run["stages"][0]["lr"] = 4, 0.01
        assert run == item.base
    assert item.base == before


def test_a_condition_holds_only_where_it_should():
    item = made(
        {
            "model": {"choice": [CNN, TIMM]},
            "model.width": {"int": [4, 64], "when": {"model.name": "basic_cnn"}},
            "model.arch": {"choice": ["resnet18", "resnet34"], "when": {"model.name": ["timm_image"]}},
        }
    )
    found = suggestions(item)
    assert {run["model"]["name"] for run in found} == {"basic_cnn", "timm_image"}
    for run in found:
        assert try_run(run)[1] == []
        assert ("width" in run["model"]) == (run["model"]["name"] == "basic_cnn")
        assert ("arch" in run["model"]) == (run["model"]["name"] == "timm_image")


def test_conditions_are_joined_by_and():
    item = made(
        {
            "feature.arrange": {"choice": ["stack", "channels"]},
            "feature.pool": {"choice": [2, 4]},
            "stages.0.lr": {"uniform": [0.5, 1.0], "when": {"feature.arrange": "stack", "feature.pool": 2}},
        }
    )
    for run in suggestions(item):
        both = run["feature"]["arrange"] == "stack" and run["feature"]["pool"] == 2
        assert (run["stages"][0]["lr"] >= 0.5) == both


def test_a_chain_of_conditions_holds():
    item = made(
        {
            "feature.pool": {"choice": [2, 4]},
            "model.width": {"choice": [4, 8], "when": {"feature.pool": 2}},
            "stages.0.lr": {"uniform": [0.5, 1.0], "when": {"model.width": 8}},
        }
    )
    for run in suggestions(item):
        assert (run["stages"][0]["lr"] >= 0.5) == (run["model"]["width"] == 8)


def test_a_condition_may_name_a_value_inside_a_range():
    item = made({"model.depth": {"int": [2, 6]}, "stages.0.lr": {"uniform": [0.5, 1.0], "when": {"model.depth": 3}}})
    for run in suggestions(item):
        assert (run["stages"][0]["lr"] >= 0.5) == (run["model"]["depth"] == 3)


def test_a_condition_on_a_default_holds():
    item = made({"stages.0.lr": {"uniform": [0.5, 1.0], "when": {"feature.arrange": "stack", "optim.name": "adamw"}}})
    assert all(run["stages"][0]["lr"] >= 0.5 for run in suggestions(item, 5))


@pytest.mark.parametrize("when", [{"model.name": "timm_image"}, {"model.colour": 1}, {"stages.0.lr": 0.5}, {"a.b": 1}])
def test_a_condition_that_never_holds_is_a_fault(when):
    refused(r"search.model.width: its condition .* never holds", search={"model.width": {"int": [4, 8], "when": when}})


@pytest.mark.parametrize(
    ("path", "content", "fault"),
    [
        ("model.width", {"int": [2, 8]}, r"search.model.width = 2: model.width: .*greater than or equal to 4"),
        ("model.width", {"int": [4, 512]}, r"search.model.width = 512: model.width: .*less than or equal to 256"),
        ("model.width", {"uniform": [4, 8.5]}, r"search.model.width = 8.5: model.width"),
        ("model.drop_rate", {"uniform": [0, 1]}, r"search.model.drop_rate = 1: .*less than 1"),
        ("feature.pool", {"choice": [1, 3]}, r"search.feature.pool = 3: feature.pool: Input should be 1, 2 or 4"),
        ("model", {"choice": [CNN, {"name": "resnet"}]}, r"no model named 'resnet'"),
        ("model.witdh", {"int": [4, 8]}, r"model.witdh: unknown key"),
        ("modle.width", {"int": [4, 8]}, r"search.modle.width: the run has no such place: no 'modle'"),
        ("stages.1.lr", {"uniform": [0.1, 0.2]}, r"search.stages.1.lr: the run has no such place: no '1'"),
        ("stages.-1.lr", {"uniform": [0.1, 0.2]}, r"the run has no such place"),
        ("stages.\u00b2.lr", {"uniform": [0.1, 0.2]}, r"the run has no such place"),
        ("model.name.x", {"int": [4, 8]}, r"the run has no such place"),
        ("", {"int": [4, 8]}, r"unknown key"),
        (
            "folds",
            {"int": [2, 5]},
            r"search.folds: data, folds, score, .*, seed belong to the study",
        ),
        ("score.min_votes", {"int": [2, 5]}, r"search.score.min_votes: .* belong to the study"),
        ("data.rows", {"choice": ["eeg"]}, r"belong to the study"),
        (3, {"int": [2, 5]}, r"must be a dotted path"),
    ],
)
def test_ranges_are_checked_at_every_end(path, content, fault):
    refused(fault, search={path: content})


def test_every_fault_of_a_space_is_reported_at_once():
    base = copy.deepcopy(BASE)
    base["model"]["width"] = 1
    with pytest.raises(ConfigError) as error:
        parse(
            "toy",
            {
                "base": base,
                "serach": {},
                "search": {"model.depth": {"int": [2, 9]}, "a": 3},
                "budget": {"trials": 0, "trial_folds": 9, "x": 1},
                "resources": {"cpus": 0},
            },
        )
    for part in (
        "serach: unknown key; a space has description, base, search, smoke, budget, race, sampler, resources, log",
        "base.model.width: ",
        "search.model.depth = 9: model.depth",
        "search.a: must be a mapping",
        "budget.trials: ",
        "budget.x: unknown key",
        "resources.cpus: ",
    ):
        assert part in str(error.value)
    assert str(error.value).count("model.width") == 1, "a fault of the base is told once, not at each range"


@pytest.mark.parametrize("sections", [{"search": [1]}, {"search": "x"}, {"budget": 3}, {"resources": ["x"]}])
def test_sections_must_be_mappings(sections):
    with pytest.raises(ConfigError, match=f"{next(iter(sections))}: must be a mapping"):
        parse("toy", {"base": copy.deepcopy(BASE), **sections})


def test_sections_may_be_left_empty():
    item = parse("toy", {"base": copy.deepcopy(BASE), "search": None, "budget": None, "resources": None})
    assert (item.ranges, item.budget.trials, item.resources.cpus) == ((), 16, 1)


def test_a_trial_cannot_train_more_folds_than_there_are():
    refused(r"budget.trial_folds: must not exceed folds \(3\), but got 4", budget={"trial_folds": 4})


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"race": {"folds": 0}}, "race.folds: Input should be greater than 0, but got 0"),
        ({"race": {"folds": 1.5}}, "race.folds: Input should be less than or equal to 1, but got 1.5"),
        ({"race": {"folds": 0.3}}, "race.folds: must not be below budget.trial_folds / folds (1 / 3), but got 0.3"),
        (
            {"race": {"folds": 0.5}, "budget": {"trial_folds": 2}},
            "race.folds: must not be below budget.trial_folds / folds (2 / 3), but got 0.5",
        ),
        (
            {"race": {"rule": "best", "folds": 0.5}},
            "race: folds is for rule ensemble; rule best trains budget.finalists on all folds, "
            "but got {'rule': 'best', 'folds': 0.5}",
        ),
        ({"race": {"min_gain": -1}}, "race.min_gain: Input should be greater than or equal to 0, but got -1"),
        ({"race": {"min_gain": 1.0}}, "race.min_gain: Input should be less than 1, but got 1.0"),
        ({"budget": {"finalists": 0}}, "budget.finalists: Input should be greater than or equal to 1, but got 0"),
    ],
)
def test_what_rounds_may_spend_is_checked(sections, said):
    with pytest.raises(ConfigError) as error:
        made(**sections)
    assert str(error.value) == f"space toy: {said}"


def test_how_much_rounds_spend_has_defaults_and_older_spaces_keep_theirs():
    assert (made().budget.finalists, made().budget.trial_folds) == (None, 1)
    assert (made().race.min_gain, made().race.folds) == (None, None)
    older = made(budget={"trial_folds": 2, "finalists": 5}, race={"min_gain": 1e-4})
    assert (older.budget.finalists, older.budget.trial_folds, older.race.min_gain) == (5, 2, 1e-4)
    assert made(race={"folds": 1 / 3}).race.folds == 1 / 3, "the first fold of all and the rest of one"


def test_a_smoke_run_has_no_share_of_folds_unless_the_user_sets_one():
    item = made(race={"folds": 0.4, "min_gain": 0.01})
    assert (space.small(item).race.folds, space.small(item).race.min_gain) == (None, 0.01)
    with pytest.raises(
        ConfigError, match=r"as --smoke runs it: race.folds: must not be below .* \(1 / 2\), but got 0.4"
    ):
        space.small(item, ["race.folds=0.4"])


@pytest.mark.parametrize("gpus", [1.5, 2, -1])
def test_a_worker_takes_at_most_one_gpu(gpus):
    refused(r"resources.gpus: Input should be (less|greater) than or equal to", resources={"gpus": gpus})


def test_workers_of_one_fold_share_no_gpu():
    resources = {"gpus": 0.5, "workers_per_fold": 2}
    refused(r"resources: workers of one fold cannot share a GPU: gpus must be 0 or 1, not 0.5", resources=resources)


def test_a_range_that_a_later_one_would_overwrite_is_a_fault():
    refused(
        r"search.model.width: must stand below search.model",
        search={"model.width": {"int": [4, 8], "when": {"model.name": "basic_cnn"}}, "model": {"choice": [CNN, TIMM]}},
    )


def test_a_condition_on_a_later_range_is_a_fault():
    refused(
        r"search.stages.0.lr: must stand below search.model",
        search={
            "stages.0.lr": {"uniform": [0.1, 0.2], "when": {"model.name": "basic_cnn"}},
            "model": {"choice": [CNN, TIMM]},
        },
    )


def test_a_range_must_fit_every_choice_that_it_meets():
    refused(
        r"search.model.width = 4: model.width: unknown key",
        search={"model": {"choice": [CNN, TIMM]}, "model.width": {"int": [4, 8]}},
    )


def test_a_range_below_a_place_that_is_none_does_not_crash():
    refused(r"search.a.b: the run has no such place", search={"a.b": {"choice": [1]}, "a.b.c": {"int": [1, 2]}})


def test_sections_that_the_file_leaves_out_can_be_searched():
    base = {k: v for k, v in BASE.items() if k != "augment"}
    item = made({"optim.batch": {"choice": [4, 8]}, "augment.mixup": {"choice": [{"p": 0.1}, {"p": 0.9}]}}, base=base)
    assert {run["optim"]["batch"] for run in suggestions(item)} == {4, 8}
    base["augment"] = {"mixup": None}
    item = made({"augment.mixup.p": {"uniform": [0.1, 0.2]}}, base=base)
    assert all(run["augment"]["mixup"]["p"] <= 0.2 for run in suggestions(item, 3))


def test_the_base_is_the_first_proposal_where_it_lies_inside_every_range():
    item = made({"model.width": {"int": [4, 8]}, "stages.0.lr": {"log_uniform": [1e-3, 1e-1]}})
    assert item.base_params() == {"model.width": 4, "stages.0.lr": 0.01}
    assert parse_run(item.suggest(optuna.trial.FixedTrial(item.base_params()))) == parse_run(BASE)
    assert made({"model.width": {"int": [5, 8]}}).base_params() is None


@pytest.mark.parametrize(
    "search",
    [
        {"stages.0.max_votes": {"choice": [None, 9]}},
        {"feature.arrange": {"choice": ["channels", "stack"]}},
        {"model": {"choice": [TIMM, {"name": "basic_cnn", "width": 4, "depth": 2}]}},
        {"model": {"choice": [TIMM, {"depth": 2, "width": 4, "name": "basic_cnn", "drop_rate": 0.1}]}},
        {"stages": {"choice": [[{"epochs": 9, "lr": 0.1}], [{"epochs": 5, "lr": 0.01}]]}},
    ],
)
def test_the_base_is_recognised_among_choices(search):
    item = made(search)
    params = item.base_params()
    assert params is not None
    found = item.suggest(optuna.trial.FixedTrial(params))
    assert parse_run(found) == parse_run(BASE)


def test_the_base_is_recognised_where_a_section_and_what_is_below_it_are_searched():
    search = {
        "model": {"choice": [TIMM, {"name": "basic_cnn", "depth": 2}]},
        "model.width": {"int": [4, 8], "when": {"model.name": "basic_cnn"}},
    }
    params = made(search).base_params()
    assert params == {"model": '{"depth": 2, "name": "basic_cnn"}', "model.width": 4}


def test_a_place_that_the_base_lacks_has_no_base_value():
    assert made({"augment.xy_mask": {"choice": [{"p": 0.1}, {"p": 0.2}]}}).base_params() is None


def test_conditional_ranges_that_do_not_hold_for_the_base_have_no_base_value():
    search = {
        "model": {"choice": [{"name": "basic_cnn", "width": 4, "depth": 2}, TIMM]},
        "model.arch": {"choice": ["resnet18", "resnet34"], "when": {"model.name": "timm_image"}},
    }
    assert list(made(search).base_params()) == ["model"]


def test_the_smoke_version_is_tiny_whatever_is_searched():
    base = copy.deepcopy(BASE) | {"model": TIMM, "stages": [{"epochs": 50, "lr": 0.01}, {"epochs": 1, "lr": 0.01}]}
    search = {
        "model": {"choice": [TIMM, CNN]},
        "model.arch": {"choice": ["resnet18", "resnet34"], "when": {"model.name": "timm_image"}},
        "model.pretrained": {"choice": [True, False], "when": {"model.name": "timm_image"}},
        "stages.0.epochs": {"int": [10, 50]},
        "stages.0.lr": {"log_uniform": [1e-3, 1e-1]},
    }
    item = space.small(made(search, base=base))
    found = suggestions(item, 20)
    assert (item.budget.trials, item.budget.trial_folds) == (2, 1)
    for run in found:
        assert run["folds"] == 2
        assert [stage["epochs"] for stage in run["stages"]] == [2, 1]
        assert run["model"].get("pretrained", False) is False
    assert len({run["stages"][0]["lr"] for run in found}) > 5, "what is cheap is still searched"


def test_a_space_says_what_its_smoke_run_has_instead():
    search = {
        "model.width": {"int": [4, 64]},
        "optim.weight_decay": {"uniform": [0, 0.1]},
        "stages.0.lr": {"log_uniform": [1e-3, 1e-1]},
    }
    smoke = {"model": {"name": "basic_cnn", "width": 8}, "stages": [{"epochs": 9, "lr": 0.02}]}
    small = space.small(made(search, smoke=smoke))
    run = small.run
    assert (run.folds, run.epochs, run.model.params.width, run.stages[0].lr) == (2, 9, 8, 0.02)
    assert [item.path for item in small.ranges] == ["optim.weight_decay"], "what it sets is not searched"


@pytest.mark.parametrize(
    ("smoke", "fault"),
    [
        ({"model": {"name": "basic_cn"}}, r"smoke.model.name: no model named 'basic_cn'"),
        ({"stages.3.lr": 0.1}, r"smoke.stages.3.lr: the run has no such place: no '3'"),
        ([1], r"smoke: must be a mapping, but is \[1\]"),
    ],
)
def test_a_smoke_run_that_cannot_be_is_refused(smoke, fault):
    refused(fault, smoke=smoke)


@pytest.fixture
def union(tmp_path, monkeypatch):
    """Two spaces and their union, in the working directory; and how to write it with other content."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "search_spaces").mkdir()
    deep = copy.deepcopy(BASE) | {
        "model": {"name": "basic_cnn", "width": 4, "depth": 3},
        "stages": [{"epochs": 1, "lr": 0.5}],
    }

    def write(**changes):
        contents = {
            "wide": {
                "base": BASE,
                "search": {"model.width": {"int": [4, 8]}, "stages.0.lr": {"uniform": [0.001, 0.1]}},
            },
            "deep": {"base": deep, "search": {"model.depth": {"choice": [2, 3]}}},
            "both": {"spaces": ["wide", "deep"], "budget": {"trials": 7}},
        }
        for name, content in (contents | changes).items():
            (tmp_path / "search_spaces" / f"{name}.yaml").write_text(yaml.safe_dump(content))
        return contents

    write()
    return write


def test_a_trial_of_a_union_is_a_trial_of_one_of_its_spaces(union):
    both = space.load("both")
    assert [member.name for member in both.members] == ["wide", "deep"] and both.budget.trials == 7
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(40):
        trial = study.ask()
        run = both.suggest(trial)
        assert try_run(run)[1] == []
        name = trial.params["space"]
        seen.add(name)
        assert all(path == "space" or path.startswith(f"{name}.") for path in trial.params)
        member = space.load(name)
        params = {path: value for path, value in journal_records.own_params(trial.params).items() if path != "space"}
        assert run == member.suggest(optuna.trial.FixedTrial(params)), "as if the space stood alone"
    assert seen == {"wide", "deep"}


def test_a_union_begins_with_the_base_of_each(union):
    assert space.load("both").starts() == [
        {"space": "wide", "wide.model.width": 4, "wide.stages.0.lr": 0.01},
        {"space": "deep", "deep.model.depth": 3},
    ]


def test_a_study_keeps_the_base_of_every_space_of_a_union(union):
    both, wide, deep = map(space.load, ("both", "wide", "deep"))
    kept = both.resolved()
    assert kept["members"] == {"wide": wide.run.content, "deep": deep.run.content}
    assert kept["base"] == wide.run.content, "what is the study's is the first one's"
    assert "members" not in wide.resolved()


def test_a_union_trains_no_more_folds_of_a_trial_than_there_are(union):
    union(both={"spaces": ["wide", "deep"], "budget": {"trial_folds": 4}})
    with pytest.raises(ConfigError, match=r"space both: budget.trial_folds: must not exceed folds \(3\), but got 4"):
        space.load("both")
    assert space.load("both", ("budget.trial_folds=3",)).budget.trial_folds == 3


def test_overrides_of_a_union_reach_all_of_it(union):
    both = space.load("both", ("seed=5", "budget.trials=3"))
    assert [member.run.seed for member in both.members] == [5, 5] and both.budget.trials == 3
    assert [member.budget.trials for member in both.members] == [16, 16]


def test_an_override_may_be_for_one_space_of_a_union(union):
    both = space.load("both", ("wide.model.width=8", "deep.stages.0.lr=0.2", "seed=5"))
    wide, deep = both.members
    assert (wide.run.model.params.width, deep.run.model.params.width) == (8, 4)
    assert (wide.run.stages[0].lr, deep.run.stages[0].lr) == (0.01, 0.2)
    assert (wide.run.seed, deep.run.seed) == (5, 5)
    assert list(both.search) == ["space", "wide.stages.0.lr", "deep.model.depth"], "what it sets is searched no longer"


def test_what_is_set_of_one_space_of_a_union_stays_in_its_smoke_run(union):
    overrides = ("wide.stages.0.epochs=4", "deep.model.depth=2")
    wide, deep = space.small(space.load("both", overrides), overrides).members
    assert (wide.run.stages[0].epochs, deep.run.stages[0].epochs) == (4, 1)
    assert (wide.run.model.params.depth, deep.run.model.params.depth) == (2, 2) and not deep.ranges


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("wdie.model.width=8", "--set wdie: the union has no space of that name; did you mean 'wide'"),
        ("wide=8", "--set wide: unknown key; there are: data, "),
        ("wide.model.widht=8", r"--set wide.model.widht: unknown key; did you mean wide.model.width\?$"),
        ("model.widht=8", r"--set model.widht: unknown key; did you mean model.width\?$"),
        ("wide.optim.lr=1", r"--set wide.optim.lr: unknown key; did you mean wide.stages.0.lr\?$"),
        ("wide.stages.7.lr=1", "--set wide.stages.7.lr: the run has no such place"),
        ("wide.trials=3", r"--set wide.trials: unknown key; did you mean budget.trials\?$"),
        ("wide.model.name=mit", r"--set wide.model.name: .* as a whole, .*: --set wide.model='{name: mit}'$"),
        ("wide.folds=2", "space both: deep has folds: 3, wide has 2"),
        ("wide.budget.trials=3", "--set wide.budget.trials: has no effect, since budget belongs to the union"),
    ],
)
def test_an_override_for_a_space_that_is_not_there_or_cannot_have_it_is_refused(union, override, fault):
    with pytest.raises(ConfigError, match=fault):
        space.load("both", (override,))


def test_an_override_below_a_range_of_one_space_of_a_union_is_told_what_to_fix(union):
    union(wide={"base": BASE, "search": {"model": {"choice": [BASE["model"], CNN]}}})
    fault = "--set wide.model.width: has no effect, since search.model replaces it; fix wide.model instead$"
    with pytest.raises(ConfigError, match=fault):
        space.load("both", ("wide.model.width=8",))


def test_the_smoke_version_of_a_union_is_that_of_each(union):
    both = space.small(space.load("both"))
    assert [(member.run.folds, member.run.stages[0].epochs) for member in both.members] == [(2, 2), (2, 1)]
    assert both.resolved()["search"]["space"] == {"choice": ["wide", "deep"]}
    assert [try_run(run)[1] for run in suggestions(both, 10)] == [[]] * 10


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ({"spaces": ["wide", "depp"]}, r"no space named 'depp'; .* Did you mean 'deep'\?"),
        ({"spaces": []}, r"space both: spaces must be a list of names, but is \[\]"),
        ({"spaces": "wide"}, r"spaces must be a list of names, but is 'wide'"),
        ({"spaces": ["wide", "wide"]}, r"spaces: wide stands twice"),
        ({"spaces": ["wide"], "base": BASE}, r"base: unknown key; a union has description, spaces, budget"),
        ({"spaces": ["wide"], "budget": {"trails": 3}}, r"budget.trails: unknown key"),
    ],
)
def test_a_union_that_cannot_be_is_refused(union, content, fault):
    union(both=content)
    with pytest.raises(ConfigError, match=fault):
        space.load("both")


def test_the_spaces_of_a_union_share_what_is_the_studys(union):
    union(deep={"base": copy.deepcopy(BASE) | {"folds": 4}})
    with pytest.raises(ConfigError, match="space both: deep has folds: 4, wide has 3"):
        space.load("both")


@pytest.fixture
def spaces_here(tmp_path, monkeypatch):
    """A working directory with a space of its own; returns a function that writes more."""
    monkeypatch.chdir(tmp_path)

    def write(name, **content):
        path = Path("search_spaces") / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump({"base": BASE, **content}, sort_keys=False))
        return path

    write("mine.yaml", description="mine", search={"model.width": {"int": [4, 8]}})
    return write


def test_a_space_is_found_by_name_and_by_path(spaces_here):
    assert space.load("mine").name == "mine"
    assert space.load("search_spaces/mine.yaml").description == "mine"


def test_a_space_of_the_working_directory_comes_first(spaces_here):
    assert space.load("demo").description
    spaces_here("demo.yaml", description="my own")
    assert space.load("demo").description == "my own"


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("mein", r"no space named 'mein'; there are: .*mine.* Did you mean 'mine'\?"),
        ("nowhere/mine.yaml", r"--space nowhere/mine.yaml: no such file"),
        ("../mine", r"no space named '../mine'"),
        ("", r"no space named ''"),
    ],
)
def test_an_unknown_space_is_refused(spaces_here, name, fault):
    with pytest.raises(ConfigError, match=fault):
        space.load(name)


@pytest.mark.parametrize("text", ["", "3", "[1]", "base:", "base: 3", "base: [1]", "search: {}"])
def test_a_file_that_is_no_space_is_refused(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match="a space is a mapping with base and search"):
        space.load(str(tmp_path / "a.yaml"))


def test_a_folder_is_no_space(tmp_path):
    (tmp_path / "a.yaml").mkdir()
    with pytest.raises(ConfigError, match="no such file"):
        space.load(str(tmp_path / "a.yaml"))


def test_a_name_that_no_file_could_have_is_refused(tmp_path):
    (tmp_path / "my space.yaml").write_text(yaml.safe_dump({"base": BASE}))
    with pytest.raises(ConfigError, match="'my space' cannot name a file"):
        space.load(str(tmp_path / "my space.yaml"))


def test_overrides_change_the_base_and_end_the_search_of_their_path(spaces_here):
    item = space.load("mine", ("model.width=16", "stages.0.lr=1e-3", "optim.batch=4", "augment={}", "seed=3"))
    run = item.run
    assert (run.model.params.width, run.stages[0].lr, run.optim.batch, run.augment, run.seed) == (16, 1e-3, 4, (), 3)
    assert (item.ranges, item.search) == ((), {})
    assert space.load("mine").run.model.params.width == 4


def test_an_override_of_a_section_ends_the_search_of_what_is_below(spaces_here):
    item = space.load("mine", ("model={name: basic_cnn, width: 32}",))
    assert item.run.model.params.width == 32
    assert item.search == {}


def test_an_override_inside_a_searched_section_is_refused(spaces_here):
    spaces_here("models.yaml", search={"model": {"choice": [CNN, TIMM]}})
    with pytest.raises(ConfigError, match=r"--set model.width: .* search.model .*replaces"):
        space.load("models", ("model.width=8",))


def test_overrides_reach_budget_and_resources(spaces_here):
    item = space.load("mine", ("budget.trials=3", "resources.gpus=1", "resources.workers_per_fold=2"))
    assert (item.budget.trials, item.resources.gpus, item.resources.workers_per_fold) == (3, 1, 2)
    spaces_here("empty.yaml", budget=None)
    assert space.load("empty", ("budget.trials=3",)).budget.trials == 3
    spaces_here("wrong.yaml", budget=7)
    with pytest.raises(ConfigError, match=r"--set budget.trials: the run has no such place: no 'trials' in 7"):
        space.load("wrong", ("budget.trials=3",))


@pytest.mark.parametrize(
    ("base", "fault"),
    [
        ({"optim": {"bach": 1}}, r"base.optim.bach: unknown key \(value 1\); did you mean optim.batch\?"),
        ({"optim": {"lr": 0.1}}, r"base.optim.lr: unknown key \(value 0.1\); did you mean stages.0.lr\?"),
        ({"stages": [{"epochs": 1, "lr": 1, "shedule": "cosine"}]}, r"did you mean stages.0.schedule\?"),
        ({"model": TIMM | {"pretrain": True}}, r"did you mean model.pretrained\?"),
        ({"model": {"width": 8}}, r"base.model.name: missing; there are: ast, band_statistics, "),
        ({"feature": CNN}, r"base.feature.name: no feature named 'basic_cnn'; there are: "),
        ({"test_time": ["mirror"]}, r"base.test_time: no test-time variant .* Did you mean 'mirror_sides'\?$"),
        ({"model": "mit"}, r"base.model: must be a mapping of keys to values, but got 'mit'"),
        (
            {"augment": {"mixup": {"alhpa": 1}}},
            r"augment.mixup.alhpa: unknown key .*; did you mean augment.mixup.alpha",
        ),
    ],
)
def test_an_unknown_key_of_the_base_gets_the_one_that_was_meant(base, fault):
    refused(fault, base=BASE | base)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ({"serach": {}}, r"serach: unknown key; a space has .*; did you mean search\?"),
        ({"stages": []}, r"stages: unknown key; .*; did you mean base.stages\?"),
        ({"budget": {"trails": 1}}, r"budget.trails: unknown key \(value 1\); did you mean budget.trials\?"),
        ({"search": {"stages.0.lr": {"loguniform": [1, 2]}}}, r"it has loguniform; did you mean 'log_uniform'\?"),
        ({"search": {"optim.batch": {"choice": [1], "whne": {}}}}, r"it has choice, whne; did you mean 'when'\?"),
        (
            {"search": {"optim.bach": {"choice": [4, 8]}}},
            r"search.optim.bach: unknown key; did you mean optim.batch\?$",
        ),
        ({"search": {"optimm.batch": {"choice": [4]}}}, r"no 'optimm' in .*; did you mean 'optim'\?"),
        (
            {"search": {"optim.batch": {"choice": [4, 8], "when": {"model.nmae": "mit"}}}},
            r"{.model.nmae.: .mit.} never holds in this space: the run has no model.nmae; did you mean model.name",
        ),
    ],
)
def test_an_unknown_key_of_a_space_gets_the_one_that_was_meant(content, fault):
    refused(fault, **content)


def test_every_bad_override_is_said_at_once(spaces_here):
    with pytest.raises(ConfigError, match=r"(?s)--set: 2 faults.*did you mean stages.0.lr.*did you mean optim.batch"):
        space.load("mine", ("optim.lr=1", "optim.bach=3"))


def test_a_space_in_a_folder_needs_its_ending(spaces_here):
    with pytest.raises(ConfigError, match=r"a file needs its ending: search_spaces/mine.yaml"):
        space.find("search_spaces/mine")
    with pytest.raises(ConfigError, match=r"--space mnie.yaml: no such file; did you mean 'mine'\?"):
        space.find("mnie.yaml")


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("model.width", r"--set 'model.width': must be key=value"),
        ("=3", r"--set '=3': must be key=value"),
        ("modle.width=3", r"--set modle.width: unknown key; did you mean model.width\?"),
        ("stages.7.lr=3", r"--set stages.7.lr: the run has no such place"),
        ("model.width=many", r"base.model.width: .*'many'"),
        ("model.width=2", r"base.model.width: .*but got 2"),
        ("budget.trials=0", r"budget.trials: .*but got 0"),
        ("budget.trails=1", r"budget.trails: unknown key"),
        ("budget=3", r"budget"),
        ("folds=1", r"base.folds: .*but got 1"),
        ("seed=-1", r"base.seed: .*but got -1"),
        ("speed=1", r"--set speed: unknown key; did you mean seed\?"),
        ("model.width=[1", r"is not a YAML value"),
        ("optim.lr=1e-3", r"--set optim.lr: unknown key; did you mean stages.0.lr\?"),
        ("lr=1e-3", r"--set lr: unknown key; did you mean stages.0.lr\?"),
        ("epochs=3", r"--set epochs: unknown key; did you mean stages.0.epochs\?"),
        ("batch=8", r"--set batch: unknown key; did you mean optim.batch\?"),
        ("trials=8", r"--set trials: unknown key; did you mean budget.trials\?"),
        ("base.optim.batch=8", r"--set base.optim.batch: unknown key; did you mean optim.batch\?"),
        ("buget.trials=8", r"--set buget.trials: unknown key; did you mean budget.trials\?"),
        ("model.name=mit", r"--set model.name: each model has its own parameters, .* --set model='{name: mit}'"),
        ("feature.name=raw_eeg", r"each feature has its own parameters, .* --set feature='{name: raw_eeg}'"),
    ],
)
def test_a_bad_override_is_refused_and_told_what_would_be_right(spaces_here, override, fault):
    with pytest.raises(ConfigError, match=fault):
        space.load("mine", (override,))


def test_every_space_of_the_repository_is_valid(repository):
    found = sorted((repository / "search_spaces").glob("*.yaml"))
    assert found
    for path in found:
        item = space.load(str(path))
        small = space.small(item)
        for run in (*suggestions(item, 10), *suggestions(small, 5)):
            assert try_run(run)[1] == [], path
        assert len(item.starts()) == len(item.members), f"{path}: a base run lies outside its own search"


def test_what_a_study_keeps_of_a_space_is_the_same_space():
    item = made({"model.width": {"int": [4, 8]}}, budget={"trials": 3})
    again = parse("toy", item.resolved())
    assert again.resolved() == item.resolved()
    assert again.ranges == item.ranges


def test_what_the_user_sets_stays_in_a_smoke_run():
    base, smoke = made().run.content, {"stages": [{"epochs": 3, "lr": 0.5}], "optim.batch": 4, "model": CNN}
    for path, value in (("stages.0.epochs", 1), ("optim.batch", 7), ("model.width", 32)):
        put(base, path, value)
    small = space.small(made(base=base, smoke=smoke), ["stages.0.epochs=1", "optim.batch=7", "model.width=32"]).run
    assert (small.stages[0].epochs, small.stages[0].lr) == (1, 0.5), "the rest of the section is the smoke run's"
    assert small.optim.batch == 7 and small.model.params.width == 32


def test_trials_and_folds_that_the_user_sets_are_those_of_a_smoke_run(union):
    overrides = ("folds=4", "budget.trials=7")
    for name in ("wide", "both"):
        small = space.small(space.load(name, overrides), overrides)
        assert (small.budget.trials, small.budget.trial_folds, small.budget.finalists) == (7, 1, 2)
        assert {member.run.folds for member in small.members} == {4}
    with pytest.raises(ConfigError, match=r"budget.trial_folds: must not exceed folds \(2\), but got 3"):
        space.small(space.load("wide", ("budget.trial_folds=3",)), ("budget.trial_folds=3",))


def test_weights_that_the_user_names_are_those_of_a_smoke_run():
    item = made(base=copy.deepcopy(BASE) | {"model": TIMM})
    assert space.small(item).run.model.params.pretrained is False
    assert space.small(item, ["model.pretrained=true"]).run.model.params.pretrained is True


def test_a_smoke_run_that_the_user_makes_impossible_is_refused():
    base = copy.deepcopy(BASE) | {"model": TIMM}
    with pytest.raises(ConfigError, match="as --smoke runs it"):
        space.small(made(base=base, smoke={"model": CNN}), ["model.arch=resnet18"])


def test_the_largest_union_checks_a_run_no_more_often_than_its_ends_need(monkeypatch):
    tried, try_run = [], run_config.try_run
    for module in (run_config, space, validation):
        monkeypatch.setattr(module, "try_run", lambda content: tried.append(content) or try_run(content))
    ends = sum(len(item.ends) for member in space.load("all").members for item in member.ranges)
    assert len(tried) < 1.5 * ends, f"{ends} ends, with what they depend on"


def test_a_study_keeps_no_password_of_a_tracking_server():
    item = made(log={"mlflow": "https://me:secret@host/x?token=secret"})
    assert item.resolved()["log"] == {"mlflow": "https://host/x?...", "wandb": None}
    assert item.log.mlflow == "https://me:secret@host/x?token=secret", "which the loggers are given"
