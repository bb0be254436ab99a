"""A plug-in that breaks its contract is one error that names the member, what was expected, and the place."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from hms_ray import cli, datasets, registry
from hms_ray.core import recordings, source_files
from hms_ray.core.errors import ConfigError
from hms_ray.ensemble.methods import Candidate
from hms_ray.features._feature import FeatureRef
from hms_ray.search.space import locate, space
from hms_ray.tasks.binary import Task
from hms_ray.training.dry_run import rehearse
from tests.extending import blocks, write_files

FILES = {
    "models": "toy_net.py",
    "features": "toy_levels.py",
    "augment": "toy_gain.py",
    "datasets": "toy_sounds.py",
    "pools": "toy_median.py",
}
PARAMS = "Params must be a subclass of hms_ray.core.params.Params, strict and frozen"
COUNTER = itertools.count()

# kind, a text of the example, what stands there instead, the message
BROKEN = [
    ("models", 'LAYOUT = "wave"\n', "", 'LAYOUT is missing: it must be "image", "wave" or "embedding"'),
    ("models", '"wave"', '"picture"', 'LAYOUT must be "image", "wave" or "embedding", but is \'picture\''),
    ("models", "(*layers)\n", "(*layers)\n\n\ndel Params\n", PARAMS.replace(" must", " is missing: it must")),
    ("models", "(params.Params)", "", f"{PARAMS}, but is <class "),
    (
        "models",
        "    hidden: int",
        '    model_config = {"strict": False}\n    hidden: int',
        "sets strict to False, not True",
    ),
    ("models", "    hidden: int", '    model_config = {"frozen": False}\n    hidden: int', "sets frozen to False"),
    (
        "models",
        "    hidden: int",
        '    file: str = ""\n    hidden: int',
        "it has a field 'file', which in a space names",
    ),
    ("models", "def build(", "def make(", "build is missing: it must be a function of (spec, n_outputs, params)"),
    (
        "models",
        ", n_outputs: int, params: Params)",
        ")",
        "build must be a function of (spec, n_outputs, params), but takes",
    ),
    (
        "models",
        "def build(",
        "build = 3\n\n\ndef make(",
        "build must be a function of (spec, n_outputs, params), but is 3",
    ),
    (
        "models",
        "def build(",
        "def source(params):\n    return None\n\n\ndef build(",
        "with a source is given weights as well",
    ),
    ("features", "def spec(", "def shape(", "spec is missing: it must be a function of (params)"),
    (
        "features",
        'return InputSpec("wave", (1, BLOCKS), ',
        "return dict(",
        "spec must return a hms_ray.core.specs.InputSpec, but returned {'rate_hz': 2.0",
    ),
    ("features", 'return InputSpec("wave"', 'return InputSpec("sound"', "InputSpec, but raised KeyError: 'sound'"),
    (
        "features",
        ", params: Params) -> torch.Tensor",
        ") -> torch.Tensor",
        "compute must be a function of (recordings, params)",
    ),
    (
        "augment",
        "    p: float",
        "    share: float",
        "with the field p, the share of the rows that change, but it has no field p",
    ),
    ("augment", "def apply(", "def change(", "apply is missing: it must be a function of (batch, rng, params)"),
    (
        "augment",
        "def apply(",
        "def variant(x):\n    return x\n\n\ndef apply(",
        "variant must be a function of (x, spec), but takes",
    ),
    (
        "datasets",
        '    """No parameters."""',
        "    rows: str",
        "Params must be a subclass of hms_ray.core.params.Params, strict "
        "and frozen, with a default for every field, but rows has none",
    ),
    ("datasets", "def load_test(", "def test_part(", "load_test is missing: it must be a function of (root)"),
    (
        "datasets",
        "def locate(data: str | None, cache: Path)",
        "def locate(data)",
        "locate must be a function of (data, cache)",
    ),
    ("datasets", ", seed: int", "", "simulated must be a function of (out, patients, seed, progress), but takes"),
    ("pools", 'LABEL = "median"\n', "", "LABEL is missing: it must be a name for readers"),
    ("pools", '"median"', '" "', "LABEL must be a name for readers, but is ' '"),
    (
        "pools",
        "SENTENCES = Sentences(",
        "SENTENCES = dict(",
        "SENTENCES must be a hms_ray.ensemble.pools.Sentences, but is {",
    ),
    ("pools", "    gap: float | None = None\n", "", "Pool must be a class of this file with weights, gap, "),
    ("pools", "class Pool(Weighted)", "class Median(Weighted)", "Pool is missing: it must be a class of this file"),
    (
        "pools",
        "def fit(",
        "from hms_ray.ensemble.pools.linear import Pool\n\n\ndef fit(",
        "but is defined in hms_ray.ensemble.",
    ),
    (
        "pools",
        ", start: Pool | None = None\n",
        "\n",
        "fit must be a function of (probs, targets, sample_weight, start)",
    ),
    (
        "models",
        "from torch import nn",
        "import no_such_library",
        "importing it raised ModuleNotFoundError: No module named",
    ),
    ("models", 'LAYOUT = "wave"', "1 / 0", "importing it raised ZeroDivisionError: division by zero ("),
    ("models", 'LAYOUT = "wave"', "LAYOUT = = 3", "invalid syntax ("),
]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The function that installs a module by hand: installed(kind, name, text) -> the name of its module."""
    target = tmp_path / "installed"
    target.mkdir()
    monkeypatch.syspath_prepend(target)

    def install(kind: str, name: str, text: str | None, package: str = "toy", value: str = "{}") -> str:
        module = f"broken_plugin_{next(COUNTER)}"
        if text is not None:
            (target / f"{module}.py").write_text(text)
        folder = target / f"{package}-1.dist-info"
        folder.mkdir(exist_ok=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
        with open(folder / "entry_points.txt", "a") as file:
            file.write(f"[{registry.GROUPS[kind]}]\n{name} = {value.format(module)}\n")
        registry._entry_points.cache_clear()
        return module

    return install


def changed(kind: str, old: str, new: str) -> str:
    """Return the example of a kind with a text replaced, once."""
    text = blocks()[FILES[kind]]
    assert old in text
    return text.replace(old, new, 1)


@pytest.mark.parametrize(("kind", "old", "new", "message"), BROKEN)
def test_an_installed_plugin_that_breaks_its_contract(
    kind: str, old: str, new: str, message: str, installed: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    module = installed(kind, "broken", changed(kind, old, new))
    assert cli.main(["describe", "broken"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {registry.CALLED[kind]} broken of package toy 1")
    assert message in error
    if "library" not in new:
        assert f"{module}.py" in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(("kind", "old", "new", "message"), [case for case in BROKEN if case[0] != "pools"])
def test_a_file_that_breaks_its_contract(tmp_path: Path, kind: str, old: str, new: str, message: str) -> None:
    path = write_files(tmp_path) / FILES[kind]
    path.write_text(changed(kind, old, new))
    with pytest.raises(ConfigError) as raised:
        space.load(str(tmp_path / "toy_files.yaml"))
    assert message in str(raised.value)
    assert FILES[kind] in str(raised.value)


def test_a_syntax_error_has_its_line(installed: Callable[..., str]) -> None:
    installed("models", "broken", changed("models", 'LAYOUT = "wave"', "LAYOUT = = 3"))
    with pytest.raises(ConfigError, match=r"model broken of package toy 1: invalid syntax \(.*\.py, line 9\)$"):
        registry.load("models", "broken")


def test_a_module_that_is_not_there(installed: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    module = installed("features", "lost", None)
    with pytest.raises(
        ConfigError, match=f"feature lost of package toy 1: importing it raised ModuleNotFoundError: .*{module}"
    ):
        registry.load("features", "lost")
    assert cli.main(["list", "features"]) == 0
    assert "  lost " in (listed := capsys.readouterr().out) and "(its package does not hold the module)" in listed


def test_an_entry_point_that_names_no_module(installed: Callable[..., str]) -> None:
    module = installed("models", "broken", blocks()["toy_net.py"], value="{}:build")
    with pytest.raises(ConfigError, match=f"its entry point must name a module, but is '{module}:build'"):
        registry.load("models", "broken")


def test_two_components_of_one_name(installed: Callable[..., str]) -> None:
    first = installed("models", "basic_cnn", blocks()["toy_net.py"])
    with pytest.raises(
        ConfigError, match=rf"two models are named 'basic_cnn': hms_ray itself and package toy 1 \({first}\)"
    ):
        registry.load("models", "basic_cnn")
    second = installed("models", "net", blocks()["toy_net.py"])
    third = installed("models", "net", blocks()["toy_net.py"], package="other")
    with pytest.raises(ConfigError) as raised:
        registry.load("models", "net")
    assert f"package toy 1 ({second})" in str(raised.value) and f"package other 1 ({third})" in str(raised.value)
    assert str(raised.value).endswith("; uninstall one")


def test_an_unknown_name_lists_plugins_too(installed: Callable[..., str]) -> None:
    installed("models", "toy_net", blocks()["toy_net.py"])
    with pytest.raises(ConfigError, match=r"no model named 'toy_nat'; there are: .*toy_net.* Did you mean 'toy_net'\?"):
        registry.load("models", "toy_nat")


def test_a_broken_augmentation_is_no_unknown_variant(installed: Callable[..., str], tmp_path: Path) -> None:
    installed("augment", "broken", changed("augment", "def apply(", "def change("))
    write_files(tmp_path)
    with pytest.raises(ConfigError, match=r"test_time: augmentation broken of package toy 1 .* apply is missing"):
        space.load(str(tmp_path / "toy_files.yaml"), ("test_time=[broken]",))
    with pytest.raises(ConfigError, match=r"no test-time variant named 'mirror'; there are: .*mirror_sides"):
        space.load(str(tmp_path / "toy_files.yaml"), ("test_time=[mirror]",))


def test_spaces_of_packages(installed: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for package in ("one", "two"):
        folder = tmp_path / "installed" / f"spaces_{package}"
        folder.mkdir()
        (folder / "__init__.py").write_text("raise AssertionError('a list imports nothing')")
    installed("spaces", "mine", None, value="spaces_one")
    with pytest.raises(
        ConfigError, match=r"space mine of package toy 1 \(spaces_one\): there is no mine.yaml in the folder"
    ):
        locate.find("mine")
    path = tmp_path / "installed" / "spaces_one" / "mine.yaml"
    path.write_text("description: Mine.\n")
    assert locate.find("mine") == path
    installed("spaces", "demo", None, value="spaces_one")
    with pytest.raises(
        ConfigError, match=r"two spaces are named 'demo': hms_ray itself and package toy 1 \(spaces_one\)"
    ):
        locate.find("demo")
    installed("spaces", "mine", None, package="other", value="spaces_two")
    with pytest.raises(ConfigError, match=r"two spaces are named 'mine': .*; uninstall one"):
        locate.find("mine")
    own = tmp_path / "search_spaces" / "mine.yaml"
    own.parent.mkdir()
    own.write_text("description: Local.\n")
    assert locate.find("mine").resolve() == own, "the user's own folder comes first"


# dotted path of the space, the value, the message
NAMED = [
    (
        "base.model",
        {"file": "none.py"},
        r"base.model.file: .*none.py: No such file or directory; the path is relative to",
    ),
    ("base.model", {"file": "toy.yaml"}, r"'toy.yaml': must be a Python file with a name such as my_net.py"),
    ("base.model", {"file": "../"}, r"base.model.file: .*: Is a directory"),
    ("base.model", {"file": "latin.py"}, r"latin.py: must be a Python file in UTF-8"),
    ("base.model", {"file": 3}, r"base.model: file must be a path relative to the space's file, but is 3"),
    ("base.model", {"file": None}, r"base.model: file must be a path relative to the space's file, but is None"),
    ("base.model", {"file": "toy_net.py", "name": "toy_net"}, r"base.model: must have name or file, but has both"),
    ("base.model", {"file": "toy_net.py", "hiden": 3}, r"base.model.hiden: unknown key \(value 3\); did you mean"),
    ("base.model", {"file": "toy_net.py", "hidden": 0}, r"base.model.hidden: .* greater than or equal to 1, but got 0"),
    ("base.augment", {"gain": {"file": "toy_gain.py"}}, r"base.augment.gain: must be called toy_gain, as its file"),
    ("base.files", {}, r"base.files: unknown key; name a file where it is used: model: {file: my_net.py}"),
    (
        "search",
        {"model": {"choice": [{"file": "toy_net.py"}, {"file": "none.py"}]}},
        r"search.model.file: .*none.py: No such",
    ),
    (
        "base.model",
        {"name": "basic_cnn"},
        r"model.name: basic_cnn takes 'image' inputs, but feature toy_levels gives 'wave'",
    ),
]


@pytest.mark.parametrize(("path", "value", "message"), NAMED)
def test_a_space_that_names_files_wrongly(tmp_path: Path, path: str, value: object, message: str) -> None:
    file = write_files(tmp_path) / "toy_files.yaml"
    (tmp_path / "latin.py").write_bytes('"""café"""'.encode("latin-1"))
    content = yaml.safe_load(file.read_text()) | {"search": {}}
    *parents, last = path.split(".")
    place = content
    for key in parents:
        place = place[key]
    place[last] = value
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=message):
        space.load(str(file))


def test_parameters_of_a_file_can_be_overridden_and_searched(tmp_path: Path) -> None:
    file = str(write_files(tmp_path) / "toy_files.yaml")
    loaded = space.load(file, ("model.hidden=5", "augment.toy_gain.deviation_db=2"))
    assert loaded.run.model.params.hidden == 5 and loaded.run.augment[0].params.deviation_db == 2
    assert [item.path for item in loaded.ranges] == ["augment.toy_gain.p"]
    with pytest.raises(ConfigError, match=r"--set model.hiden: unknown key; did you mean model.hidden\?"):
        space.load(file, ("model.hiden=5",))


def test_spaces_with_other_data_in_files_of_one_name_share_no_study(tmp_path: Path) -> None:
    spaces = []
    for folder in ("a", "b"):
        file = write_files(tmp_path / folder) / "toy_files.yaml"
        (tmp_path / folder / "toy_sounds.py").write_text(changed("datasets", "two of them", f"two of {folder}"))
        spaces.append(space.load(str(file)))
    assert any("has data: {'name': 'toy_sounds@" in fault for fault in space.unshared(spaces))


def test_what_a_component_returns_is_checked(tmp_path: Path) -> None:
    def run(kind: str, old: str, new: str) -> space.RunConfig:
        (write_files(tmp_path) / FILES[kind]).write_text(changed(kind, old, new))
        return space.load(str(tmp_path / "toy_files.yaml")).run

    task = Task(("loud",))
    with pytest.raises(
        ConfigError, match=r"model toy_net: its network must return the shape \(2, 1\), but returned \(2, 3\)"
    ):
        rehearse(run("models", "params.hidden, n_outputs)]", "params.hidden, 3)]"), task)
    with pytest.raises(ConfigError, match=r"model toy_net: build must return a torch module, but returned \[Flatten"):
        rehearse(run("models", "nn.Sequential(*layers)", "layers"), task)
    with pytest.raises(
        ConfigError, match=r"augment.toy_gain: apply must return the shape \(2, 1, 40\), but returned \(2, 1, 20\)"
    ):
        rehearse(run("augment", "replace(batch, x=batch.x", "replace(batch, x=batch.x[..., ::2]"), task)
    feature = run("features", "(BLOCKS, -1)", "(20, -1)").feature
    sound = {"heart_sound": torch.zeros(2, 1, recordings.HEART_SOUND.steps)}
    with pytest.raises(
        ConfigError, match=r"compute must return float32 \(2, 1, 40\), but returned torch.float32 \(2, 1, 20\)"
    ):
        FeatureRef(feature.name, feature.params).compute(sound)
    with pytest.raises(ConfigError, match=r"dataset mine: load must return hms_ray.datasets.Dataset, but returned 3"):
        datasets.checked(3, "mine")
    source = source_files.keep("toy_median.py", changed("pools", "return Pool(np", "return (np"))
    with pytest.raises(ConfigError, match=r"fit must return its Pool, but returned array\(\[0.5, 0.5\]\)"):
        Candidate(source.name).fit(np.full((3, 2, 1), 0.5), np.zeros((3, 1)), np.ones(3), 1.0)


def test_a_dataset_without_simulation(installed: Callable[..., str], tmp_path: Path) -> None:
    installed("datasets", "quiet", changed("datasets", "def simulated(", "def made_up("))
    with pytest.raises(ConfigError, match="dataset quiet has no simulated recordings; name a folder with --data"):
        registry.simulator("quiet")
