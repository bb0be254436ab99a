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
    labelled_s: the times between which the pattern must show, since raters looked there
    onset_s: when the pattern begins, where that lies between two labelled windows
    traps: "outlier" and "flat" change the signal here
    """
    n = (seconds + 2 * EDGE_S) * SFREQ
    under = background.render(rng, n, scene.background)
    spans = _spans(rng, scene.kind, seconds, labelled_s, onset_s)
    edge_s = 2.0 if scene.kind == "seizure" or onset_s is not None else rng.uniform(3, 40)
    presence = _presence(rng, n, scene.kind, spans, edge_s)
    signal = under + _pattern(rng, n, scene, spans, presence, background.rms_uv(under))
    signal += _artefacts(rng, n, labelled_s, traps)
    if "flat" in traps:
        signal[rng.integers(len(signal))] = 0
    return Recording(signal, artefacts.heart(rng, n), presence)


def _spans(
    rng: np.random.Generator, kind: str, seconds: int, labelled_s: tuple[float, float], onset_s: float | None
) -> list[tuple[float, float]]:
    """Return when the pattern is on, in seconds of the signal: around the labelled time; seizures may recur."""
    first, last = labelled_s[0] + EDGE_S, labelled_s[1] + EDGE_S
    reach = (15, 45) if kind == "seizure" else (40, 500)
    main = (first - rng.uniform(*reach), last + rng.uniform(*reach))
    if onset_s is not None:
        main = (onset_s + EDGE_S, main[1])
    if kind != "seizure" or rng.random() < 0.5:
        return [main]
    every = main[1] - main[0] + rng.uniform(60, 200)
    repeats = range(-3 if onset_s is None else 0, 4)
    spans = [(main[0] + k * every, main[1] + k * every) for k in repeats]
    return [span for span in spans if span[0] < seconds and span[1] > 0]


def _presence(
    rng: np.random.Generator, n: int, kind: str, spans: list[tuple[float, float]], edge_s: float
) -> np.ndarray:
    on = np.max([ramp(n, start, stop, edge_s) for start, stop in spans], axis=0)
    return on if kind == "seizure" else on * np.exp(0.2 * wander(rng, n, 10) + 0.25 * wander(rng, n, 60))


def _pattern(
    rng: np.random.Generator,
    n: int,
    scene: Scene,
    spans: list[tuple[float, float]],
    presence: np.ndarray,
    background_uv: float,
) -> np.ndarray:
    """Return the pattern (C, n) at its visibility over the background, measured on the chain that shows it best."""
    if scene.kind == "none":
        return np.zeros((len(_scalp.CHANNELS), n), np.float32)
    if scene.kind == "seizure":
        sources = patterns.seizure(rng, n, spans)
    else:
        repeat = patterns.periodic if scene.kind == "periodic" else patterns.rhythmic
        sources = repeat(rng, n, scene.rate_hz, scene.sharpness) * presence
    waves = _project(sources, scene, float(rng.uniform(10, 40)))
    shown = waves[:, presence > 0.5][:, :: SFREQ // 50]
    strength = max(np.sqrt(np.mean(_scalp.chain_pairs(shown, chain) ** 2)) for chain in _scalp.CHAINS)
    return waves * np.float32(scene.visibility * background_uv / max(strength, 1e-6))


def _project(sources: np.ndarray, scene: Scene, lag_ms: float) -> np.ndarray:
    """Return (C, T): an electrode sees the sources by its distance, and a little later; the second reaches further."""
    out = np.zeros((len(_scalp.CHANNELS), sources.shape[1]), np.float32)
    wider, sided = _SECOND[scene.kind]
    reaches = ((scene.spread, scene.laterality), (scene.spread * wider, scene.laterality * sided))
    for source, (spread, laterality) in zip(sources, reaches, strict=True):
        field = _scalp.gains(scene.focus, spread, laterality)
        late = _scalp.delays(scene.focus, lag_ms, laterality)
        for row in range(len(out)):
            out[row] += field[row] * np.roll(source, late[row])
    return out


def _artefacts(rng: np.random.Generator, n: int, labelled_s: tuple[float, float], traps: frozenset[str]) -> np.ndarray:
    minutes = n / SFREQ / 60
    out = background.drift(rng, n) + artefacts.mains(rng, n)
    if rng.random() < 0.35:
        out += artefacts.blinks(rng, n, rng.uniform(2, 18))
    if rng.random() < 0.6:
        out += artefacts.muscle(rng, n, int(rng.poisson(0.5 * minutes)))
    out += artefacts.pops(rng, n, rng.integers(0, n - SFREQ, rng.poisson(0.2 * minutes)), 50, 600)
    if "outlier" in traps:
        near = [int((t + EDGE_S) * SFREQ) for t in labelled_s]
        starts = rng.integers(near[0] - 20 * SFREQ, near[1] + 20 * SFREQ, 3)
        out += artefacts.pops(rng, n, starts, 1500, 33_000)
    return out
