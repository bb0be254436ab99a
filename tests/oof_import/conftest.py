"""Thirty units of other pipelines' files: labels, predictions, and the paths they are saved under."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_ray.core.seeds import stream
from hms_ray.oof_import import import_foreign
from hms_ray.study.folder import StudyFolder
from hms_ray.study.oof import OofTable

CLASSES = ["seizure", "lpd", "gpd", "lrda", "grda", "other"]
N = 30
IDS = pd.DataFrame({"eeg_id": 4_294_958_000 + np.arange(N) // 2, "eeg_sub_id": np.arange(N) % 2})


class Foreign:
    """Builds the files of one test in its folder and imports them into its study."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.study = StudyFolder(root / "runs" / "study")

    @staticmethod
    def labels(classes: Sequence[str] = CLASSES) -> pd.DataFrame:
        """Vote counts of 1 to 15 votes, two units an EEG, one EEG a patient."""
        counts = stream(0, "votes").multinomial(np.arange(N) % 15 + 1, np.full(len(classes), 1 / len(classes)))
        frame = IDS.assign(fold=np.arange(N) // 2 % 3, patient_id=np.arange(N) // 2)
        return pd.concat([frame, pd.DataFrame(counts, columns=[f"{c}_vote" for c in classes])], axis=1)

    @staticmethod
    def predictions(name: str, classes: Sequence[str] = CLASSES, form: str = "{}") -> pd.DataFrame:
        """Random probabilities, the same under each form of the columns."""
        probs = stream(0, name).dirichlet(np.ones(len(classes)), N)
        return pd.concat([IDS, pd.DataFrame(probs, columns=[form.format(c) for c in classes])], axis=1)

    def save(self, **frames: pd.DataFrame) -> list[Path]:
        """Write each frame as CSV in a row order of its own; return the paths."""
        paths = []
        for name, frame in frames.items():
            shuffled = frame.iloc[stream(0, "order", name).permutation(len(frame))]
            paths.append(self.root / f"{name}.csv")
            shuffled.to_csv(paths[-1], index=False)
        return paths

    def sound(self, labels: pd.DataFrame | None = None) -> list[Path]:
        """Write labels and the two files one and two, all as they should be."""
        labels = self.labels() if labels is None else labels
        return self.save(labels=labels, one=self.predictions("one"), two=self.predictions("two"))

    def replace(self, name: str, frame: pd.DataFrame) -> None:
        """Write a CSV in the frame's own order."""
        frame.to_csv(self.root / f"{name}.csv", index=False)

    def table(self, name: str) -> OofTable:
        """Read what was imported."""
        return OofTable.read(self.study.oof(name))

    def expect(self, name: str, seed: str | None = None) -> None:
        """Assert that a member's table holds the predictions of that name (or `seed`), each at its unit."""
        table = self.table(name)
        expected = self.predictions(seed or name)
        unit_ids = IDS.astype(str).agg("-".join, axis=1)
        expected = expected.set_axis(unit_ids).loc[table.unit_ids, list(CLASSES)]
        np.testing.assert_allclose(table.probs, expected, rtol=1e-6)

    def read(self, *paths: Path, **options: object) -> list[str]:
        """Import the labels and these files."""
        return import_foreign([*self.save(labels=self.labels()), *paths], self.study, **options)


@pytest.fixture
def foreign(tmp_path: Path) -> Foreign:
    """Files and a study in a folder of their own."""
    return Foreign(tmp_path)
