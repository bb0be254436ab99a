"""A run's configuration: strict, every fault at once, and the same after a trip through YAML."""

import copy

import pytest

from hms_ray import registry
from hms_ray.core import files
from hms_ray.core.errors import ConfigError
from hms_ray.core.plain_yaml import load_yaml
from hms_ray.training.run_config import parse_run, try_run

RUN = {
    "data": {"name": "hms"},
    "feature": {"name": "kaggle_spectrogram", "pool": 4},
    "model": {"name": "basic_cnn", "width": 4, "depth": 2},
    "stages": [{"epochs": 1, "lr": 0.01}],
}


def changed(path, value):
    """RUN with another value at a dotted path."""
    content = copy.deepcopy(RUN)
    *parents, last = path.split(".")
    target = content
    for key in parents:
        target = target[int(key)] if isinstance(target, list) else target.setdefault(key, {})
    target[last] = value
    return content


def faults(content):
    run, found = try_run(content)
    assert run is None
    return found


def test_defaults_are_filled_in():
    run = parse_run(RUN)
    assert (run.folds, run.seed, run.score.min_votes, run.augment) == (5, 0, 10, ())
    assert run.content["optim"]["name"] == "adamw"
    assert run.content["data"] == {"name": "hms", "rows": "period"}
    assert run.content["model"]["drop_rate"] == 0.1


def test_a_run_of_this_packages_components_has_the_content_that_it_always_had():
    run = parse_run(changed("augment", {"xy_mask": {}, "mixup": {"p": 0.25}}))
    assert not {"files", "packages"} & set(run.content)
    # A checkpoint is continued by this; it changes only with a parameter or a default.
    assert files.fingerprint(run.content) == "563c3df97e7a99ca"


def test_a_run_makes_the_trip_through_yaml(tmp_path):
    content = changed("augment", {"xy_mask": {"width": 1e-5}, "mixup": {}})
    content["stages"][0] |= {"lr": 1e-7, "max_votes": None}
    run = parse_run(content)
    files.write_yaml(tmp_path / "config.yaml", run.content)
    again = parse_run(load_yaml(tmp_path / "config.yaml"))
    assert again == run
    assert again.content == run.content
    assert list(again.content["augment"]) == ["xy_mask", "mixup"], "augmentations keep their order"


def test_an_augmentation_without_anything_below_takes_its_defaults():
    assert parse_run(changed("augment.mixup", None)).content["augment"]["mixup"] == {"p": 0.5, "alpha": 0.4}


def test_every_fault_is_reported_at_once():
    content = changed("model", {"name": "basic_cn"})
    content["feature"]["pool"] = 3
    content["stages"][0]["lr"] = -1
    content["augment"] = {"mixup": {"p": 2.0}, "cutmix": {}}
    content["speed"] = 3
    with pytest.raises(ConfigError) as error:
        parse_run(content)
    for part in (
        "6 faults",
        "model.name: no model named 'basic_cn'; there are: ",
        "feature.pool: Input should be 1, 2 or 4, but got 3",
        "stages.0.lr: ",
        "augment.mixup.p: ",
        "augment: no augmentation named 'cutmix'",
        "speed: unknown key (value 3)",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("folds", True),
        ("folds", "3"),
        ("folds", 3.0),
        ("folds", 1),
        ("seed", -1),
        ("seed", 2**32),
        ("seed", 1.5),
        ("seed", None),
        ("stages", []),
        ("stages", None),
        ("stages", {"epochs": 1, "lr": 0.1}),
        ("stages", [3]),
        ("stages.0.epochs", True),
        ("stages.0.epochs", "1"),
        ("stages.0.lr", "1e-3"),
        ("stages.0.lr", float("nan")),
        ("stages.0.speed", 1),
        ("score", 10),
        ("score.min_votes", 0),
        ("score.min_vote", 10),
        ("optim", "adamw"),
        ("optim.batch", True),
        ("optim.name", "adamx"),
        ("feature.pool", "2"),
        ("feature.arange", "stack"),
        ("model", "basic_cnn"),
        ("model", None),
        ("model", {}),
        ("model", {"name": None}),
        ("model", {"name": ["basic_cnn"]}),
        ("model", {"name": "_heads"}),
        ("model", {"name": "../models/basic_cnn"}),
        ("model.width", 4.0),
        ("model.width", 3),
        ("model.widht", 4),
        ("data.name", "hmss"),
        ("augment", ["mixup"]),
        ("augment", "mixup"),
        ("augment.mixup", 0.5),
        ("augment.mixup", [0.5]),
        ("augment.mixup", "often"),
        ("augment._compose", {}),
        ("augment.mixup.p", "0.5"),
    ],
)
def test_a_fault_names_its_place(path, value):
    found = faults(changed(path, value))
    place = path.split(".")[0]
    assert found
    assert all(fault.startswith(place) for fault in found), found


@pytest.mark.parametrize("section", ["data", "feature", "model", "stages"])
def test_a_missing_section_is_named(section):
    assert f"{section}: missing" in faults({k: v for k, v in RUN.items() if k != section})


@pytest.mark.parametrize("content", [{}, {3: 4}, {**RUN, 3: 4}, {**RUN, None: 1}])
def test_strange_keys_are_faults(content):
    assert faults(content)


