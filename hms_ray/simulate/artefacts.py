"""Artefacts: blinks, muscle, heart, mains, and electrodes that pop or lose contact."""

import numpy as np
from scipy.signal import oaconvolve

from hms_ray.simulate import _scalp
from hms_ray.simulate._noise import ramp, shaped, wander
from hms_ray.simulate._scalp import SFREQ


def blinks(rng: np.random.Generator, n: int, per_minute: float) -> np.ndarray:
    """Return eye blinks (C, n): slow positive waves at the frontal poles."""
    impulses = np.zeros(n, np.float32)
    at = rng.integers(0, n, rng.poisson(per_minute * n / SFREQ / 60))
    impulses[at] = rng.uniform(40, 140, len(at))
    t = np.arange(0, 0.45, 1 / SFREQ)
    wave = oaconvolve(impulses, (np.sin(np.pi * t / 0.45) ** 2).astype(np.float32))[:n]
    return _scalp.gains((-0.3, 1.05), 0.28, 0.0)[:, None] * wave


def muscle(rng: np.random.Generator, n: int, bursts: int) -> np.ndarray:
    """Return muscle artefact (C, n): bursts of fast activity over the temples and the forehead."""
    out = np.zeros((len(_scalp.CHANNELS), n), np.float32)
    for _ in range(bursts):
        start = int(rng.integers(0, n - 2 * SFREQ))
        length = min(int(rng.gamma(1.5, 8) + 2) * SFREQ, n - start)
        focus = (rng.choice([-0.9, 0.9]), rng.uniform(-0.2, 0.8))
        field = _scalp.gains(focus, rng.uniform(0.3, 0.6), rng.choice([0.1, 0.9]))
        noise = shaped(rng, len(field), length, lambda hz: hz**2 / (hz**2 + 20**2) / (1 + (hz / 70) ** 4))
        edge_s = rng.uniform(0.3, 0.45) * length / SFREQ
        level = rng.lognormal(0, 0.8) * ramp(length, edge_s / 2, length / SFREQ - edge_s / 2, edge_s)
        level *= np.exp(0.5 * wander(rng, length, 1))
        out[:, start : start + length] += field[:, None] * noise * level
    return out


def mains(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return 60 Hz interference (C, n), of a different strength at each electrode."""
    wave = np.sin(2 * np.pi * (60 * np.arange(n) / SFREQ + rng.random())).astype(np.float32)
    return rng.gamma(1, 0.9, (len(_scalp.CHANNELS), 1)).astype(np.float32) * wave


def heart(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return the EKG channel (n,) in uV: P, QRS and T at an irregular rhythm, on a wandering baseline."""
    rate_hz = rng.uniform(55, 120) / 60
    intervals = np.clip(1 + 0.04 * rng.standard_normal(int(n / SFREQ * rate_hz * 1.5) + 5), 0.5, 2) / rate_hz
    at = (np.cumsum(intervals) * SFREQ).astype(int)
    impulses = np.zeros(n, np.float32)
    impulses[at[at < n]] = 1
    t = np.arange(-0.25, 0.5, 1 / SFREQ)
    waves = ((-0.16, 0.025, 0.12), (-0.02, 0.008, -0.15), (0, 0.011, 1), (0.025, 0.01, -0.25), (0.26, 0.05, 0.25))
    bumps = (height * np.exp(-(((t - centre) / width) ** 2) / 2) for centre, width, height in waves)
    beat = sum(bumps, start=np.zeros_like(t))
    height_uv = rng.lognormal(5.2, 0.9) * rng.choice([-1, 1])
    trace = oaconvolve(impulses, beat.astype(np.float32) * height_uv)[50 : n + 50]
    return (trace + 0.06 * abs(height_uv) * wander(rng, n, 2) + 2 * rng.standard_normal(n)).astype(np.float32)


def pops(rng: np.random.Generator, n: int, starts: np.ndarray, low_uv: float, high_uv: float) -> np.ndarray:
    """Return electrode pops (C, n) at these samples: a jump at one electrode that decays; larger jumps decay faster."""
    out = np.zeros((len(_scalp.CHANNELS), n), np.float32)
    for start in starts.tolist():
        height_uv = np.exp(rng.uniform(np.log(low_uv), np.log(high_uv)))
        t = np.arange(min(n - start, 3 * SFREQ)) / SFREQ
        decay = np.exp(-t / (rng.uniform(0.3, 1.2) * min(1.0, 200 / height_uv) ** 0.7))
        out[rng.integers(len(out)), start : start + len(t)] += height_uv * rng.choice([-0.35, 1]) * decay
    return out


def drop_electrodes(rng: np.random.Generator, eeg: np.ndarray) -> np.ndarray:
    """Return (rows, electrodes) with NaN runs of .1 to 20 s in some electrodes, sometimes in all of them."""
    eeg = eeg.copy()
    rows, width = eeg.shape
    for _ in range(int(rng.integers(1, 4))):
        length = int(np.exp(rng.uniform(np.log(0.1), np.log(20))) * SFREQ)
        start = int(rng.integers(0, rows - length))
        count = width if rng.random() < 0.15 else int(rng.integers(1, 6))
        eeg[start : start + length, rng.choice(width, count, replace=False)] = np.nan
    return eeg
