"""The folder of heart sounds in the layout of BMD-HS: recordings first, the tables that make it complete last."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.io import wavfile

from hms_ray.core import files, seeds
from hms_ray.core.errors import ConfigError, raise_all
from hms_ray.simulate import _target, heart_sound
from hms_ray.simulate.heart_sound import DISEASES, POSITIONS, POSTURES

Row = dict[str, str | int]

MIN_SUBJECTS = 8  # fewer could not show every disease, alone and combined, and none
MIN_SECONDS = 2.0  # contains one whole beat of the slowest heart
VIEWS = tuple((posture, position) for posture in POSTURES for position in POSITIONS)
SHORT = 0.02  # share of recordings that are shorter, as a few of the real ones are
# How many of the real set's 108 subjects have which diseases.
COMBINATIONS = {
    (): 21,
    ("AS", "AR"): 16,
    ("MR",): 11,
    ("MS",): 11,
    ("MR", "MS"): 10,
    ("AS",): 8,
    ("AR",): 7,
    ("AS", "AR", "MR", "MS"): 5,
    ("AR", "MR", "MS"): 5,
    ("AR", "MR"): 4,
    ("AS", "AR", "MS"): 3,
    ("AR", "MS"): 2,
    ("AS", "MS"): 2,
    ("AS", "MR"): 2,
    ("AS", "AR", "MR"): 1,
}


@dataclass(frozen=True)
class Subject:
    """One subject of a part ("train" or "test") and the diseases to be simulated."""

    part: str
    number: int
    diseases: tuple[str, ...]

    @property
    def name(self) -> Row:
        """The first column of every table."""
        return {"patient_id": f"patient_{self.number:03d}"}

    @property
    def labels(self) -> Row:
        """The columns of the diseases, and of none."""
        return {**{name: int(name in self.diseases) for name in DISEASES}, "N": int(not self.diseases)}

    @property
    def files(self) -> Row:
        """The columns of the recordings' names."""
        return {f"recording_{k}": name for k, name in enumerate(self.recordings, start=1)}

    @property
    def recordings(self) -> list[str]:
        """The names of the recordings, in the order of VIEWS; only names of the train part contain the label."""
        prefix = "MD" if len(self.diseases) > 1 else "".join(self.diseases) or "N"
        prefix = "T" if self.part == "test" else prefix
        return [f"{prefix}_{self.number:03d}_{posture}_{position}" for posture, position in VIEWS]

    def stream(self, seed: int, *path: str | int) -> np.random.Generator:
        """Return a random stream of this subject only."""
        return seeds.stream(seed, "hearts", self.part, self.number, *path)


def simulate_hearts(
    out: Path,
    subjects: int = 40,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    seconds: float = 20.0,
) -> None:
    """Write eight recordings of each of `subjects` labelled subjects, and of a fifth as many without labels.

    The same arguments give the same bytes, with the same versions of the libraries on the same kind of processor.

    progress: called with (recordings written, recordings in all)
    seconds: length of a recording

    Raises:
        ConfigError: an argument is invalid, or `out` is not empty; nothing has been written.
    """
    out = Path(out)
    seeds.check_seed(seed)
    raise_all([*_number_faults(subjects, seconds), *_target.faults(out, "train")], ConfigError, "cannot simulate")
    shared = combinations(seeds.stream(seed, "hearts", "train"), subjects)
    people = [Subject("train", number, diseases) for number, diseases in enumerate(shared, start=1)]
    # The test part has so few subjects that their diseases are drawn at random.
    known, shares = list(COMBINATIONS), np.array(list(COMBINATIONS.values()), float)
    drawn = seeds.stream(seed, "hearts", "test").choice(len(known), max(2, subjects // 5), p=shares / shares.sum())
    people += [Subject("test", number, known[k]) for number, k in enumerate(drawn.tolist(), start=subjects + 1)]
    jobs = [(subject, view) for subject in people for view in range(len(VIEWS))]
    for done, (subject, view) in enumerate(jobs, start=1):
        write_recording(out, seed, subject, view, seconds)
        if progress is not None:
            progress(done, len(jobs))
    train = [subject for subject in people if subject.part == "train"]
    test = [subject for subject in people if subject.part == "test"]
    metadata = [subject.name | _demographics(subject.stream(seed, "metadata"), subject.diseases) for subject in people]
    tables = {
        "test": [subject.name | subject.files for subject in test],
        "additional_metadata": metadata,
        "train": [subject.name | subject.labels | subject.files for subject in train],  # last: the folder is complete
    }
    for name, rows in tables.items():
        files.write_text(out / f"{name}.csv", pd.DataFrame(rows).to_csv(index=False))


def write_recording(out: Path, seed: int, subject: Subject, view: int, seconds: float) -> None:
    """Simulate and write one recording; it has random streams of its own, so that order does not matter."""
    heart = heart_sound.draw(subject.stream(seed, "heart"), subject.diseases)
    rng = subject.stream(seed, "sound", view)
    if rng.random() < SHORT:
        seconds *= rng.uniform(0.75, 1)
    sound = heart_sound.record(rng, heart, *VIEWS[view], seconds)
    with files.atomic_path(out / subject.part / f"{subject.recordings[view]}.wav") as temporary:
        wavfile.write(temporary, heart_sound.RATE_HZ, sound)


def combinations(rng: np.random.Generator, count: int) -> list[tuple[str, ...]]:
    """Return the diseases of `count` subjects, in random order, in the shares of the real set up to rounding."""
    exact = np.array(list(COMBINATIONS.values())) * count / sum(COMBINATIONS.values())
    whole = np.floor(exact).astype(int)
    by_remainder = np.argsort(whole - exact, kind="stable")
    whole[by_remainder[: count - whole.sum()]] += 1
    known = list(COMBINATIONS)
    return [known[k] for k in rng.permutation(np.repeat(np.arange(len(known)), whole)).tolist()]


def _demographics(rng: np.random.Generator, diseases: tuple[str, ...]) -> Row:
    """Return age, gender, smoking and home; healthy subjects are younger, mitral stenosis is commoner in women."""
    age = 32 + 7 * bool(diseases) + 3 * len(diseases) + 5 * ("AS" in diseases) + rng.normal(0, 13)
    female = rng.random() < (0.65 if "MS" in diseases else 0.45)
    smoker = rng.random() < (0.05 if female else 0.45)
    rural = rng.random() < (0.6 if diseases else 0.4)
    return {
        "Age": int(np.clip(age, 10, 85)),
        "Gender": "F" if female else "M",
        "Smoker": int(smoker),
        "Lives": "R" if rural else "U",
    }


def _number_faults(subjects: int, seconds: float) -> Iterator[str]:
    if isinstance(subjects, bool) or not isinstance(subjects, int):
        yield f"subjects must be a whole number, but got {subjects!r}"
    elif subjects < MIN_SUBJECTS:
        yield f"subjects must be at least {MIN_SUBJECTS}, so that every label occurs, but got {subjects}"
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not MIN_SECONDS <= seconds < math.inf:
        yield f"seconds must be a number of at least {MIN_SECONDS:g}, but got {seconds!r}"
