"""A tiny study: 6 patients, small images, a network of a few hundred weights, and folds trained in this process."""

import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from hms_ray.crossval import train_job
from hms_ray.execution.mailbox import EpochDone, FoldDone
from hms_ray.search.space import parse
from hms_ray.search.study import Study, open_study
from hms_ray.study_folder import StudyFolder
from hms_ray.training.team import Replica

BASE = {
    "data": {"name": "hms"},
    "feature": {"name": "kaggle_spectrogram", "pool": 4},
    "model": {"name": "basic_cnn", "width": 4, "depth": 2},
    "optim": {"batch": 8},
    "stages": [{"epochs": 1, "lr": 0.01}, {"epochs": 1, "lr": 0.01, "min_votes": 10}],
    "folds": 3,
}


def make_space(name="toy", search=None, **base):
    """A space whose base is BASE with other sections."""
    return parse(name, {"base": copy.deepcopy(BASE) | base, "search": search or {}})


def train(study, space, fold, ledger=None, trial=None):
    """Train one fold in this process; what it sends goes to the ledger."""
    trial = trial or f"{space.name}-base"
    handle = ledger.handle if ledger else lambda message: None
    job = study.job(trial, space.run, fold)
    result = train_job(job, study.labels, Replica(torch.device("cpu")), lambda row: handle(EpochDone(trial, row)))
    handle(FoldDone(trial, result))
    return result


def begin(folder: StudyFolder, spaces: list, root: Path) -> Study:
    """Open a study and write it, as the driver does once the cluster can do the work."""
    study = open_study(folder, spaces, root)
    study.begin(spaces)
    return study


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """Prepared features are shared by the tests of one session, and kept away from the user's own."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(cache, monkeypatch):
    monkeypatch.setenv("HMS_RAY_CACHE", str(cache))
    torch.set_num_threads(1)


@pytest.fixture
def toy(tmp_path, hms_folder) -> SimpleNamespace:
    """A study that is open, its space, and functions to open others and to train."""
    space, folder = make_space(), StudyFolder(tmp_path / "study")
    study = begin(folder, [space], hms_folder)
    return SimpleNamespace(
        study=study, space=space, folder=folder, root=hms_folder, make_space=make_space, open=begin, train=train
    )
