"""What the competition's notebooks do window by window, and SciPy's own transforms to compare with."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch
from scipy import signal
from torch.utils.data import Dataset

from hms_ray.core.recordings import EEG, SPECTROGRAM
from hms_ray.features import eeg_cwt

ELECTRODES = list(EEG.channels[:-1])
CHAINS = (
    ("Fp1", "F7", "T3", "T5", "O1"),
    ("Fp1", "F3", "C3", "P3", "O1"),
    ("Fp2", "F8", "T4", "T6", "O2"),
    ("Fp2", "F4", "C4", "P4", "O2"),
)
ROWS, COLUMNS, N_FFT, WINDOW, HIGH_HZ = 128, 256, 1024, 128, 20
MEL = {"sr": 200, "n_fft": N_FFT, "n_mels": ROWS, "fmin": 0, "fmax": HIGH_HZ}


def librosa_image(eeg: np.ndarray) -> np.ndarray:
    """Return the four panels below each other (512, 256) of a window (20, 10000), pair by pair.

    Raises:
        ImportError: librosa is not installed.
    """
    channel = dict(zip(EEG.channels, eeg, strict=True))
    pairs = [filled(channel[first] - channel[second]) for chain in CHAINS for first, second in pairwise(chain)]
    return librosa_pairs_image(np.stack(pairs))


def librosa_pairs_image(pairs: np.ndarray) -> np.ndarray:
    """Return the image (512, 256) of the waves of all pairs (16, 10000), chain by chain; errors as above."""
    import librosa

    image = np.zeros((len(CHAINS), ROWS, COLUMNS), dtype=np.float32)
    for panel, chain in zip(image, pairs.reshape(len(CHAINS), -1, pairs.shape[-1]), strict=True):
        for x in chain:
            mel = librosa.feature.melspectrogram(y=x, hop_length=len(x) // COLUMNS, win_length=WINDOW, **MEL)
            db = librosa.power_to_db(mel, ref=np.max)[:, :COLUMNS]
            panel += (db + 40) / 40
        panel /= len(chain)
    return image.reshape(-1, COLUMNS)


def librosa_filters() -> np.ndarray:
    """Return librosa's filters (128, 513).

    Raises:
        ImportError: librosa is not installed.
    """
    import librosa

    return librosa.filters.mel(**MEL)


def torch_stft_images(waves: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
    """Return the images (B, 512, 256) of pairs (B, 16, 10000) by whole transforms, two windows at a time."""
    return torch.cat([_torch_stft_images(few, filters) for few in waves.split(2)])


def _torch_stft_images(waves: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
    rows, hop, taper = waves.flatten(0, 1), waves.shape[-1] // COLUMNS, torch.hann_window(WINDOW)
    stft = torch.stft(rows, N_FFT, hop, WINDOW, taper, pad_mode="constant", return_complex=True)
    mel = filters @ torch.view_as_real(stft).square_().sum(-1)  # (B * 16, 128, 257)
    largest = mel.amax((-2, -1), keepdim=True)
    db = 10 * (mel.clamp(min=1e-10).log10_() - largest.clamp(min=1e-10).log10_()).clamp_(min=-8)
    image = (db[..., :COLUMNS] + 40) / 40
    return image.unflatten(0, (-1, 4, 4)).mean(2).flatten(1, 2)


def filled(wave: np.ndarray) -> np.ndarray:
    """Return the wave with its mean where it is NaN; zeros where it holds nothing."""
    mean = np.nanmean(wave) if np.isfinite(wave).any() else 0.0
    return np.where(np.isfinite(wave), wave, mean).astype(wave.dtype)


def read_eeg(path: Path, start_s: float) -> np.ndarray:
    """Return a window (10000, 20) by reading the whole file with pandas."""
    first = int(start_s * EEG.rate_hz)
    return pd.read_parquet(path).iloc[first : first + EEG.steps].to_numpy()


def read_eeg_columns(path: Path, start_s: float) -> np.ndarray:
    """Return a window (19, 10000) by reading the columns of the scalp with pyarrow."""
    table = pq.read_table(path, columns=ELECTRODES).slice(int(start_s * EEG.rate_hz), EEG.steps)
    return np.stack([column.to_numpy() for column in table.columns])


def read_spectrogram(path: Path, start_s: float) -> np.ndarray:
    """Return a window (300, 400) by reading the whole file with pandas."""
    first = int(start_s * SPECTROGRAM.rate_hz)
    return pd.read_parquet(path).iloc[first : first + SPECTROGRAM.steps, 1:].to_numpy()


class Images(Dataset):
    """The usual dataset: spectrograms in a dictionary, an image made and augmented of each item with NumPy.

    spectrograms: (rows, 400) by name; panels in the order of the regions LL, LP, RL, RP
    names, first: (N,) each item's spectrogram and the first row of its window; targets: (N, K)
    augmented: with masks and mirrored sides, as for training
    """

    def __init__(
        self,
        spectrograms: Mapping[str, np.ndarray],
        names: np.ndarray,
        first: np.ndarray,
        targets: np.ndarray,
        augmented: bool = True,
    ) -> None:
        self.spectrograms, self.names, self.first, self.targets = spectrograms, names, first, targets
        self.augmented = augmented

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        window = self.spectrograms[self.names[i]][self.first[i] : self.first[i] + SPECTROGRAM.steps]
        panels = [window[:, 100 * p : 100 * p + 100].T for p in range(4)]
        image = np.concatenate([np.log(np.clip(panel, np.exp(-4), np.exp(8))) for panel in panels])
        image = np.nan_to_num((image - np.nanmean(image)) / (np.nanstd(image) + 1e-6)).astype(np.float32)
        if self.augmented:
            image = _masked(image) if np.random.rand() < 0.5 else image
            image = np.concatenate([image[200:], image[:200]]) if np.random.rand() < 0.5 else image
        return torch.from_numpy(image[None]), torch.from_numpy(self.targets[i].astype(np.float32))


def _masked(image: np.ndarray) -> np.ndarray:
    """Blank one to three stripes of each axis, each at most a sixteenth of it."""
    image = image.copy()
    for axis, length in enumerate(image.shape):
        for _ in range(np.random.randint(1, 4)):
            width = np.random.randint(1, length // 16 + 1)
            start = np.random.randint(0, length - width + 1)
            stripe = slice(start, start + width)
            image[(stripe, slice(None)) if axis == 0 else (slice(None), stripe)] = 0
    return image


def scipy_density(waves: np.ndarray, hop: int, columns: int) -> np.ndarray:
    """Return the density (..., bins up to 20 Hz, columns) of waves (..., T) in their unit squared per Hz."""
    taper = signal.windows.hann(WINDOW, sym=False)
    stft = signal.ShortTimeFFT(taper, hop, EEG.rate_hz, fft_mode="onesided", mfft=N_FFT, scale_to="psd")
    rows = [stft.spectrogram(wave, p0=0, p1=columns) for wave in waves.reshape(-1, waves.shape[-1])]
    density = 2 * np.stack(rows)[:, stft.f <= HIGH_HZ]
    return density.reshape(*waves.shape[:-1], *density.shape[1:])


def morlet_amplitude(waves: np.ndarray, params: eeg_cwt.Params) -> np.ndarray:
    """Return the amplitude (P, scales, columns) of waves (P, T) by convolving with each wavelet in time."""
    rows = [_convolved(waves, hz, params) for hz in np.geomspace(params.low_hz, params.high_hz, params.scales)]
    return np.stack(rows, 1)


def _convolved(waves: np.ndarray, hz: float, params: eeg_cwt.Params) -> np.ndarray:
    """Return the amplitude (P, columns) at one frequency: five deviations of the wavelet, the ends reflected."""
    deviation_s = params.cycles / (2 * np.pi * hz)
    reach = int(np.ceil(5 * deviation_s * EEG.rate_hz))
    seconds = np.arange(-reach, reach + 1) / EEG.rate_hz
    envelope = np.exp(-((seconds / deviation_s) ** 2) / 2)
    wavelet = 2 * envelope / envelope.sum() * np.exp(2j * np.pi * hz * seconds)
    padded = np.pad(waves, ((0, 0), (reach, reach)), mode="reflect")
    pieces = np.lib.stride_tricks.sliding_window_view(padded, len(wavelet), axis=-1)[:, :: params.stride]
    return np.abs(np.stack([piece @ wavelet.conj() for piece in pieces]))


def sosfiltfilt(waves: np.ndarray, low_hz: float, high_hz: float, pad: int) -> np.ndarray:
    """Return waves (..., T) through a Butterworth filter of order 2, forwards and backwards."""
    sos = signal.butter(2, [low_hz, high_hz], "bandpass", fs=EEG.rate_hz, output="sos")
    return signal.sosfiltfilt(sos, waves, padlen=pad)
