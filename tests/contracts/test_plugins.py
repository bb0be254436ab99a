"""Components from outside the package, from the search space to the report and the prediction.

The components are those of docs/extending.md.
"""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pytest

from tests.extending import blocks, write_files, write_package

NAMES = ("toy_net", "toy_levels", "toy_gain", "toy_sounds", "toy_median")
GROUPS = {"models": "toy_net", "features": "toy_levels", "augment": "toy_gain", "datasets": "toy_sounds"}
GROUPS |= {"ensemble": "toy_median", "search_spaces": "toy"}
RUN_ALL = """
import json, sys
from hms_ray.cli import main
for argv in json.loads(sys.argv[1]):
    print("$", *argv)
    if code := main(argv):
        sys.exit(code)
"""


def hms_ray(folder: Path, *commands: Sequence[str], plugins: Path | None = None) -> tuple[int, str]:
    """Run commands of `hms-ray` one after the other in a fresh process; return the exit status and what was printed.

    plugins: a folder of installed packages
    """
    environment = os.environ | {"HMS_RAY_CACHE": str(folder / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(plugins or ""), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, json.dumps(commands)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the package of docs/extending.md is installed into."""
    project, target = write_package(tmp_path_factory.mktemp("project")), tmp_path_factory.mktemp("installed")
    options = ["--no-build-isolation", "--no-deps", "--no-index", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(project)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory, installed: Path) -> Path:
    """A folder of toy sounds, written by `hms-ray simulate`."""
    folder = tmp_path_factory.mktemp("simulated")
    code, printed = hms_ray(
        folder, ["simulate", "--dataset", "toy_sounds", "--patients", "16", "sounds"], plugins=installed
    )
    assert code == 0, printed
    return folder / "sounds"


def check_study(folder: Path, pool: str) -> Mapping[str, object]:
    """Check what a search, an ensemble, a report and a prediction have written; return study.json."""
    ensemble = json.loads((folder / "study" / "ensemble" / "ensemble.json").read_text())
    assert ensemble["pool"] == pool
    page = (folder / "page" / "index.html").read_text()
    assert "toy_net" in page
    submission = pd.read_csv(folder / "submission.csv")
    assert len(submission) == 8 and submission["loud"].between(0, 1).all()
    return json.loads((folder / "study" / "study.json").read_text())


def test_an_installed_package_goes_from_the_space_to_the_prediction(
    tmp_path: Path, installed: Path, simulated: Path
) -> None:
    code, printed = hms_ray(
        tmp_path,
        ["list"],
        *(["describe", name] for name in (*NAMES, "toy")),
        ["search", "--space", "toy", "--data", str(simulated), "--study", "study", "--here"],
        ["ensemble", "--study", "study", "--pool", "toy_median"],
        ["report", "--study", "study", "--out", "page"],
        ["predict", "--study", "study", "--data", str(simulated), "--out", "submission.csv"],
        plugins=installed,
    )
    assert code == 0, printed
    study = check_study(tmp_path, "toy_median")
    page = (tmp_path / "page" / "index.html").read_text()
    assert "each probability is the median of theirs" in page
    for kind, name in GROUPS.items():
        origin = f"[package hms-toy 0.1 (hms_toy{'' if kind == 'search_spaces' else f'.{name}'})]"
        assert any(line.split()[:1] == [name] and line.endswith(origin) for line in printed.splitlines()), name
    assert "the level of silence" not in printed and "what silence is set to, in dB of full scale" in printed
    packages = study["spaces"]["toy"]["base"]["packages"]
    assert set(packages) == {"models.toy_net", "features.toy_levels", "augment.toy_gain", "datasets.toy_sounds"}


@pytest.fixture(scope="module")
def from_files(tmp_path_factory: pytest.TempPathFactory, simulated: Path) -> Path:
    """The folder of a study whose space names files."""
    folder = write_files(tmp_path_factory.mktemp("files"))
    code, printed = hms_ray(
        folder,
        ["search", "--space", "toy_files.yaml", "--data", str(simulated), "--study", "study", "--here"],
        ["ensemble", "--study", "study", "--pool", "uniform"],
        ["report", "--study", "study", "--out", "page"],
    )
    assert code == 0, printed
    return folder


def test_a_study_made_with_files_predicts_without_them(tmp_path: Path, from_files: Path, simulated: Path) -> None:
    for part in ("study", "page"):
        shutil.copytree(from_files / part, tmp_path / part)
    command = ["predict", "--study", "study", "--data", str(simulated), "--out", "submission.csv"]
    code, printed = hms_ray(tmp_path, command)
    assert code == 0, printed
    base = check_study(tmp_path, "uniform")["spaces"]["toy_files"]["base"]
    assert base["model"] == {"file": "toy_net.py", "hidden": 8}
    assert base["files"]["toy_net.py"]["source"] == blocks()["toy_net.py"]


def test_a_study_refuses_a_changed_file(from_files: Path, simulated: Path) -> None:
    file = from_files / "toy_net.py"
    file.write_text(blocks()["toy_net.py"].replace("nn.ReLU()", "nn.Tanh()"))
    again = ["search", "--space", "toy_files.yaml", "--data", str(simulated), "--study", "study", "--here"]
    code, printed = hms_ray(from_files, again)
    assert code == 2
    assert "was made by other code: toy_net.py has changed. With --force it goes on" in printed
    file.write_text(blocks()["toy_net.py"])


def test_an_edited_source_in_a_study_is_not_executed(tmp_path: Path, from_files: Path, simulated: Path) -> None:
    shutil.copytree(from_files / "study", tmp_path / "study")
    path = tmp_path / "study" / "study.json"
    path.write_text(path.read_text().replace("simulated; a patient", "simulated; one patient"))
    code, printed = hms_ray(tmp_path, ["predict", "--study", "study", "--data", str(simulated), "--out", "a.csv"])
    assert code == 2
    assert "toy_sounds.py: its source was edited: its fingerprint is " in printed
    assert "Traceback" not in printed


def test_what_a_file_defines_reaches_another_process(tmp_path: Path, simulated: Path) -> None:
    write_files(tmp_path)
    make = """
import pickle, sys
from pathlib import Path
from hms_ray.features._feature import FeatureRef
from hms_ray.search.space import space
run = space.load("toy_files.yaml").run
dataset = run.data.module.load(Path(sys.argv[1]), run.data.params)
sys.stdout.buffer.write(pickle.dumps((dataset, FeatureRef(run.feature.name, run.feature.params), run)))
"""
    take = """
import pickle, sys
dataset, feature, run = pickle.loads(sys.stdin.buffer.read())
assert dataset.read("heart_sound", "p0_0").shape[0] == 1
assert feature.spec.shape == (1, 40) and run.model.module.LAYOUT == "wave", "found by the file's fingerprint"
print(run.content["files"]["toy_net.py"]["fingerprint"])
"""
    python = [sys.executable, "-c"]
    pickled = subprocess.run(
        [*python, make, str(simulated)], cwd=tmp_path, capture_output=True, timeout=120, check=True
    ).stdout
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run([*python, take], cwd=elsewhere, input=pickled, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    assert len(done.stdout.strip()) == 16


def test_parameters_of_this_package_are_pickled_as_before() -> None:
    from hms_ray.models.basic_cnn import Params

    params = Params(width=8)
    assert pickle.loads(pickle.dumps(params)) == params
