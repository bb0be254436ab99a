"""One recording as a signal: background, pattern and artefacts, as long as its spectrogram file."""

from dataclasses import dataclass

import numpy as np

from hms_ray.simulate import _scalp, artefacts, background, patterns
from hms_ray.simulate._noise import ramp, wander
from hms_ray.simulate._scalp import SFREQ
from hms_ray.simulate.scene import Scene
from hms_ray.simulate.spectrogram import EDGE_S

# How much wider the second source reaches than the first, and how much less lateralised it is
_SECOND = {"seizure": (1.6, 0.4), "periodic": (1.3, 0.8), "rhythmic": (1.4, 0.8)}


@dataclass(frozen=True)
class Recording:
    """A simulated recording; it has EDGE_S more at both ends than its spectrogram file.

    signal: (C, T) in uV against a common reference; ekg: (T,); presence: (T,) the pattern's share of its amplitude
    """

    signal: np.ndarray
    ekg: np.ndarray
    presence: np.ndarray

    def presence_at(self, start_s: float, stop_s: float) -> float:
        """Return the mean presence of the pattern between two times of the spectrogram file."""
        first, last = (int((t + EDGE_S) * SFREQ) for t in (start_s, stop_s))
        return float(self.presence[first:last].mean())

    def eeg(self, start_s: float, rows: int) -> np.ndarray:
        """Return (rows, 20) in uV from a time of the spectrogram file on, the EKG last, rounded as in the files."""
        first = round((start_s + EDGE_S) * SFREQ)
        cut = np.vstack([self.signal, self.ekg])[:, first : first + rows]
        return np.round(cut.T, 2).astype(np.float32)


def render(
    rng: np.random.Generator,
    scene: Scene,
    seconds: int,
    labelled_s: tuple[float, float],
    onset_s: float | None = None,
    traps: frozenset[str] = frozenset(),
) -> Recording:
    """Render a scene.

    seconds: length of the spectrogram file
    labelled_s: the times between which the pattern must be visible, because raters looked there
    onset_s: when the pattern begins, where that lies between two labelled windows
    traps: "outlier" and "flat" change the signal here
    """
    n = (seconds + 2 * EDGE_S) * SFREQ
    minutes, is_seizure = n / SFREQ / 60, scene.kind == "seizure"
    under = background.render(rng, n, scene.background)
    # The pattern is on around the labelled time, in seconds of the signal.
    first_s, last_s = labelled_s[0] + EDGE_S, labelled_s[1] + EDGE_S
    reach = (15, 45) if is_seizure else (40, 500)
    start_s, stop_s = first_s - rng.uniform(*reach), last_s + rng.uniform(*reach)
    if onset_s is not None:
        start_s = onset_s + EDGE_S
    spans = [(start_s, stop_s)]
    if is_seizure and rng.random() >= 0.5:  # seizures may recur
        every_s = stop_s - start_s + rng.uniform(60, 200)
        repeats = range(-3 if onset_s is None else 0, 4)
        spans = [(start_s + k * every_s, stop_s + k * every_s) for k in repeats]
        spans = [span for span in spans if span[0] < seconds and span[1] > 0]
    edge_s = 2.0 if is_seizure or onset_s is not None else rng.uniform(3, 40)
    presence = np.max([ramp(n, start, stop, edge_s) for start, stop in spans], axis=0)
    if not is_seizure:
        presence = presence * np.exp(0.2 * wander(rng, n, 10) + 0.25 * wander(rng, n, 60))
    signal = under + _pattern(rng, n, scene, spans, presence, background.rms_uv(under))
    noise = background.drift(rng, n) + artefacts.mains(rng, n)
    if rng.random() < 0.35:
        noise += artefacts.blinks(rng, n, rng.uniform(2, 18))
    if rng.random() < 0.6:
        noise += artefacts.muscle(rng, n, int(rng.poisson(0.5 * minutes)))
    noise += artefacts.pops(rng, n, rng.integers(0, n - SFREQ, rng.poisson(0.2 * minutes)), 50, 600)
    if "outlier" in traps:
        first, last = (int((t + EDGE_S) * SFREQ) for t in labelled_s)
        starts = rng.integers(first - 20 * SFREQ, last + 20 * SFREQ, 3)
        noise += artefacts.pops(rng, n, starts, 1500, 33_000)
    signal += noise
    if "flat" in traps:
        signal[rng.integers(len(signal))] = 0
    return Recording(signal, artefacts.heart(rng, n), presence)


def _pattern(
    rng: np.random.Generator,
    n: int,
    scene: Scene,
    spans: list[tuple[float, float]],
    presence: np.ndarray,
    background_uv: float,
) -> np.ndarray:
    """Return the pattern (C, n) at its visibility over the background, measured on the chain where it is largest.

    An electrode records the sources attenuated by distance and a little later; the second source reaches further.
    """
    if scene.kind == "none":
        return np.zeros((len(_scalp.CHANNELS), n), np.float32)
    if scene.kind == "seizure":
        sources = patterns.seizure(rng, n, spans)
    else:
        repeat = patterns.periodic if scene.kind == "periodic" else patterns.rhythmic
        sources = repeat(rng, n, scene.rate_hz, scene.sharpness) * presence
    lag_ms = float(rng.uniform(10, 40))
    waves = np.zeros((len(_scalp.CHANNELS), n), np.float32)
    wider, sided = _SECOND[scene.kind]
    reaches = ((scene.spread, scene.laterality), (scene.spread * wider, scene.laterality * sided))
    for source, (spread, laterality) in zip(sources, reaches, strict=True):
        field = _scalp.gains(scene.focus, spread, laterality)
        delays = _scalp.delays(scene.focus, lag_ms, laterality)
        for row in range(len(waves)):
            waves[row] += field[row] * np.roll(source, delays[row])
    visible = waves[:, presence > 0.5][:, :: SFREQ // 50]
    strength = max(np.sqrt(np.mean(_scalp.chain_pairs(visible, chain) ** 2)) for chain in _scalp.CHAINS)
    return waves * np.float32(scene.visibility * background_uv / max(strength, 1e-6))
