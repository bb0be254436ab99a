"""Whether EEGs have the rate that they are taken for. Their files do not say it; the mains hum and their length do.

Of 28 real EEGs of 50 s and more, recorded at 200 Hz, 22 have a line at 60.0 Hz that stands at least twofold above its
surroundings; none of the others has one where the hum would appear at another rate. EEGs that were filtered below it
tell nothing by their spectrum.
"""

from collections.abc import Mapping
from itertools import product
from typing import NamedTuple

import numpy as np

from hms_ray.core.recordings import RecordingKind

MAINS_HZ = (50.0, 60.0)
RATES_HZ = (100, 125, 128, 250, 256, 400, 500, 512)  # at which EEGs are recorded, beside 200
LINE, FAINT = 10.0, 2.0  # times the power around it: a line that accuses, and one that acquits
NEAR_HZ = 0.2
STEPS = 1000  # of a segment of the spectrum: 0.2 Hz apart
AROUND = 21  # frequencies whose median is what surrounds a line
SAME, TELLING = 0.02, 0.9  # of a length, within what it counts as equal; share of the recordings that has to agree


class Found(NamedTuple):
    """What speaks for another rate: how many recordings of those looked at, one of them, and where their hum lies."""

    rate_hz: int
    names: tuple[str, ...]
    looked_at: int
    line_hz: float | None


def by_hum(kind: RecordingKind, values: Mapping[str, np.ndarray], length: Mapping[str, float]) -> Found | None:
    """Return the other rate at which the mains hum of most of these recordings would lie where a line of theirs does.

    values: (channels, steps) of some recordings; length: of each, its steps over those that its labels need, where they
    tell. One that is exactly as long as they need has the right rate, whatever hums in it.
    """
    found: dict[tuple[int, float], dict[str, float]] = {}  # the height of a line, by recording
    for name, recording in values.items():
        if abs(length.get(name, np.nan) - 1) <= SAME or recording.shape[1] < STEPS:
            continue
        hz, above = _lines(recording, kind.rate_hz)
        if any(_height(hz, above, mains) >= FAINT for mains in MAINS_HZ):
            continue
        for rate, mains in product(RATES_HZ, MAINS_HZ):
            place = mains * kind.rate_hz / rate
            if (height := _height(hz, above, place)) >= LINE:
                found.setdefault((rate, place), {})[name] = height
    if not found:
        return None
    # Places of two rates may be neighbours, where one line is seen from both: the higher is meant.
    rate, place = max(found, key=lambda key: (len(found[key]), sum(found[key].values())))
    return Found(rate, tuple(found[rate, place]), len(values), place)


def by_length(kind: RecordingKind, length: Mapping[str, float]) -> Found | None:
    """Return the rate at which nearly all recordings would be exactly as long as their labels need, if not 200 Hz."""
    ratio = np.array(list(length.values()))
    for rate in RATES_HZ:
        fits = np.array([agrees(kind, one, rate) for one in ratio])
        if len(ratio) >= 3 and fits.mean() >= TELLING:
            names = np.array(list(length))[fits].tolist()
            return Found(rate, tuple(names), len(ratio), None)
    return None


def agrees(kind: RecordingKind, length: float | None, rate_hz: float) -> bool:
    """Whether a recording is as long as it would be at that rate; length: its steps over those that its labels need."""
    return length is not None and abs(length * kind.rate_hz / rate_hz - 1) <= SAME / 2


def _lines(recording: np.ndarray, rate_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """Return frequencies and the spectrum's height above its surroundings, of the channels' median."""
    from scipy import signal  # slow to import, and most commands look at no spectrum

    known = np.nan_to_num(recording - np.nanmedian(np.nan_to_num(recording), axis=1, keepdims=True))
    hz, power = signal.welch(known, rate_hz, nperseg=STEPS)
    power = np.median(power, axis=0)
    around = signal.medfilt(power, AROUND)
    return hz, np.divide(power, around, out=np.zeros_like(power), where=around > 1e-9 * max(power.max(), 1e-30))


def _height(hz: np.ndarray, above: np.ndarray, place: float) -> float:
    """Return the height of the line near a frequency, 0 where there is none to be seen."""
    near = np.abs(hz - place) <= NEAR_HZ + 1e-9
    near &= (hz > 15) & (hz < hz[-1] - 2)  # the EEG's own rhythms, and where filters end
    return float(above[near].max(initial=0))
