"""Where everything of a study lies: names of files, nothing else. The study folder is the only truth.

runs/<study>/
  study.json        versions, task, data and folds fingerprints, score definition, the resolved spaces
  folds.parquet     unit_id, group_id, fold
  journal.log       Optuna JournalStorage
  trials/<id>/      config.yaml, epochs.parquet, folds/<k>/{oof.parquet, model.safetensors, checkpoint.pt}
  oof/<id>.parquet  one out-of-fold table a finalist or foreign file
  ensemble/         ensemble.json, oof.parquet
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hms_ray import files
from hms_ray.errors import ConfigError

ID_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def check_id(name: str) -> str:
    """Return the id if it is safe as a file name; ids are never joined into paths unchecked."""
    if not ID_PATTERN.fullmatch(name):
        raise ConfigError(f"{name!r} cannot name a file: letters, digits, '_', '-' and '.' only, 100 at most")
    return name


@dataclass(frozen=True)
class FoldFolder:
    """One fold of one trial. `oof` is written last: where it exists, the fold is finished."""

    root: Path

    @property
    def oof(self) -> Path:
        """Predictions of the held-out units."""
        return self.root / "oof.parquet"

    @property
    def weights(self) -> Path:
        """The trained weights, for prediction."""
        return self.root / "model.safetensors"

    @property
    def checkpoint(self) -> Path:
        """State after the last finished epoch; gone once the fold is finished."""
        return self.root / "checkpoint.pt"


@dataclass(frozen=True)
class TrialFolder:
    """One configuration: its full run, its learning curves and its folds."""

    root: Path

    @property
    def config(self) -> Path:
        """The full run, as YAML."""
        return self.root / "config.yaml"

    @property
    def epochs(self) -> Path:
        """One row for each fold and epoch."""
        return self.root / "epochs.parquet"

    def fold(self, k: int) -> FoldFolder:
        """The folder of fold k."""
        return FoldFolder(self.root / "folds" / str(int(k)))


@dataclass(frozen=True)
class StudyFolder:
    """The paths of one study."""

    root: Path

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.root.resolve().name

    @property
    def study(self) -> Path:
        """study.json."""
        return self.root / "study.json"

    @property
    def folds(self) -> Path:
        """folds.parquet."""
        return self.root / "folds.parquet"

    @property
    def journal(self) -> Path:
        """Optuna's journal."""
        return self.root / "journal.log"

    @property
    def ensemble(self) -> Path:
        """ensemble.json."""
        return self.root / "ensemble" / "ensemble.json"

    @property
    def ensemble_oof(self) -> Path:
        """The ensemble's cross-fitted predictions."""
        return self.root / "ensemble" / "oof.parquet"

    def trial(self, trial_id: str) -> TrialFolder:
        """The folder of one trial."""
        return TrialFolder(self.root / "trials" / check_id(trial_id))

    def oof(self, trial_id: str) -> Path:
        """The out-of-fold table of one trial or foreign file."""
        return self.root / "oof" / f"{check_id(trial_id)}.parquet"

    def oof_ids(self) -> list[str]:
        """Ids of the out-of-fold tables that exist, sorted."""
        return sorted(path.stem for path in (self.root / "oof").glob("*.parquet") if not path.name.startswith("."))

    def read_study(self) -> dict[str, Any]:
        """Return study.json, or say that this is no study."""
        if not self.study.is_file():
            raise ConfigError(f"{self.root} is no study: it has no study.json. Run `hms-ray search` or `train` first.")
        return files.read_json(self.study)
