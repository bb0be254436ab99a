"""Positions of the 10-20 electrodes, the chains of the double banana, and the spread of a source over them."""

import numpy as np

SFREQ = 200  # Hz
_LEFT_TO_RIGHT = "Fp1 F3 C3 P3 F7 T3 T5 O1 Fz Cz Pz Fp2 F4 C4 P4 F8 T4 T6 O2"  # the files' order
CHANNELS = tuple(_LEFT_TO_RIGHT.split())
CHAINS = {
    "LL": ("Fp1", "F7", "T3", "T5", "O1"),
    "RL": ("Fp2", "F8", "T4", "T6", "O2"),
    "LP": ("Fp1", "F3", "C3", "P3", "O1"),
    "RP": ("Fp2", "F4", "C4", "P4", "O2"),
}  # in the order of the competition's spectrogram files

# x to the right, y to the front, on a disc of radius 1 seen from above
_LEFT = {
    "Fp1": (-0.31, 0.95), "F7": (-0.81, 0.59), "T3": (-1.0, 0.0), "T5": (-0.81, -0.59), "O1": (-0.31, -0.95),
    "F3": (-0.41, 0.51), "C3": (-0.5, 0.0), "P3": (-0.41, -0.51),
}  # fmt: skip
_MIDLINE = {"Fz": (0.0, 0.5), "Cz": (0.0, 0.0), "Pz": (0.0, -0.5)}
_RIGHT = {f"{name[:-1]}{int(name[-1]) + 1}": (-x, y) for name, (x, y) in _LEFT.items()}
POSITIONS = np.array([{**_LEFT, **_MIDLINE, **_RIGHT}[name] for name in CHANNELS])  # (C, 2)


def index(name: str) -> int:
    """Return the row of an electrode in a (C, T) signal."""
    return CHANNELS.index(name)


def chain_pairs(signal: np.ndarray, chain: str) -> np.ndarray:
    """Return the four bipolar pairs of a chain, (C, T) -> (4, T), front to back."""
    rows = signal[[index(name) for name in CHAINS[chain]]]
    return rows[:-1] - rows[1:]


def distances(point: tuple[float, float]) -> np.ndarray:
    """Return each electrode's distance to a point of the disc, (C,)."""
    return np.hypot(*(POSITIONS - np.asarray(point)).T)


def gains(focus: tuple[float, float], spread: float, laterality: float) -> np.ndarray:
    """Return the gain of a source at each electrode, (C,); the largest is 1.

    laterality: 1 only the focus; 0 adds its mirror image at full strength, as in a generalised pattern.
    """
    mirrored = (-focus[0], focus[1])
    field = _bump(focus, spread) + (1 - laterality) * _bump(mirrored, spread)
    return (field / field.max()).astype(np.float32)


def delays(focus: tuple[float, float], lag_ms: float, laterality: float) -> np.ndarray:
    """Return the delay of each electrode in whole samples, (C,); `lag_ms` per radius of the head."""
    direct, mirrored = distances(focus), distances((-focus[0], focus[1]))
    distance = direct * laterality + np.minimum(direct, mirrored) * (1 - laterality)
    return np.rint(distance * lag_ms * SFREQ / 1000).astype(int)


def mix(matrix: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """Return matrix @ sources, (C, S) and (S, T) -> (C, T), term by term.

    The linear algebra library rounds differently with another number of threads; a seed has to give the same bytes.
    """
    out = np.zeros((len(matrix), sources.shape[1]), np.float32)
    for row, column in zip(*np.nonzero(matrix), strict=True):
        out[row] += matrix[row, column] * sources[column]
    return out


def volume_conduction(length: float = 0.35) -> np.ndarray:
    """Return a matrix (C, C) from independent sources to signals of unit variance; near electrodes are correlated."""
    squared = ((POSITIONS[:, None] - POSITIONS[None]) ** 2).sum(-1)
    kernel = np.exp(-squared / (2 * length**2))
    kernel[kernel < 0.02] = 0  # negligible at that distance
    return (kernel / np.sqrt((kernel**2).sum(1, keepdims=True))).astype(np.float32)


def _bump(point: tuple[float, float], spread: float) -> np.ndarray:
    return np.exp(-(distances(point) ** 2) / (2 * spread**2))
