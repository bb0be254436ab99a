"""The signal under every pattern: pink background, alpha, burst suppression, drift, and noise of the reference."""

from dataclasses import dataclass

import numpy as np

from hms_ray.simulate import _scalp
from hms_ray.simulate._noise import shaped, wander
from hms_ray.simulate._scalp import SFREQ


@dataclass(frozen=True)
class Background:
    """The parameters of one recording's background.

    level: power density at 4 Hz, uV^2/Hz
    slope: power falls as frequency to the power of -slope
    floor: power density at high frequencies, uV^2/Hz
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
    """Draw a background; a quiet one is so weak that parts of its spectrogram round to 0."""
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
    level = np.exp(0.12 * wander(rng, n, 8) + 0.15 * wander(rng, n, 60))
    if style.suppression:  # 1 in bursts and about .12 between them
        threshold = np.tanh(2 * (style.suppression - 0.5)) * 0.8
        level *= (0.12 + 0.88 / (1 + np.exp(-8 * (wander(rng, n, 3) - threshold)))).astype(np.float32)
    signal *= level
    if style.alpha_uv:  # the posterior rhythm: both sides together, of varying amplitude
        width_hz = 0.8
        peak = style.alpha_uv**2 / (2 * width_hz * np.sqrt(2 * np.pi))
        waves = shaped(rng, 2, n, lambda hz: peak * np.exp(-((hz - style.alpha_hz) ** 2) / (2 * width_hz**2)))
        waves *= np.exp(0.5 * wander(rng, n, 7))
        fields = np.stack([_scalp.gains((side * 0.35, -0.85), 0.45, 1.0) for side in (-1, 1)], axis=1)  # (C, 2)
        signal += _scalp.mix(fields, waves)
    return signal


def drift(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return offsets, slow drift and noise of the reference (C, n); a bipolar pair cancels most of it."""
    rows = len(_scalp.CHANNELS)
    common = shaped(rng, 1, n, lambda hz: 12 / (0.3 + hz**2)) + 15 * wander(rng, n, 6)
    slow = np.stack([wander(rng, n, rng.uniform(8, 25)) for _ in range(rows)])
    offset = rng.normal(0, 30) + rng.normal(0, 12, (rows, 1))
    return (common + slow * rng.gamma(2, 5, (rows, 1)) + offset).astype(np.float32)


def _density(hz: np.ndarray, style: Background) -> np.ndarray:
    """Return the two-sided power density at these frequencies, uV^2/Hz."""
    f = np.maximum(hz, 0.8)
    high_pass = hz**4 / (hz**4 + 0.45**4)
    pink = style.level * (f / 4) ** -style.slope / (1 + 0.04 * style.level * (f / 4) ** -style.slope)
    slow = style.level * style.slowing * np.exp(-((hz - 2.5) ** 2) / 2.0) * 2
    low_pass = 1 / (1 + (hz / 60) ** 6)
    return (pink + slow + style.floor) * high_pass * low_pass


def rms_uv(signal: np.ndarray) -> float:
    """Return the root mean square over all bipolar pairs of the four chains, uV; (C, T) -> scalar."""
    thin = signal[:, :: SFREQ // 20]
    pairs = np.concatenate([_scalp.chain_pairs(thin, chain) for chain in _scalp.CHAINS])
    return float(np.sqrt(np.mean(pairs**2)))
