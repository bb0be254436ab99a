"""The EEG's features beside librosa's and SciPy's: how fast they are, and how much their numbers differ."""

import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from bench import _notebook
from bench._place import Place
from bench._words import differs, per_second, ratio
from hms_ray.core.recordings import EEG
from hms_ray.features import _filterbank, _montage, eeg_cwt, eeg_spectrogram, raw_eeg

COMPARED = 4  # windows whose numbers are compared with SciPy's
SCALOGRAM = eeg_cwt.Params(arrange="channels")  # of the first of them
NO_LIBROSA = (
    "  librosa is not installed and its lines are left out: pip install --no-deps --target DIR librosa audioread "
    "decorator lazy_loader llvmlite msgpack numba platformdirs pooch soundfile soxr, then set PYTHONPATH=DIR"
)


def mel(place: Place) -> Iterator[str]:
    """Compare one feature's speed with librosa's, and all EEG features' numbers with librosa's and SciPy's."""
    dataset = place.dataset()
    units = np.resize(np.arange(len(dataset.units)), place.options.batch)
    eeg = torch.from_numpy(np.stack([dataset.window("eeg", i) for i in units]))
    if _has_librosa():
        yield from _against_librosa(place, eeg)
    else:
        yield NO_LIBROSA
    few = eeg[:COMPARED]
    yield f"  stft bank from scipy's ShortTimeFFT, of the density: {differs(_stft_difference(few))}"
    yield f"  eeg_cwt from convolution in time, of the amplitude: {differs(_cwt_difference(few[:1]))}"
    yield f"  raw_eeg from scipy's sosfiltfilt, of the channel's deviation: {differs(_filter_difference(few))}"


def _has_librosa() -> bool:
    return importlib.util.find_spec("librosa") is not None


def _against_librosa(place: Place, eeg: torch.Tensor) -> Iterator[str]:
    params, filters = eeg_spectrogram.Params(), torch.from_numpy(_notebook.librosa_filters())
    waves = _montage.waves(eeg, "banana_16", params.clip_uv)  # the notebooks keep a pair's level
    methods = {
        "ours": lambda: eeg_spectrogram.compute({"eeg": eeg}, params)[:, 0],
        "librosa": lambda: np.stack([_notebook.librosa_image(window) for window in eeg.numpy()]),
        "torch.stft": lambda: _notebook.torch_stft_images(_montage.waves(eeg, "banana_16", params.clip_uv), filters),
    }
    rates = place.rates({name: partial(_count, method) for name, method in methods.items()})
    images = {name: methods[name]().numpy() for name in ("ours", "torch.stft")}
    images["librosa"] = np.stack([_notebook.librosa_pairs_image(pairs) for pairs in waves.numpy()])
    yield f"  {len(eeg)} windows a batch: {per_second(rates, 'windows')}"
    yield ratio("librosa's loop / eeg_spectrogram", rates["ours"] / rates["librosa"], "at least 12")
    yield ratio("batched torch.stft / eeg_spectrogram", rates["ours"] / rates["torch.stft"])
    for name in ("ours", "torch.stft"):
        difference = np.abs(images[name] - images["librosa"])
        goal = " (goal: 99.9 % below 1e-3)" if name == "ours" else ""
        yield f"  {name} from librosa, in the image: {differs(difference)}{goal}"
    yield f"  the bank from librosa's, of its largest weight: at most {_bank_difference(filters.numpy()):.1e}"


def _count(method: Callable[[], Any]) -> int:
    return len(method())


def _bank_difference(filters: np.ndarray) -> float:
    """Return the largest difference of the bank's weights from filters (rows, bins from 0 Hz on)."""
    p = eeg_spectrogram.Params()
    bank = _filterbank.Bank(p.bank, EEG.rate_hz, p.n_fft, p.window, p.n_bins, p.low_hz, p.high_hz)
    ours = np.zeros_like(filters)
    ours[:, : len(bank.bins_hz)] = bank.weights
    return float(np.abs(ours - filters).max() / filters.max())


def _stft_difference(eeg: torch.Tensor) -> np.ndarray:
    p = eeg_spectrogram.Params(bank="stft", montage="banana_16", amplitude="log1p", arrange="channels")
    ours = np.expm1(4 * eeg_spectrogram.compute({"eeg": eeg}, p).double().numpy())
    theirs = _notebook.scipy_density(_pairs(eeg, "banana_16"), EEG.steps // p.frames, p.frames)
    return _relative(ours, theirs)


def _cwt_difference(eeg: torch.Tensor) -> np.ndarray:
    ours = np.expm1(2 * eeg_cwt.compute({"eeg": eeg}, SCALOGRAM).double().numpy())
    theirs = np.stack([_notebook.morlet_amplitude(waves, SCALOGRAM) for waves in _pairs(eeg, SCALOGRAM.montage)])
    return _relative(ours, theirs)


def _filter_difference(eeg: torch.Tensor) -> np.ndarray:
    p = raw_eeg.Params()
    ours = p.scale_uv * raw_eeg.compute({"eeg": eeg}, p).double().numpy()
    theirs = _notebook.sosfiltfilt(_pairs(eeg, p.montage), p.low_hz, p.high_hz, raw_eeg.PAD)
    return np.abs(ours - theirs) / (theirs.std(-1, keepdims=True) + 1e-6)


def _pairs(eeg: torch.Tensor, montage: str) -> np.ndarray:
    """Return the pairs' waves (B, P, T) in float64, without their level and clipped, gaps filled."""
    return _montage.waves(eeg, montage, raw_eeg.Params().clip_uv).double().numpy()


def _relative(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Return the difference of positive values relative to theirs; a millionth of the unit counts as 0."""
    return np.abs(ours - theirs) / (theirs + 1e-6)
