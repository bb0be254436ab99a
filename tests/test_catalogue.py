"""What can be named is listed without importing it, and described with its parameters."""

import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
import yaml
from pydantic import Field

from hms_ray import catalogue, registry
from hms_ray.core.errors import ConfigError
from hms_ray.core.params import Params, places


@pytest.mark.parametrize(
    ("kind", "folder"),
    [("models", "models"), ("features", "features"), ("augmentations", "augment"), ("datasets", "datasets")],
)
def test_a_kind_has_the_entries_of_its_registry(kind: str, folder: str) -> None:
    assert catalogue.names(kind) == registry.names(folder)
    assert all(entry.line and "\n" not in entry.line for entry in catalogue.entries(kind))


def test_pools_and_spaces_are_those_that_a_command_takes(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hms_ray.ensemble import methods

    monkeypatch.chdir(repository)
    assert catalogue.names("pools") == methods.names()
    assert catalogue.names("spaces") == sorted(path.stem for path in (repository / "search_spaces").glob("*.yaml"))


def test_the_sections_described_are_those_that_spaces_have() -> None:
    from hms_ray.search.space.settings import SETTINGS
    from hms_ray.training.run_config import Sections

    of_run = {path.partition(".")[0] for path in places(Sections) if "." in path}
    assert set(catalogue.SECTIONS) == of_run | set(SETTINGS)


def test_a_list_is_one_line_an_entry_under_its_kind() -> None:
    [head, *lines] = catalogue.listing(["datasets"])
    assert head == "datasets:"
    assert [line.split()[0] for line in lines] == catalogue.names("datasets")
    heads = [line for line in catalogue.listing() if not line.startswith(" ")]
    assert heads == [f"{kind}:" for kind in catalogue.KINDS]


def test_a_list_imports_none_of_the_large_libraries() -> None:
    program = "import sys; from hms_ray import catalogue; list(catalogue.listing()); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"torch", "ray", "optuna", "pandas", "numpy", "pydantic"} & set(done.stdout.split())


class Inner(Params):
    """Nested."""

    share: float = Field(0.5, gt=0, le=1, description="of it")


class Outer(Params):
    """Every type that parameters have."""

    width: int = Field(ge=4, le=256)
    kind: Literal["a", "b"] | None = None
    size: tuple[int, int] = (2, 3)
    on: bool | str = True
    inner: Inner | None = Field(None, description="may be left out")


def test_parameters_are_told_with_type_default_bounds_and_description() -> None:
    assert list(catalogue.parameters(Outer)) == [
        ("width", "whole number", "required", ">= 4, <= 256", ""),
        ("kind", "a | b | null", "null", "", ""),
        ("size", "[whole number, whole number]", "[2, 3]", "", ""),
        ("on", "true | false | text", "true", "", ""),
        ("inner", "mapping | null", "null", "", "may be left out"),
        ("inner.share", "number", "0.5", "> 0, <= 1", "of it"),
    ]


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "basic_cnn",
            ["model basic_cnn: A small ", "  in a space: model: {name: basic_cnn}", "  width  ", "space basic_"],
        ),
        ("kaggle_spectrogram", ["feature kaggle_spectrogram: ", "  arrange  "]),
        ("mixup", ["augmentation mixup: ", "  in a space: augment: {mixup: {}}", "  alpha  "]),
        ("hms", ["data set hms: ", "  rows  "]),
        ("log_linear", ["pool log_linear: ", "  hms-ray ensemble --study DIR --pool log_linear", "  ridge "]),
        ("auto", ["pool auto: "]),
        ("stages", ["section stages: ", "  stages.0.lr ", "  stages.0.pseudo.share "]),
        ("budget", ["section budget: ", "  budget.trials "]),
    ],
)
def test_what_is_described_begins_with_what_it_is(name: str, lines: list[str]) -> None:
    told = list(catalogue.description(name))
    for line in lines:
        assert any(other.startswith(line) for other in told), (line, told)


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in catalogue.KINDS if kind != "spaces" for name in catalogue.names(kind)]
)
def test_everything_but_spaces_can_be_described(kind: str, name: str) -> None:
    if name == "braindecode_wave":
        pytest.importorskip("braindecode")
    if name not in catalogue.names("spaces"):
        assert list(catalogue.description(name))


def test_a_space_is_told_as_its_file_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    base = {
        "data": {"name": "hms"},
        "feature": {"name": "kaggle_spectrogram"},
        "model": {"name": "basic_cnn"},
        "stages": [{"epochs": 2, "lr": 0.01}],
    }
    path = Path("search_spaces") / "mine.yaml"
    path.parent.mkdir()
    content = {"description": "Mine. Not yours.", "base": base, "search": {"stages.0.lr": {"uniform": [0.1, 0.2]}}}
    path.write_text(yaml.safe_dump(content))
    told = list(catalogue.description("mine"))
    assert told[:3] == ["space mine: Mine.", "  file: search_spaces/mine.yaml", "  base:"]
    assert "    model: {name: basic_cnn}" in told and "      - {epochs: 2, lr: 0.01}" in told
    assert "    stages.0.lr: {uniform: [0.1, 0.2]}" in told
    assert any(line.startswith("  budget: {trials: 16,") for line in told)
    path.with_name("both.yaml").write_text(yaml.safe_dump({"spaces": ["mine"]}))
    assert "    mine: 1 ranges" in list(catalogue.description("both"))


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"nothing is named 'tim_image'.*; did you mean 'timm_image'"):
        list(catalogue.description("tim_image"))
