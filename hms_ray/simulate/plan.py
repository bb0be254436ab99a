"""Plan of a simulated data set: patients, files, windows, and which irregularities of the real files each one has.

The plan is drawn before any signal, from one random stream; each recording then has streams of its own.
"""

from dataclasses import dataclass

import numpy as np

from hms_ray.core import seeds
from hms_ray.simulate import panel
from hms_ray.simulate.scene import CLASSES

WINDOW_S = 50.0
IMAGE_S = 600.0
LEAD_S = (IMAGE_S - WINDOW_S) / 2  # the 50 s window lies in the middle of the 10 minute image
MAX_ID = 4_294_958_358  # the largest in the real files; it does not fit int32
MAX_PATIENT_ID = 65_000
MIN_ID = 100
TRAPS = {
    "outlier": 0.04,  # thousands of uV
    "flat": 0.03,  # an electrode of zeros
    "quiet": 0.05,  # so low that the spectrogram rounds to exact zeros
    "dropout": 0.08,  # runs of NaN in electrodes
    "gap": 0.05,  # spectrogram rows that are NaN throughout
    "odd_offset": 0.05,  # windows that begin at an odd or fractional second
    "short_time": 0.5,  # `time` as int16 instead of int64
    "revote": 0.08,  # two periods, voted on twice
    "change": 0.025,  # two periods, the pattern begins with the second
}


@dataclass(frozen=True)
class EegPlan:
    """One EEG file: its start in the recording, and the offsets of its 50 s windows."""

    eeg_id: int
    start_s: float
    offsets_s: tuple[float, ...]
    split: int | None  # the first window of a second voting period

    @property
    def seconds(self) -> float:
        """Length of the file: up to the end of the last window."""
        return self.offsets_s[-1] + WINDOW_S

    def centre_s(self, window: int) -> float:
        """Return the middle of a window in the recording's time."""
        return self.start_s + self.offsets_s[window] + WINDOW_S / 2


@dataclass(frozen=True)
class RecordingPlan:
    """One spectrogram file and the EEG files that refer to it."""

    spectrogram_id: int
    patient_id: int
    panel: str
    label: str
    eegs: tuple[EegPlan, ...]
    spare_s: int  # length after the 10 minutes of the last window
    traps: frozenset[str]

    @property
    def seconds(self) -> int:
        """Length of the spectrogram file, an even number."""
        last_s = max(eeg.start_s + eeg.offsets_s[-1] for eeg in self.eegs) - LEAD_S
        return 2 * int(np.ceil((IMAGE_S + last_s) / 2)) + self.spare_s

    @property
    def labelled_s(self) -> tuple[float, float]:
        """The middles of the first EEG's first and last window."""
        eeg = self.eegs[0]
        return eeg.centre_s(0), eeg.centre_s(len(eeg.offsets_s) - 1)

    @property
    def onset_s(self) -> float | None:
        """When the pattern begins, for a recording that changes; else None."""
        eeg = self.eegs[0]
        if "change" not in self.traps or eeg.split is None:
            return None
        return (eeg.centre_s(eeg.split - 1) + eeg.centre_s(eeg.split)) / 2


def labelled(seed: int, eegs: int, patients: int) -> list[RecordingPlan]:
    """Plan the labelled part: `eegs` EEG files of `patients` patients."""
    rng = seeds.stream(seed, "plan", "train")
    # Each patient has at least one EEG, a few patients have many; sorted by patient.
    weights = rng.gamma(0.7, 1, patients) + 1e-3
    owners = np.sort(np.r_[np.arange(patients), rng.choice(patients, eegs - patients, p=weights / weights.sum())])
    sizes = _sizes(rng, owners)
    count, firsts = len(sizes), np.cumsum([0, *sizes[:-1]])
    # Panels in exact shares, so that a small set has its experts too.
    edges = np.rint(np.cumsum(list(panel.SHARES.values())) * count).astype(int)
    panels = rng.permutation(np.repeat(list(panel.SHARES), np.diff([0, *edges]))).tolist()
    patient_ids = _ids(rng, patients, max(MAX_PATIENT_ID, 4 * patients))
    # Half of the recordings show the usual class of their patient.
    usual_class = {name: rng.choice(CLASSES, patients, p=share) for name, share in panel.POPULATION.items()}
    random_class = {name: rng.choice(CLASSES, count, p=share) for name, share in panel.POPULATION.items()}
    is_usual = rng.random(count) < 0.5
    labels = [
        str(usual_class[name][owners[firsts[i]]] if is_usual[i] else random_class[name][i])
        for i, name in enumerate(panels)
    ]
    traps = _traps(rng, labels, panels)
    spectrogram_ids, eeg_ids = _ids(rng, count, MAX_ID), _ids(rng, eegs, MAX_ID)
    return [
        RecordingPlan(
            spectrogram_id=spectrogram_ids[i],
            patient_id=patient_ids[owners[first]],
            panel=panels[i],
            label=labels[i],
            eegs=_eegs(rng, eeg_ids[first : first + sizes[i]], traps[i]),
            spare_s=2 * int(rng.integers(0, 12)),
            traps=traps[i],
        )
        for i, first in enumerate(firsts)
    ]


