"""The file name is the registry key."""

import pkgutil
from pathlib import Path

import pytest

import hms_ray
import hms_ray.models
from hms_ray import registry
from hms_ray.core.errors import ConfigError

KINDS = ("models", "augment", "features", "datasets", "tasks", "pools")


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_without_underscore_is_an_entry(kind: str) -> None:
    folder = Path(hms_ray.__file__).parent.joinpath(*registry.PACKAGES.get(kind, kind).split("."))
    assert registry.names(kind) == sorted(path.stem for path in folder.glob("*.py") if not path.name.startswith("_"))
    assert registry.names(kind)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in registry.names(kind)])
def test_load_imports_that_file(kind: str, name: str) -> None:
    assert registry.load(kind, name).__name__ == f"hms_ray.{registry.PACKAGES.get(kind, kind)}.{name}"


def test_unknown_name_lists_what_exists_and_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        registry.load("models", "basic_cn")
    assert str(caught.value) == (
        f"no model named 'basic_cn'; there are: {', '.join(registry.names('models'))}. Did you mean 'basic_cnn'?"
    )


@pytest.mark.parametrize("name", ["_compose", "../models/basic_cnn", "", None, 3, "xy_mask.py"])
def test_helpers_paths_and_other_types_are_no_entries(name: object) -> None:
    with pytest.raises(ConfigError, match="no augmentation named"):
        registry.load("augment", name)


def test_a_folder_is_listed_once_until_a_file_comes_or_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed, iter_modules = [], pkgutil.iter_modules
    monkeypatch.setattr(pkgutil, "iter_modules", lambda paths: listed.append(paths) or iter_modules(paths))
    monkeypatch.setattr(hms_ray.models, "__path__", [str(tmp_path / "none"), str(tmp_path)])
    for names in (["mine"], ["mine", "other"]):
        (tmp_path / f"{names[-1]}.py").touch()
        assert [registry.names("models") for _ in range(50)] == [names] * 50
    assert len(listed) == 2
