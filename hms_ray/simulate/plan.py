"""Who is recorded, how often, for how long, and which of the real files' traps each file holds.

All of it is drawn before any signal, from one stream; each recording then has streams of its own.
"""

from dataclasses import dataclass

import numpy as np

from hms_ray.core import seeds
from hms_ray.simulate import panel
from hms_ray.simulate.scene import CLASSES

WINDOW_S = 50.0
IMAGE_S = 600.0
LEAD_S = (IMAGE_S - WINDOW_S) / 2  # the 50 s window lies in the middle of the 10 minute image
MAX_ID = 4_294_958_358  # the largest in the real files: beyond int32 and uint31
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
    """One EEG file: where in its recording it starts, and the offsets of its 50 s windows."""

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
    """One spectrogram file and the EEG files that it serves."""

    spectrogram_id: int
    patient_id: int
    panel: str
    label: str
    eegs: tuple[EegPlan, ...]
    spare_s: int  # what the file holds beyond the last window's 10 minutes
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
    owners = _owners(rng, eegs, patients)
    sizes = _sizes(rng, owners)
    firsts = np.cumsum([0, *sizes[:-1]])
    panels = _panels(rng, len(sizes))
    patient_ids = _ids(rng, patients, max(MAX_PATIENT_ID, 4 * patients))
    labels = _labels(rng, owners[firsts], panels)
    traps = _traps(rng, labels, panels)
    spectrogram_ids, eeg_ids = _ids(rng, len(sizes), MAX_ID), _ids(rng, eegs, MAX_ID)
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


def unlabelled(seed: int, eegs: int, taken: set[int]) -> list[RecordingPlan]:
    """Plan the part without labels: one 50 s EEG each, of patients that are not among the `taken` ids."""
    rng = seeds.stream(seed, "plan", "test")
    drawn = _ids(rng, eegs + len(taken), max(MAX_PATIENT_ID, 4 * (eegs + len(taken))))
    patient_ids = [i for i in drawn if i not in taken][:eegs]
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


def _owners(rng: np.random.Generator, eegs: int, patients: int) -> np.ndarray:
    """Return each EEG's patient, sorted: each patient has one, and few have many."""
    weights = rng.gamma(0.7, 1, patients) + 1e-3
    return np.sort(np.r_[np.arange(patients), rng.choice(patients, eegs - patients, p=weights / weights.sum())])


def _sizes(rng: np.random.Generator, owners: np.ndarray) -> list[int]:
    """Return how many EEGs each spectrogram serves: some of a patient's EEGs share that of the one before."""
    may_share = np.flatnonzero(owners[1:] == owners[:-1]) + 1
    sharing = set(rng.choice(may_share, int(np.ceil(0.12 * len(may_share))), replace=False).tolist())
    sizes = [1]
    for i in range(1, len(owners)):
        if i in sharing and sizes[-1] < 2:
            sizes[-1] += 1
        else:
            sizes.append(1)
    return sizes


def _panels(rng: np.random.Generator, count: int) -> list[str]:
    """Return each recording's panel in exact shares, so that a small set has its experts too."""
    edges = np.rint(np.cumsum([panel.SHARES[name] for name in panel.SHARES]) * count).astype(int)
    names = np.repeat(list(panel.SHARES), np.diff([0, *edges]))
    return [str(name) for name in rng.permutation(names)]


def _traps(rng: np.random.Generator, labels: list[str], panels: list[str]) -> list[frozenset[str]]:
    """Return each recording's traps in exact shares; every trap occurs, however small the set, if any can hold it."""
    changeable = [i for i, label in enumerate(labels) if label != "other" and panels[i] == "expert"]
    holders = {}
    for name, share in TRAPS.items():
        able = changeable if name == "change" else range(len(labels))
        count = min(len(able), max(1, round(share * len(labels))))
        holders[name] = set(rng.choice(able, count, replace=False).tolist())
    return [frozenset(name for name in TRAPS if i in holders[name]) for i in range(len(labels))]


def _labels(rng: np.random.Generator, owners: np.ndarray, panels: list[str]) -> list[str]:
    """Return what each recording shows: half of the time what its patient shows usually."""
    usual = {name: rng.choice(CLASSES, owners.max() + 1, p=share) for name, share in panel.POPULATION.items()}
    fresh = {name: rng.choice(CLASSES, len(panels), p=share) for name, share in panel.POPULATION.items()}
    loyal = rng.random(len(panels)) < 0.5
    return [str(usual[p][owners[i]] if loyal[i] else fresh[p][i]) for i, p in enumerate(panels)]


def _ids(rng: np.random.Generator, count: int, high: int) -> list[int]:
    """Return distinct ids from MIN_ID to `high`; the first is in the top quarter, so that large ids always occur."""
    found = {int(rng.integers(3 * high // 4, high + 1)): None}
    while len(found) < count:
        found.update(dict.fromkeys(rng.integers(MIN_ID, high + 1, count).tolist()))
    return list(found)[:count]


def _eegs(rng: np.random.Generator, eeg_ids: list[int], traps: frozenset[str]) -> tuple[EegPlan, ...]:
    """Return a recording's EEGs, each some time after the one before; the first at the earliest time there is."""
    eegs, start_s = [], LEAD_S
    for eeg_id in eeg_ids:
        offsets = _offsets(rng, traps)
        eegs.append(EegPlan(eeg_id, start_s, offsets, _split(rng, offsets, traps)))
        start_s += 2.0 * int(rng.integers(5, 90))
    return tuple(eegs)


def _offsets(rng: np.random.Generator, traps: frozenset[str]) -> tuple[float, ...]:
    """Return the starts of an EEG's windows: mostly a few within a minute, seldom many."""
    count = 1 if rng.random() < 0.25 else 2 + int(min(rng.geometric(0.3), 25))
    steps = rng.choice([2.0, 4.0, 6.0, 8.0, 12.0], count - 1, p=[0.45, 0.2, 0.2, 0.1, 0.05])
    if traps & {"change", "revote"}:
        steps = np.r_[steps, 20.0, 2.0]
    if "odd_offset" in traps:
        steps = np.r_[rng.choice([1.0, 3.0, 2.5]), steps]
    return tuple(np.r_[0.0, np.cumsum(steps)].tolist())


def _split(rng: np.random.Generator, offsets_s: tuple[float, ...], traps: frozenset[str]) -> int | None:
    """Return the first window of the second period; one that changes does so in the last wide step."""
    if "change" in traps:
        return len(offsets_s) - 2
    return int(rng.integers(1, len(offsets_s))) if "revote" in traps else None
