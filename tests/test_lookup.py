"""The file name is the registry key."""

import pkgutil
from pathlib import Path

import pytest

import hms_ray
import hms_ray.models
from hms_ray import lookup
from hms_ray.errors import ConfigError

KINDS = ("models", "augment", "features", "datasets", "tasks")


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_without_underscore_is_an_entry(kind: str) -> None:
    folder = Path(hms_ray.__file__).parent / kind
    assert lookup.names(kind) == sorted(path.stem for path in folder.glob("*.py") if not path.name.startswith("_"))
    assert lookup.names(kind)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in lookup.names(kind)])
def test_load_imports_that_file(kind: str, name: str) -> None:
    assert lookup.load(kind, name).__name__ == f"hms_ray.{kind}.{name}"


def test_unknown_name_lists_what_exists_and_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        lookup.load("models", "basic_cn")
    assert str(caught.value) == (
        f"no model named 'basic_cn'; there are: {', '.join(lookup.names('models'))}. Did you mean 'basic_cnn'?"
    )


@pytest.mark.parametrize("name", ["_compose", "../models/basic_cnn", "", None, 3, "xy_mask.py"])
def test_helpers_paths_and_other_types_are_no_entries(name: object) -> None:
    with pytest.raises(ConfigError, match="no augmentation named"):
        lookup.load("augment", name)


PATHS = ("optim", "optim.name", "optim.batch", "model.name", "stages.0.lr", "stages.1.lr", "stages.0.schedule", "seed")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("optim.bach", "; did you mean optim.batch?"),
        ("stages.0.shedule", "; did you mean stages.0.schedule?"),
        ("optim.lr", "; did you mean stages.0.lr or stages.1.lr?"),
        ("optim.learning_rate", "; did you mean stages.0.lr or stages.1.lr?"),
        ("stages.lr", "; did you mean stages.0.lr or stages.1.lr?"),
        ("batch", "; did you mean optim.batch?"),
        ("modle.name", "; did you mean model.name?"),
        ("optimm.zzz", "; did you mean 'optim'?"),
        ("optim.zzz", "; there are: name, batch"),
        ("zzz", "; there are: optim, seed"),
        ("zzz.zzz", ""),
    ],
)
def test_a_path_that_does_not_exist_gets_the_one_that_was_meant(path: str, said: str) -> None:
    assert lookup.path_hint(path, PATHS) == said


def test_a_suggestion_is_a_word_whatever_keys_yaml_makes() -> None:
    assert lookup.nearest("trails", [True, 3, None, "trials"]) == "trials"


def test_a_long_name_is_quoted_in_part() -> None:
    assert len(lookup.unknown("space", "x" * 5000, ["demo"])) < 300


def test_nothing_near_means_no_suggestion() -> None:
    assert lookup.unknown("space", "zzz", []) == "no space named 'zzz'; there are: none."


def test_a_folder_is_listed_once_until_a_file_comes_or_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed, iter_modules = [], pkgutil.iter_modules
    monkeypatch.setattr(pkgutil, "iter_modules", lambda paths: listed.append(paths) or iter_modules(paths))
    monkeypatch.setattr(hms_ray.models, "__path__", [str(tmp_path / "none"), str(tmp_path)])
    for names in (["mine"], ["mine", "other"]):
        (tmp_path / f"{names[-1]}.py").touch()
        assert [lookup.names("models") for _ in range(50)] == [names] * 50
    assert len(listed) == 2