def unlabelled(seed: int, eegs: int, excluded: set[int]) -> list[RecordingPlan]:
    """Plan the part without labels: one 50 s EEG each, of patients whose ids are not among `excluded`."""
    rng = seeds.stream(seed, "plan", "test")
    drawn = _ids(rng, eegs + len(excluded), max(MAX_PATIENT_ID, 4 * (eegs + len(excluded))))
    patient_ids = [i for i in drawn if i not in excluded][:eegs]
    labels = rng.choice(CLASSES, eegs, p=panel.POPULATION["expert"])
    spectrogram_ids, eeg_ids = _ids(rng, eegs, MAX_ID), _ids(rng, eegs, MAX_ID)
    short = rng.random(eegs) < TRAPS["short_time"]
    return [
        RecordingPlan(
            spectrogram_id=spectrogram_ids[i],
            patient_id=patient_ids[i],
            panel="expert",
            label=str(labels[i]),
            eegs=(EegPlan(eeg_ids[i], LEAD_S, (0.0,), None),),
            spare_s=0,
            traps=frozenset({"short_time"} if short[i] else ()),
        )
        for i in range(eegs)
    ]


def _sizes(rng: np.random.Generator, owners: np.ndarray) -> list[int]:
    """Return the number of EEGs of each spectrogram: some EEGs of a patient share the spectrogram of the one before."""
    may_share = np.flatnonzero(owners[1:] == owners[:-1]) + 1
    sharing = set(rng.choice(may_share, int(np.ceil(0.12 * len(may_share))), replace=False).tolist())
    sizes = [1]
    for i in range(1, len(owners)):
        if i in sharing and sizes[-1] < 2:
            sizes[-1] += 1
        else:
            sizes.append(1)
    return sizes


def _traps(rng: np.random.Generator, labels: list[str], panels: list[str]) -> list[frozenset[str]]:
    """Return each recording's traps in exact shares; each trap occurs at least once if any recording can have it."""
    changeable = [i for i, label in enumerate(labels) if label != "other" and panels[i] == "expert"]
    recordings = {}
    for name, share in TRAPS.items():
        candidates = changeable if name == "change" else range(len(labels))
        count = min(len(candidates), max(1, round(share * len(labels))))
        recordings[name] = set(rng.choice(candidates, count, replace=False).tolist())
    return [frozenset(name for name in TRAPS if i in recordings[name]) for i in range(len(labels))]


def _ids(rng: np.random.Generator, count: int, high: int) -> list[int]:
    """Return distinct ids from MIN_ID to `high`; the first lies in the top quarter, so that large ids always occur."""
    ids = {int(rng.integers(3 * high // 4, high + 1)): None}
    while len(ids) < count:
        ids.update(dict.fromkeys(rng.integers(MIN_ID, high + 1, count).tolist()))
    return list(ids)[:count]


def _eegs(rng: np.random.Generator, eeg_ids: list[int], traps: frozenset[str]) -> tuple[EegPlan, ...]:
    """Return a recording's EEGs, each some time after the one before; the first begins as early as possible."""
    eegs, start_s = [], LEAD_S
    for eeg_id in eeg_ids:
        # Most EEGs have a few windows within a minute, a few have many.
        count = 1 if rng.random() < 0.25 else 2 + int(min(rng.geometric(0.3), 25))
        steps = rng.choice([2.0, 4.0, 6.0, 8.0, 12.0], count - 1, p=[0.45, 0.2, 0.2, 0.1, 0.05])
        if traps & {"change", "revote"}:
            steps = np.r_[steps, 20.0, 2.0]
        if "odd_offset" in traps:
            steps = np.r_[rng.choice([1.0, 3.0, 2.5]), steps]
        offsets_s = tuple(np.r_[0.0, np.cumsum(steps)].tolist())
        split = None
        if "change" in traps:  # the pattern changes in the last wide step
            split = len(offsets_s) - 2
        elif "revote" in traps:
            split = int(rng.integers(1, len(offsets_s)))
        eegs.append(EegPlan(eeg_id, start_s, offsets_s, split))
        start_s += 2.0 * int(rng.integers(5, 90))
    return tuple(eegs)
