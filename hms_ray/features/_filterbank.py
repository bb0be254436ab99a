"""Power of windowed frames through a bank of filters, as librosa and scipy have it, without their full transform.

A frame of W samples under a Hann taper has a spectrum of power that is smooth in frequency: it is the transform of an
autocorrelation that ends at lag W. A bank over the bins of a much longer transform can therefore be read off far
fewer bins, near its band, by weights that are fitted here; where the fit is not good, the bins of the transform serve.
"""

from dataclasses import dataclass
from functools import lru_cache, partial
from threading import Lock
from typing import Literal

import numpy as np
import torch

SPACING = 0.7  # of the fitted bins, relative to the coarsest that could tell two spectra of power apart
MARGIN = 9  # fitted bins beyond the band on either side
TOLERANCE = 1e-3  # relative error of a filter's response to a sine of any frequency: .004 dB
NOISE = 1e-5  # of a bin's power, what float32 may get wrong: a quiet filter must not lean on loud bins that cancel
LARGEST = 2**25  # values of the problem that is solved for the fit: 256 MB, a few seconds
FEWEST_ROWS = 8  # that a feature may have
FITTING = Lock()  # one thread fits, the others wait for what it finds
FLOOR = 1e-12  # of its largest response, below which an error does not count


@dataclass(frozen=True)
class Bank:
    """Filters over the bins of a transform: frame -> n_fft samples -> power at `bins_hz` -> weights @ power.

    rate_hz: samples a second
    n_fft: samples of the transform, of which the middle `window` carry a periodic Hann taper
    kind: "mel": triangles of equal width and equal area (librosa's defaults); "log": each as many times as high and as
        wide as the one before, of equal area; "stft": the bins themselves
    n_rows: filters of a "mel" or "log" bank
    """

    kind: Literal["mel", "log", "stft"]
    rate_hz: float
    n_fft: int
    window: int
    n_rows: int
    low_hz: float
    high_hz: float

    @property
    def bins_hz(self) -> np.ndarray:
        """Return the frequencies of the transform's bins inside the band."""
        bins = np.arange(self.n_fft // 2 + 1) * self.rate_hz / self.n_fft
        return bins[(bins >= self.low_hz) & (bins <= self.high_hz)]

    @property
    def taper(self) -> np.ndarray:
        """Return the window (W,)."""
        return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.window) / self.window)

    @property
    def weights(self) -> np.ndarray:
        """Return the filters (rows, bins). Slaney's mel scale is linear below 1 kHz, and all of an EEG lies there."""
        bins = self.bins_hz
        if self.kind == "stft":
            return np.eye(len(bins))
        spaced = np.linspace if self.kind == "mel" else np.geomspace
        edges = spaced(self.low_hz, self.high_hz, self.n_rows + 2)[:, None]
        first, middle, last = edges[:-2], edges[1:-1], edges[2:]
        rising, falling = (bins - first) / (middle - first), (last - bins) / (last - middle)
        return np.maximum(0, np.minimum(rising, falling)) * 2 / (last - first)


def empty_rows(bank: Bank) -> list[str]:
    """Say if rows of the bank see no bin: librosa only warns, and they would be black."""
    weights, n_fft = bank.weights, bank.n_fft
    if not len(weights):
        return [f"no bin of n_fft={n_fft} lies in {bank.low_hz:g} to {bank.high_hz:g} Hz; widen the band"]
    empty, most = int((~weights.any(1)).sum()), int(2 * (bank.high_hz - bank.low_hz) * n_fft / bank.rate_hz - 1)
    right = f"n_bins of at most {most}" if most >= FEWEST_ROWS else "a wider band"
    if bank.kind != "mel":  # what fits is known of rows of equal width only
        right = "fewer n_bins, or a wider band"
    fault = f"{empty} of the n_bins={bank.n_rows} rows are empty; right would be {right}, or more n_fft"
    return [fault] if empty else []


def constants(bank: Bank, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the basis (W, 2 J) and the weights (rows, J): weights @ (re^2 + im^2) of frame @ basis."""
    with FITTING:
        return _constants(bank, device)


@lru_cache(maxsize=32)
def _constants(bank: Bank, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    bins, weights = _fitted(bank) or (bank.bins_hz, bank.weights)
    angle = 2 * np.pi / bank.rate_hz * np.outer(np.arange(bank.window) - bank.window / 2, bins)
    basis = bank.taper[:, None] * np.concatenate([np.cos(angle), np.sin(angle)], 1)
    tensor = partial(torch.tensor, dtype=torch.float32, device=device)
    return tensor(basis), tensor(weights)


def _fitted(bank: Bank) -> tuple[np.ndarray, np.ndarray] | None:
    """Return fewer bins (J,) and their weights (rows, J), or None where they would be no fewer or not good enough."""
    space = SPACING * bank.rate_hz / (2 * bank.window)
    first = max(0, int(bank.low_hz / space) - MARGIN)  # power at -f is that at f: no margin below 0
    bins = space * np.arange(first, int(bank.high_hz / space) + MARGIN + 2)
    if 4 * bank.window > bank.n_fft or len(bins) >= len(bank.bins_hz):
        return None
    sines = np.linspace(0, bank.rate_hz / 2, 3 * bank.window + 1)
    if len(bank.weights) * (len(sines) + len(bins)) * len(bins) > LARGEST:
        return None
    wanted, given = _response(bank, sines, bank.bins_hz) @ bank.weights.T, _response(bank, sines, bins)
    near = np.lib.stride_tricks.sliding_window_view(np.pad(wanted, ((8, 8), (0, 0)), mode="reflect"), 17, axis=0)
    scale = (near.max(-1) + FLOOR * wanted.max(0)).T  # (rows, sines): errors are relative, but not at zeros
    noise = NOISE * given.max() * np.stack([np.diag(1 / np.interp(bins, sines, row)) for row in scale])
    design = torch.from_numpy(np.concatenate([given / scale[..., None], noise], 1))  # (rows, sines + J, J)
    target = torch.from_numpy(np.pad(wanted.T / scale, ((0, 0), (0, len(bins)))))[..., None]
    weights = torch.linalg.lstsq(design, target, driver="gels").solution  # (rows, J, 1)
    good = (design @ weights - target).abs().max() < TOLERANCE
    return (bins, weights[..., 0].numpy()) if good else None


def _response(bank: Bank, sines: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """Return the mean power (sines, bins) that a bin sees of a sine, from the taper's autocorrelation."""
    lags = np.arange(bank.window)
    overlap = np.correlate(bank.taper, bank.taper, "full")[bank.window - 1 :] * np.where(lags, 2, 1)
    cosines = [np.cos(2 * np.pi / bank.rate_hz * np.outer(hz, lags)) for hz in (sines, bins)]
    return cosines[0] * overlap @ cosines[1].T
