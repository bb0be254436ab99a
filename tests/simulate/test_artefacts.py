"""Artefacts lie where a technician would look for them."""

import numpy as np
import pytest
from scipy.signal import find_peaks, welch

from hms_ray.simulate import artefacts
from hms_ray.simulate._scalp import CHANNELS, SFREQ, index

N = 60 * SFREQ


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_blinks_are_frontal_and_positive(rng: np.random.Generator) -> None:
    wave = artefacts.blinks(rng, N, per_minute=15)
    assert np.abs(wave).max(1).argsort()[-2:].tolist() in ([0, 11], [11, 0])  # Fp1 and Fp2
    assert wave[index("Fp1")].max() > 40
    assert wave[index("O1")].max() < 1
    assert wave.min() > -0.01


def test_muscle_is_fast(rng: np.random.Generator) -> None:
    wave = artefacts.muscle(rng, N, bursts=6)
    hz, power = welch(wave, SFREQ)
    assert power[:, hz > 15].sum() > 10 * power[:, hz < 8].sum()


def test_mains_are_60_hz(rng: np.random.Generator) -> None:
    hz, power = welch(artefacts.mains(rng, N)[0], SFREQ, nperseg=400)
    assert hz[power.argmax()] == pytest.approx(60, abs=0.5)


def test_the_heart_beats_at_a_human_rate(rng: np.random.Generator) -> None:
    trace = artefacts.heart(rng, N)
    beats, _ = find_peaks(np.abs(trace), height=0.6 * np.abs(trace).max(), distance=60)
    assert 50 <= len(beats) <= 125


def test_a_pop_jumps_at_one_electrode_and_decays(rng: np.random.Generator) -> None:
    wave = artefacts.pops(rng, N, np.array([1000]), 300, 300.1)
    row = np.abs(wave).max(1).argmax()
    assert np.count_nonzero(wave.any(1)) == 1
    assert not wave[row, :1000].any()
    assert abs(wave[row, 1000]) in (pytest.approx(300, abs=0.2), pytest.approx(105, abs=0.2))
    assert abs(wave[row, 1500]) < 0.2 * abs(wave[row, 1000])


def test_dropped_electrodes_are_runs_of_nan_in_a_copy(rng: np.random.Generator) -> None:
    eeg = np.ones((10_000, len(CHANNELS) + 1), np.float32)
    spoilt = artefacts.drop_electrodes(rng, eeg)
    gone = np.isnan(spoilt)
    assert gone.any()
    assert not gone.all(0).any()
    assert (np.abs(np.diff(gone.astype(int), axis=0)).sum(0) <= 6).all()  # three runs at most
    assert (eeg == 1).all()
