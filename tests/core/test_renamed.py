"""Old names of keys are read for one version, and a log line names the new one."""

import logging
from pathlib import Path

import pytest
import yaml

from hms_ray.core import renamed
from hms_ray.core.errors import ConfigError
from hms_ray.search.space import space
from hms_ray.study.folder import StudyFolder

OLD = """
base:
  data: {name: bmd_hs}
  feature: {name: heart_spectrogram}
  model: {name: basic_cnn}
  input: {side: [age]}
  optim: {head_lr: 2.0}
  epoch: last
  stages:
    - {epochs: 2, lr: 0.01, watch: {stop: 3}}
search:
  optim.head_lr: {log_uniform: [1.0, 20.0]}
  input.side: {choice: [[], [age]]}
  stages.0.watch.patience: {choice: [2, 3], when: {input.side: [age]}}
  stages: {choice: [[{epochs: 2, lr: 0.01, watch: {stop: 3}}], [{epochs: 3, lr: 0.01, watch: {stop: 4}}]]}
smoke:
  optim.head_lr: 1.0
"""
NEW = OLD.replace("head_lr", "head_lr_multiplier").replace("side", "covariates").replace("watch", "early_stopping")


@pytest.fixture(autouse=True)
def _as_for_the_first_time() -> None:
    renamed._warn.cache_clear()


def test_an_old_space_is_the_new_one(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        content = [renamed.space(yaml.safe_load(text)) for text in (OLD, NEW)]
    assert content[0] == content[1]
    said = [record.getMessage() for record in caplog.records]
    assert "optim.head_lr is now called optim.head_lr_multiplier; the old name works until version 0.3" in said
    assert "stages.0.watch is now called stages.0.early_stopping; the old name works until version 0.3" in said
    assert len(said) == len(set(said)), "once each"


def test_a_space_and_an_override_of_old_names_are_loaded(tmp_path: Path) -> None:
    content = yaml.safe_load(OLD)
    del content["search"]["stages"], content["search"]["stages.0.watch.patience"]
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(content))
    loaded = space.load(str(tmp_path / "toy.yaml"), ("optim.head_lr=3.0", "stages.0.watch.stop=5"))
    assert loaded.run.optim.head_lr_multiplier == 3.0
    assert loaded.run.input.covariates == ("age",)
    assert loaded.run.stages[0].early_stopping.stop == 5
    assert [item.path for item in loaded.ranges] == ["input.covariates"]


def test_a_key_given_by_both_names_is_refused(tmp_path: Path) -> None:
    content = yaml.safe_load(NEW)
    content["base"]["optim"]["head_lr"] = 1.0
    content["search"] = {}
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=r"base\.optim\.head_lr: unknown key"):
        space.load(str(tmp_path / "toy.yaml"))


def test_a_study_of_old_names_holds_the_same_space(tmp_path: Path) -> None:
    content = yaml.safe_load(OLD)
    content["search"] = {"optim.head_lr": {"log_uniform": [1.0, 20.0]}}
    old = {"description": "", "base": content["base"], "search": content["search"], "budget": {}}
    folder = StudyFolder(tmp_path / "study")
    identity = {
        "task": {"kind": "votes", "classes": ["a", "b"]},
        "data": {"name": "toy", "params": {}, "fingerprint": "d", "units": 4, "groups": 2},
        "folds": {"k": 3, "seed": 0, "fingerprint": "f"},
        "score": {"min_votes": 1},
        "epoch": "last",
    }
    folder.claim(identity)
    folder.add_space("toy", old)
    folder.add_space("toy", renamed.space(old))
    assert folder.read_study()["spaces"]["toy"]["search"] == {"optim.head_lr_multiplier": {"log_uniform": [1.0, 20.0]}}


def test_only_keys_at_their_places_are_renamed() -> None:
    run = {"model": {"side": 3, "watch": 1}, "stages": [{"augment": {"side": {}}}], "side": 1}
    assert renamed.values(run) == run
    assert [renamed.path(p) for p in ("stages.12.watch.stop", "stages.watch", "optim.head_lrs")] == [
        *("stages.12.early_stopping.stop", "stages.watch", "optim.head_lrs"),
    ]
