"""Waveforms of the ACNS terminology: periodic discharges, rhythmic delta activity, and seizures that evolve.

Each returns its sources (S, T), in arbitrary units, at 200 Hz: the first is focal, the second reaches further.
"""

from dataclasses import dataclass

import numpy as np
from scipy.signal import oaconvolve

from hms_ray.simulate._noise import ramp, shaped, wander
from hms_ray.simulate._scalp import SFREQ


def discharge(sharpness: float) -> np.ndarray:
    """Return one discharge (2, 1 s): a sharp biphasic or triphasic wave, and the slow wave that follows it.

    sharpness: 1 gives a spike of some 60 ms; towards 0 it broadens until only the slow wave is left.
    """
    t = np.arange(-0.3, 0.7, 1 / SFREQ)
    width = 0.02 + 0.05 * (1 - sharpness)
    sharp = 0.45 * _bell(t, -2.2 * width, width) - _bell(t, 0, width) + 0.5 * _bell(t, 2.5 * width, 1.4 * width)
    slow = _bell(t, 0.05 + 3 * width, 0.09 + 0.04 * (1 - sharpness))
    return np.stack([sharp * (0.3 + 0.7 * sharpness), (0.9 - 0.4 * sharpness) * slow]).astype(np.float32)


def periodic(rng: np.random.Generator, n: int, rate_hz: float, sharpness: float, jitter: float = 0.06) -> np.ndarray:
    """Return periodic discharges (2, n): one discharge repeated at nearly regular intervals."""
    count = int(n / SFREQ * rate_hz * 1.3) + 10
    nominal = np.minimum(np.arange(count) / rate_hz * SFREQ, n - 1).astype(int)
    drift = 1 + 0.08 * wander(rng, n, 40)[nominal]
    intervals = np.clip(drift * (1 + jitter * rng.standard_normal(count)), 0.4, 2) / rate_hz
    at = ((np.cumsum(intervals) - intervals[0] * rng.random()) * SFREQ).astype(int)
    at = at[at < n]
    impulses = np.zeros((1, n), np.float32)
    impulses[0, at] = rng.lognormal(0, 0.18, len(at))
    kernel = discharge(sharpness)
    return oaconvolve(impulses, kernel, axes=1)[:, int(0.3 * SFREQ) :][:, :n]


def rhythmic(rng: np.random.Generator, n: int, rate_hz: float, sharpness: float) -> np.ndarray:
    """Return rhythmic delta activity (2, n): waves of one form without intervals, waxing and waning."""
    rate = rate_hz * (1 + 0.07 * wander(rng, n, 1.5) + 0.04 * wander(rng, n, 40))
    phase = 2 * np.pi * (np.cumsum(rate) / SFREQ + rng.random())
    wave = np.sin(phase) + (0.15 + 0.35 * sharpness) * np.sin(2 * phase + 0.7) + 0.2 * sharpness * np.sin(3 * phase)
    focal = wave * np.exp(0.35 * wander(rng, n, 2))
    wide = 0.5 * np.sin(phase - 0.5) * np.exp(0.4 * wander(rng, n, 4))
    return np.stack([focal, wide]).astype(np.float32)


def seizure(rng: np.random.Generator, n: int, spans: list[tuple[float, float]]) -> np.ndarray:
    """Return seizures (2, n) over the spans (start_s, stop_s): they evolve, and the second source joins."""
    out = np.zeros((2, n), np.float32)
    course = draw_course(rng)
    for start, stop in spans:
        first, last = max(0, int(start * SFREQ)), min(n, int(stop * SFREQ))
        steps = last - first
        if steps <= SFREQ:
            continue
        rate = course.rates_hz(steps) * (1 + 0.06 * wander(rng, steps, 1) + 0.06 * wander(rng, steps, 4))
        phase = 2 * np.pi * (np.cumsum(rate) / SFREQ + rng.random())
        share = np.linspace(0, 1, steps)  # of the seizure
        spiky = np.exp(2.2 * (np.cos(phase) - 1)) - 0.35 - 0.5 * np.cos(phase - 1.2)
        growth = np.interp(share, [0, 0.1, 0.5, 0.9, 1], [0.15, 0.5, 1.0, 1.1, 0.3])
        fast = shaped(rng, 1, steps, lambda hz: 0.004 * hz**2 / (hz**2 + 25) / (1 + (hz / 14) ** 4))[0]
        focal = (spiky * np.exp(0.25 * wander(rng, steps, 1)) + fast) * growth
        joined = np.interp(share, [0, 0.3, 0.6, 1], [0, 0.1, 0.8, 0.9])
        wide = joined * (np.cos(phase - 0.9) + 0.4 * np.cos(2 * phase)) * np.exp(0.2 * wander(rng, steps, 2))
        out[:, first:last] += (np.stack([focal, wide]) * ramp(steps, 1, steps / SFREQ - 0.5, 1)).astype(np.float32)
    return out


@dataclass(frozen=True)
class Course:
    """How a seizure's frequency evolves: from `first_hz` up to `top_hz` at the share `top_at` of it, then down."""

    first_hz: float
    top_hz: float
    final_hz: float
    top_at: float

    def rates_hz(self, n: int) -> np.ndarray:
        """Return the frequency at each of n samples."""
        at = [0, self.top_at, self.top_at + 0.15, 1]
        return np.interp(np.linspace(0, 1, n), at, [self.first_hz, self.top_hz, 0.8 * self.top_hz, self.final_hz])


def draw_course(rng: np.random.Generator) -> Course:
    """Draw a course; some seizures climb for long, others begin near their fastest."""
    return Course(rng.uniform(1.2, 2.8), rng.uniform(3.5, 9), rng.uniform(1.0, 2.5), rng.uniform(0.15, 0.7))


def _bell(t: np.ndarray, centre: float, width: float) -> np.ndarray:
    return np.exp(-(((t - centre) / width) ** 2) / 2)
