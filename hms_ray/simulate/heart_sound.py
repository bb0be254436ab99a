"""The sound of one heart at the stethoscope: its two sounds, the murmurs of its valves, breath and noise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import fft

RATE_HZ = 4000
POSTURES = ("sup", "sit")
POSITIONS = ("Mit", "Tri", "Pul", "Aor")
DISEASES = ("AS", "AR", "MR", "MS")
_S1_LEVELS = (1.0, 0.9, 0.6, 0.55)  # at POSITIONS: the first sound comes from the inflow valves, near the apex
_S2_LEVELS = (0.55, 0.6, 0.95, 1.0)  # the second comes from the outflow valves, at the base
_JITTER = 0.12  # largest deviation of an interval between beats, as a share of the mean
_MAX_INT16 = np.iinfo(np.int16).max


@dataclass(frozen=True)
class Murmur:
    """The noise that a valve adds to the heart sounds.

    band_hz: its frequencies
    at, shape: knots of its loudness over a beat: 0 is S1, 1 is S2, 2 the next S1; silent outside
    levels: its level at each of POSITIONS
    sitting: its level when sitting, relative to lying
    s1, s2: factors of the two heart sounds at grade 5
    """

    band_hz: tuple[float, float]
    at: tuple[float, ...]
    shape: tuple[float, ...]
    levels: tuple[float, float, float, float]
    sitting: float = 1.0
    s1: float = 1.0
    s2: float = 1.0


MURMURS = {
    # ejection through a narrow valve: crescendo and decrescendo, between the sounds
    "AS": Murmur((100, 400), (0.1, 0.5, 0.92), (0, 1, 0), (0.4, 0.35, 0.6, 1.0), s2=0.6),
    # backflow that is strongest at once; leaning forward brings it nearer to the chest
    "AR": Murmur((200, 600), (1.0, 1.06, 1.25, 1.7), (0, 1, 0.5, 0), (0.35, 0.6, 0.7, 1.0), sitting=1.5, s2=0.8),
    # backflow as long as the ventricle presses
    "MR": Murmur((150, 500), (0.0, 0.08, 0.94, 1.02), (0, 1, 1, 0), (1.0, 0.5, 0.3, 0.25), s1=0.7),
    # slow inflow after the opening snap, and once more when the atrium contracts
    "MS": Murmur((40, 120), (1.25, 1.4, 1.7, 1.93, 2.0), (0, 1, 0.5, 0.9, 0), (1.0, 0.4, 0.15, 0.1), 0.7, s1=1.6),
    # flow that healthy hearts may make as well
    "innocent": Murmur((80, 250), (0.08, 0.3, 0.65), (0, 1, 0), (0.4, 0.5, 1.0, 0.7), sitting=0.6),
}


@dataclass(frozen=True)
class Heart:
    """One subject's heart.

    rate_bpm: beats a minute
    systole_s: from S1 to S2
    s1_hz, s2_hz: main frequencies of the sounds
    split_s: from the aortic to the pulmonary part of S2
    snap_s: from S2 to the opening snap, if there is one
    breath_hz: breaths a second
    loudness: the share of the sound that passes the chest
    grades: murmur -> Levine grade, from 1 (hardly audible) to 5 (very loud)
    """

    rate_bpm: float
    systole_s: float
    s1_hz: float
    s2_hz: float
    split_s: float
    snap_s: float
    breath_hz: float
    loudness: float
    grades: Mapping[str, float]


def draw(rng: np.random.Generator, diseases: Sequence[str]) -> Heart:
    """Draw a heart with these diseases, a grade for each, and sometimes an innocent murmur."""
    rate_bpm = float(rng.uniform(55, 110))
    innocent = {"innocent": float(rng.uniform(1, 3))} if rng.random() < 0.35 else {}
    return Heart(
        rate_bpm=rate_bpm,
        systole_s=float((0.41 - 0.0016 * rate_bpm) * rng.uniform(0.94, 1.06)),  # diastole shortens more
        s1_hz=float(rng.uniform(45, 80)),
        s2_hz=float(rng.uniform(65, 110)),
        split_s=float(rng.uniform(0.01, 0.035)),
        snap_s=float(rng.uniform(0.05, 0.09)),
        breath_hz=float(rng.uniform(0.2, 0.35)),
        loudness=float(rng.lognormal(0, 0.25)),
        grades=innocent | {name: float(rng.uniform(1, 5)) for name in diseases},
    )


def beats(rng: np.random.Generator, heart: Heart, seconds: float) -> np.ndarray:
    """Return the alternating times of S1 and S2, (2 x beats,) in s, from before the recording to after its end."""
    cycle_s = 60 / heart.rate_bpm
    count = int(seconds / cycle_s / (1 - _JITTER)) + 4
    intervals = cycle_s * (1 + np.clip(0.04 * rng.standard_normal(count), -_JITTER, _JITTER))
    s1 = np.cumsum(intervals) - cycle_s * (2 + rng.random())
    s2 = s1 + heart.systole_s * (1 + np.clip(0.015 * rng.standard_normal(count), -0.05, 0.05))
    return np.column_stack([s1, s2]).ravel()


def render(
    rng: np.random.Generator, heart: Heart, knots_s: np.ndarray, posture: str, position: str, steps: int
) -> np.ndarray:
    """Return the sound at a position, (steps,) at RATE_HZ; an average S1 at the apex peaks at about 1.

    knots_s: times returned by `beats`
    """
    place = POSITIONS.index(position)
    # Breath, rumble of the room and hiss of the microphone; drawn first, so that they do not depend on the diseases.
    phase = 2 * np.pi * (heart.breath_hz * np.arange(steps) / RATE_HZ + rng.random())
    breath = 0.02 * rng.lognormal(0, 0.5) * (1 + np.sin(phase)).astype(np.float32) * _noise(rng, steps, 100, 500)
    room = 0.03 * rng.lognormal(0, 0.5) * _noise(rng, steps, 25, 250)
    hiss = 0.006 * rng.lognormal(0, 0.5) * rng.standard_normal(steps, dtype=np.float32)
    background = breath + room + hiss
    # S1, S2 and any opening snap; breath and chance vary their strength from beat to beat.
    s1, s2 = knots_s[::2], knots_s[1::2]
    strength = np.exp(0.1 * rng.standard_normal(len(s1)) + 0.12 * np.sin(2 * np.pi * heart.breath_hz * s1))
    first = strength * _S1_LEVELS[place] * _softening(heart, "s1")
    second = strength * _S2_LEVELS[place] * _softening(heart, "s2")
    sound = np.zeros(steps, np.float32)
    _add(sound, s1, first, heart.s1_hz, 0.022)
    _add(sound, s1 + 0.02, 0.4 * first, 1.4 * heart.s1_hz, 0.018)
    _add(sound, s2, second, heart.s2_hz, 0.014)
    _add(sound, s2 + heart.split_s, 0.4 * second, 0.9 * heart.s2_hz, 0.014)
    if "MS" in heart.grades:
        snap = 0.08 * heart.grades["MS"] * MURMURS["MS"].levels[place]
        _add(sound, s2 + heart.snap_s, snap * strength, 115, 0.008)
    cycle = np.interp(np.arange(steps) / RATE_HZ, knots_s, np.arange(len(knots_s))) % 2  # 0 at S1, 1 at S2
    for name, grade in heart.grades.items():
        murmur = MURMURS[name]
        peak = 0.03 * 10 ** ((grade - 1) / 4)  # root mean square with S1 at 1: five decibels a grade
        level = peak * murmur.levels[place] * (murmur.sitting if posture == "sit" else 1)
        envelope = np.interp(cycle, murmur.at, np.multiply(level, murmur.shape), left=0, right=0)
        sound += envelope.astype(np.float32) * _noise(rng, steps, *murmur.band_hz)
    return background + heart.loudness * sound


def record(rng: np.random.Generator, heart: Heart, posture: str, position: str, seconds: float) -> np.ndarray:
    """Return one recording as 16-bit numbers, (round(seconds * RATE_HZ),), through a microphone of random gain."""
    knots_s = beats(rng, heart, seconds)
    sound = render(rng, heart, knots_s, posture, position, round(seconds * RATE_HZ))
    gain = 6000 * rng.lognormal(0, 0.5)
    return np.clip(np.rint(gain * sound), -_MAX_INT16, _MAX_INT16).astype(np.int16)


def _softening(heart: Heart, sound: str) -> float:
    """Return the factor of S1 or S2 due to the diseases; a disease of grade 5 has its full effect."""
    factors = [getattr(MURMURS[name], sound) ** (grade / 5) for name, grade in heart.grades.items()]
    return float(np.prod(factors))


def _add(out: np.ndarray, at_s: np.ndarray, levels: np.ndarray, hz: float, decay_s: float) -> None:
    """Add a damped wave, whose peak is the level, to `out` in place at each time; samples outside are cut off."""
    t = np.arange(0, 6 * decay_s, 1 / RATE_HZ)
    wave = np.sin(2 * np.pi * hz * t) * np.exp(-t / decay_s) * (1 - np.exp(-t / 0.004))
    wave /= np.abs(wave).max()
    for start, level in zip(np.rint(at_s * RATE_HZ).astype(int).tolist(), levels.tolist(), strict=True):
        first, last = max(start, 0), min(start + len(wave), len(out))
        if first < last:
            out[first:last] += level * wave[first - start : last - start]


def _noise(rng: np.random.Generator, steps: int, low_hz: float, high_hz: float) -> np.ndarray:
    """Return Gaussian noise of unit root mean square in a band with soft edges, (steps,)."""
    size = fft.next_fast_len(steps, real=True)
    gain = _band(size, low_hz, high_hz)
    parts = rng.standard_normal((len(gain), 2), dtype=np.float32) * gain[:, None]
    wave = fft.irfft(parts.view(np.complex64)[:, 0], size)[:steps]
    return wave / np.sqrt(np.mean(wave**2))


@lru_cache(maxsize=64)
def _band(size: int, low_hz: float, high_hz: float) -> np.ndarray:
    """Return the gain at the lowest frequencies of a real transform of `size` steps; edges fall 48 dB an octave.

    It ends an octave above the band: higher frequencies are silent and need not be drawn.
    """
    hz = np.maximum(fft.rfftfreq(size, 1 / RATE_HZ), 1e-3)
    hz = hz[hz < 2 * high_hz]
    return (1 / np.sqrt((1 + (low_hz / hz) ** 16) * (1 + (hz / high_hz) ** 16))).astype(np.float32)
