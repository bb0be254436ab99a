"""Ten-minute spectrograms on the competition's grid: four chains, 100 frequencies, a row every two seconds."""

from functools import cache

import numpy as np
from scipy import fft
from scipy.signal.windows import dpss

from hms_ray.simulate._scalp import CHAINS, SFREQ, chain_pairs

ROW_S = 2
WINDOW = 4 * SFREQ  # samples; with NFFT, BINS and the tapers this matches the real files up to their rounding
NFFT = 1024
BINS = slice(3, 103)  # .59 to 19.92 Hz
HALF_BANDWIDTH, TAPERS = 2, 3
EDGE_S = 1  # the windows of the first and the last row extend this far beyond the file's ends


def column_names() -> list[str]:
    """Return LL_0.59 ... RP_19.92 in the files' order; no trailing zeros, so LL_4.1."""
    hz = fft.rfftfreq(NFFT, 1 / SFREQ)[BINS]
    labels = np.floor(hz * 100 + 0.5) / 100  # halves go up, as in the real files: 3.125 Hz is LL_3.13
    return [f"{chain}_{f:g}" for chain in CHAINS for f in labels.tolist()]


def compute(signal: np.ndarray) -> np.ndarray:
    """Return the spectrogram (rows, 4 x 100) in uV^2/Hz of a (C, T) signal that has EDGE_S more at both ends.

    Multitaper, two-sided density. The mean is taken over the spectrograms of a chain's four pairs, not over their
    waves, whose sum is only the first electrode less the last. Rounded to .01, so that weak power is exactly 0.
    """
    rows = (signal.shape[1] // SFREQ - 2 * EDGE_S) // ROW_S
    panels = []
    for chain in CHAINS:
        pairs = chain_pairs(signal, chain)  # (4, T)
        frames = np.lib.stride_tricks.sliding_window_view(pairs, WINDOW, axis=1)[:, :: ROW_S * SFREQ][:, :rows]
        frames = frames - frames.mean(-1, keepdims=True)  # (4, rows, WINDOW)
        power = np.zeros((rows, BINS.stop - BINS.start), np.float32)
        for taper in _tapers():
            bins = fft.rfft(frames * taper, NFFT)[..., BINS]
            power += (bins.real**2 + bins.imag**2).sum(0)
        panels.append(power / (SFREQ * TAPERS * len(pairs)))
    return np.round(np.concatenate(panels, axis=1), 2)


@cache
def _tapers() -> np.ndarray:
    """Return Slepian tapers of unit energy, (TAPERS, WINDOW)."""
    return dpss(WINDOW, HALF_BANDWIDTH, TAPERS).astype(np.float32)
