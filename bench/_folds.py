"""What both ways of training all folds are given, and how they are run: each in a process of its own."""

import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hms_ray.core import seeds
from hms_ray.core.recordings import SPECTROGRAM
from hms_ray.datasets import Dataset, first_step
from hms_ray.search.open_study import open_study
from hms_ray.search.space import space
from hms_ray.search.space.space import Space
from hms_ray.study.folder import StudyFolder
from hms_ray.training.build import make_recipe
from hms_ray.training.jobs import FoldJob
from hms_ray.training.labels import TrainingLabels

ARCH = "mobilenetv3_small_050"
LR, WARMUP, MIXUP = 1e-3, 0.25, 0.5


@dataclass(frozen=True)
class Setting:
    """One training of all folds: what is trained on, for how long, and where the notebook's arrays lie."""

    root: Path
    data: Path
    eegs: int
    folds: int
    epochs: int
    batch: int
    seed: int

    @cached_property
    def space(self) -> Space:
        """The run as the search would have it."""
        return self.with_optim({})

    def with_optim(self, optim: Mapping[str, Any]) -> Space:
        """Return the space with other settings of the optimiser."""
        base = {
            "data": {"name": "hms", "rows": "eeg"},
            "feature": {"name": "kaggle_spectrogram"},
            "model": {"name": "timm_image", "arch": ARCH, "pretrained": False},
            "augment": {"mirror_sides": {"p": 0.5}, "xy_mask": {"p": 0.5}, "mixup": {"p": MIXUP}},
            "optim": {"batch": self.batch, **optim},
            "stages": [{"epochs": self.epochs, "lr": LR, "warmup": WARMUP}],
            "score": {"min_votes": 1},
            "folds": self.folds,
            "seed": self.seed,
        }
        return space.parse("folds", {"base": base})

    @property
    def arrays(self) -> Path:
        """Where the notebook finds its arrays and the networks' first weights."""
        return self.root / f"arrays_{self.seed}"

    @property
    def jobs(self) -> Path:
        """Where the parts find a fold's job and the labels."""
        return self.root / f"jobs_{self.seed}.pkl"


def make(setting: Setting) -> None:
    """Prepare what both read, before anything is timed: stores, arrays, and the same first weights of each fold."""
    study = open_study(StudyFolder(setting.root / f"making_{setting.seed}"), [setting.space], setting.data)
    study.prepare([setting.space])
    _write_arrays(setting.arrays, study.dataset, study.labels)
    for fold in range(setting.folds):
        torch.save(_first_weights(setting, study.labels, fold), setting.arrays / f"weights_{fold}.pt")
    job = study.job("making", setting.space.run, 0)
    setting.jobs.write_bytes(pickle.dumps((job, study.labels)))


def load_job(path: Path) -> tuple[FoldJob, TrainingLabels]:
    """Read what `make` wrote for the parts."""
    return pickle.loads(path.read_bytes())


def _write_arrays(folder: Path, dataset: Dataset, labels: TrainingLabels) -> None:
    """Write the spectrograms as notebooks keep them: an array each, columns in the order of the regions."""
    folder.mkdir(parents=True)
    for name in dataset.files("spectrogram"):
        np.save(folder / f"{name}.npy", np.ascontiguousarray(dataset.read("spectrogram", name).T))
    windows = dataset.windows["spectrogram"]
    first = first_step(SPECTROGRAM, windows.middle_s)
    np.savez(folder / "index.npz", names=windows.names, first=first, targets=labels.targets, folds=labels.folds)


def _first_weights(setting: Setting, labels: TrainingLabels, fold: int) -> dict[str, torch.Tensor]:
    """Return the weights with which our fold begins."""
    recipe = make_recipe(setting.space.run, labels.task, fold)
    torch.manual_seed(seeds.derive(recipe.seed, "weights"))
    return recipe.build().state_dict()


def launch(module: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Call `main(**arguments)` of a module here in a process of its own, and return what it returns.

    Its environment is the user's, but for a cluster: what runs is this machine.
    """
    with tempfile.TemporaryDirectory() as scratch:
        call, answer = Path(scratch) / "call.pkl", Path(scratch) / "answer.json"
        call.write_bytes(pickle.dumps(dict(arguments)))
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        command = [sys.executable, "-m", f"bench.{module}", str(call), str(answer)]
        done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise RuntimeError(f"{module} failed: {done.stderr.strip()[-2000:]}")
        return json.loads(answer.read_text())


def answer(main: Any) -> None:
    """The other end of `launch`: `python -m bench.MODULE CALL ANSWER`."""
    call, to = map(Path, sys.argv[1:])
    to.write_text(json.dumps(main(**pickle.loads(call.read_bytes()))))
