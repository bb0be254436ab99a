"""Random signals for the other files: noise of a given spectrum, and slow random curves."""

from collections.abc import Callable

import numpy as np
from scipy import fft

from hms_ray.simulate._scalp import SFREQ


def shaped(rng: np.random.Generator, rows: int, n: int, density: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return Gaussian noise (rows, n) in uV whose two-sided power density is `density(hz)` in uV^2/Hz."""
    size = fft.next_fast_len(n, real=True)
    hz = fft.rfftfreq(size, 1 / SFREQ)
    scale = np.sqrt(density(hz) * SFREQ * size / 2).astype(np.float32)
    parts = rng.standard_normal((2, rows, len(hz)), dtype=np.float32)
    return fft.irfft((parts[0] + 1j * parts[1]) * scale, size)[:, :n]


def wander(rng: np.random.Generator, n: int, every_s: float) -> np.ndarray:
    """Return a smooth random curve (n,) of about unit variance with a turning point every `every_s` seconds."""
    step = max(1, round(every_s * SFREQ))
    knots = rng.standard_normal(n // step + 3, dtype=np.float32)[:, None]
    ease = (0.5 - 0.5 * np.cos(np.pi * np.arange(step) / step)).astype(np.float32)
    start = rng.integers(step)
    return (knots[:-1] * (1 - ease) + knots[1:] * ease).ravel()[start : start + n]


def ramp(n: int, start_s: float, stop_s: float, edge_s: float) -> np.ndarray:
    """Return (n,) that rises from 0 to 1 around `start_s` and falls back around `stop_s`."""
    t = np.arange(n, dtype=np.float32) / SFREQ
    return _rise((t - start_s) / edge_s) * _rise((stop_s - t) / edge_s)


def _rise(x: np.ndarray) -> np.ndarray:
    x = np.clip(x + 0.5, 0, 1)
    return x * x * (3 - 2 * x)
