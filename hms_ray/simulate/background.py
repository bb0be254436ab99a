"""What lies under every pattern: pink background, alpha, burst suppression, drift, and the reference's own noise."""

from dataclasses import dataclass

import numpy as np

from hms_ray.simulate import _scalp
from hms_ray.simulate._noise import shaped, wander
from hms_ray.simulate._scalp import SFREQ


@dataclass(frozen=True)
class Background:
    """How one recording's background looks.

    level: power density at 4 Hz, uV^2/Hz
    slope: power falls with frequency to this power
    floor: power density that is left at high frequencies, uV^2/Hz
    slowing: extra power around 2.5 Hz, as a multiple of `level`
    alpha_uv, alpha_hz: posterior rhythm; 0 uV where the patient has none
    asymmetry: log ratio of amplitudes, right over left
    suppression: share of time in which the background is suppressed between bursts
    """

    level: float
    slope: float
    floor: float
    slowing: float
    alpha_uv: float
    alpha_hz: float
    asymmetry: float
    suppression: float


def draw(rng: np.random.Generator, quiet: bool) -> Background:
    """Draw a background; a quiet one is so low that its spectrogram rounds to 0 in places."""
    suppressed = rng.random() < 0.08
    alpha = rng.random() < 0.2 and not suppressed  # a brain that bursts has no posterior rhythm
    return Background(
        level=float(np.exp(rng.normal(0.5, 0.7)) * (0.06 if quiet else 1)),
        slope=float(rng.uniform(2.0, 3.4)),
        floor=float(np.exp(rng.normal(-3.5, 1.0)) * (0.06 if quiet else 1)),
        slowing=float(rng.exponential(0.6)),
        alpha_uv=float(rng.uniform(3, 9)) * alpha,
        alpha_hz=float(rng.uniform(7.5, 11)),
        asymmetry=float(rng.normal(0, 0.12)),
        suppression=float(rng.uniform(0.3, 0.7)) * suppressed,
    )


def render(rng: np.random.Generator, n: int, style: Background) -> np.ndarray:
    """Return the background (C, n) in uV, against a common reference, without drift."""
    sources = shaped(rng, len(_scalp.CHANNELS), n, lambda hz: _density(hz, style))
    signal = _scalp.mix(_scalp.volume_conduction(), sources)
    signal *= np.exp(0.5 * style.asymmetry * np.sign(_scalp.POSITIONS[:, :1])).astype(np.float32)
    signal *= np.exp(0.12 * wander(rng, n, 8) + 0.15 * wander(rng, n, 60)) * _bursts(rng, n, style.suppression)
    if style.alpha_uv:
        signal += _alpha(rng, n, style)
    return signal


def drift(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return offsets, slow sway and the reference's own noise (C, n), most of which a bipolar pair cancels."""
    rows = len(_scalp.CHANNELS)
    common = shaped(rng, 1, n, lambda hz: 12 / (0.3 + hz**2)) + 15 * wander(rng, n, 6)
    slow = np.stack([wander(rng, n, rng.uniform(8, 25)) for _ in range(rows)])
    offset = rng.normal(0, 30) + rng.normal(0, 12, (rows, 1))
    return (common + slow * rng.gamma(2, 5, (rows, 1)) + offset).astype(np.float32)


def _density(hz: np.ndarray, style: Background) -> np.ndarray:
    f = np.maximum(hz, 0.8)
    high_pass = hz**4 / (hz**4 + 0.45**4)
    pink = style.level * (f / 4) ** -style.slope / (1 + 0.04 * style.level * (f / 4) ** -style.slope)
    slow = style.level * style.slowing * np.exp(-((hz - 2.5) ** 2) / 2.0) * 2
    low_pass = 1 / (1 + (hz / 60) ** 6)
    return (pink + slow + style.floor) * high_pass * low_pass


def _alpha(rng: np.random.Generator, n: int, style: Background) -> np.ndarray:
    """Return the posterior rhythm (C, n): both sides together, waxing and waning."""
    width = 0.8
    peak = style.alpha_uv**2 / (2 * width * np.sqrt(2 * np.pi))
    waves = shaped(rng, 2, n, lambda hz: peak * np.exp(-((hz - style.alpha_hz) ** 2) / (2 * width**2)))
    waves *= np.exp(0.5 * wander(rng, n, 7))
    fields = np.stack([_scalp.gains((side * 0.35, -0.85), 0.45, 1.0) for side in (-1, 1)], axis=1)  # (C, 2)
    return _scalp.mix(fields, waves)


def _bursts(rng: np.random.Generator, n: int, suppression: float) -> np.ndarray:
    """Return (n,) of 1 in bursts and about .12 between them; 1 throughout where there is no suppression."""
    if not suppression:
        return np.ones(n, np.float32)
    threshold = np.tanh(2 * (suppression - 0.5)) * 0.8
    return (0.12 + 0.88 / (1 + np.exp(-8 * (wander(rng, n, 3) - threshold)))).astype(np.float32)


def rms_uv(signal: np.ndarray) -> float:
    """Return the root mean square over all bipolar pairs of the four chains, uV; (C, T) -> scalar."""
    thin = signal[:, :: SFREQ // 20]
    pairs = np.concatenate([_scalp.chain_pairs(thin, chain) for chain in _scalp.CHAINS])
    return float(np.sqrt(np.mean(pairs**2)))