@pytest.mark.parametrize("content", [None, [], "run", 3])
def test_what_is_no_mapping_is_no_run(content):
    with pytest.raises(ConfigError, match="mapping"):
        parse_run(content)


def test_a_model_of_another_layout_is_refused(monkeypatch):
    monkeypatch.setattr(registry.load("models", "basic_cnn"), "LAYOUT", "wave")
    with pytest.raises(ConfigError, match=r"model.name: basic_cnn takes 'wave' inputs, but .* gives 'image'"):
        parse_run(RUN)


STAGES = [{"epochs": 1, "lr": 0.01}, {"epochs": 1, "continues": True}]


def with_stage(**second):
    """RUN with a second stage that continues the first."""
    return changed("stages", [dict(STAGES[0]), STAGES[1] | second])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (with_stage(augment={"mixup": {"p": 2.0}}), "stages.1.augment.mixup.p: "),
        (with_stage(augment={"cutmix": {}}), "stages.1.augment: no augmentation named 'cutmix'; there are: "),
        (with_stage(augment={"mixup": {"q": 1}}), "stages.1.augment.mixup.q: unknown key"),
        (with_stage(augment=["mixup"]), "stages.1.augment: "),
        (with_stage(low_votes={"start": 2}), "stages.1.low_votes.start: "),
        (with_stage(pseudo={"parts": 1}), "stages.1.pseudo.parts: "),
        (with_stage(evaluations=0), "stages.1.evaluations: "),
        (with_stage(lr=0.1), "stages.1: a stage that continues another has its lr, schedule, warmup"),
        (changed("stages", [{"epochs": 1}]), "stages.0: lr is missing; only a stage that `continues` another has none"),
        (changed("stages", [STAGES[1]]), "stages.0.continues: the first stage has none before it"),
        (changed("stages.0.pseudo", {}), "stages.0.pseudo: the first stage has none before it"),
        (changed("optim.layer_decay", 0), "optim.layer_decay: "),
        (changed("optim.precision", "half"), "optim.precision: Input should be 'auto', 'float32', 'bfloat16' or "),
    ],
)
def test_faults_of_stages_and_of_the_optimiser_are_named_by_their_path(content, expected):
    [found] = faults(content)
    assert found.startswith(expected)


def test_faults_of_augmentations_are_found_in_every_place_at_once():
    content = with_stage(augment={"mixup": {"p": 2.0}})
    content["augment"] = {"cutmix": {}}
    content["stages"][0]["augment"] = {"xy_mask": {"p": -1}}
    assert sorted(fault.split(": ")[0] for fault in faults(content)) == [
        "augment",
        "stages.0.augment.xy_mask.p",
        "stages.1.augment.mixup.p",
    ]


def test_an_unknown_choice_of_the_epoch_names_the_known_ones():
    [found] = faults(changed("epoch", "beast"))
    assert found.startswith("epoch: Input should be 'cross_fitted', 'last' or 'best', but got 'beast'")


def test_stages_have_the_runs_augmentations_or_their_own():
    content = changed("augment", {"mixup": {"p": 0.3}})
    content["stages"] = [{"epochs": 1, "lr": 0.1, "augment": a} for a in (None, {}, {"xy_mask": None, "mixup": {}})]
    run = parse_run(content)
    found = [[(c.name, c.params.model_dump().get("p")) for c in stage] for stage in run.stage_augment]
    assert found == [[("mixup", 0.3)], [], [("xy_mask", 0.5), ("mixup", 0.5)]]


def test_evaluations_count_as_epochs():
    assert parse_run(with_stage(epochs=3, evaluations=4)).epochs == 1 + 3 * 4


def test_everything_about_stages_and_epochs_makes_the_trip_through_yaml(tmp_path):
    second = {
        "augment": {"mixup": {"p": 0.25}},
        "low_votes": {"below": 8, "start": 0.75, "end": 0.25},
        "pseudo": {"below": 9, "share": 0.5, "parts": 4},
        "evaluations": 3,
        "max_votes": 9,
    }
    own = {"layer_decay": 0.75, "head_lr_multiplier": 10.0, "precision": "float32", "compile": True}
    for epoch in ("cross_fitted", "last", "best"):
        run = parse_run(with_stage(**second) | {"epoch": epoch, "optim": own})
        files.write_yaml(tmp_path / "config.yaml", run.content)
        again = parse_run(load_yaml(tmp_path / "config.yaml"))
        assert again == run
        assert again.content == run.content
        assert run.content["epoch"] == epoch
        assert run.content["optim"].items() >= own.items()
        assert run.content["stages"][1].items() >= second.items()
        assert run.content["stages"][1]["lr"] is None and run.content["stages"][1]["continues"]


def test_a_stage_that_ends_at_its_best_epoch_wants_the_last_one_to_count():
    stages = [{"epochs": 4, "lr": 0.01, "early_stopping": {"stop": 2}}]
    _, found = try_run(copy.deepcopy(RUN) | {"stages": stages})
    assert found == [
        "stages.0.early_stopping.stop: requires epoch: last, since the stage ends at its best epoch by itself, but "
        "epoch is 'cross_fitted'; set epoch: last, or stop: null"
    ]
    assert try_run(copy.deepcopy(RUN) | {"stages": stages, "epoch": "last"})[1] == []
