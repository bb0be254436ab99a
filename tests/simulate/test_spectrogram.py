"""The spectrogram against known signals, a reference, and the real files where they are at hand."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.signal import periodogram
from scipy.signal.windows import dpss

from hms_ray.simulate import spectrogram
from hms_ray.simulate._scalp import CHAINS, CHANNELS, SFREQ, index


def _panel(power: np.ndarray, chain: str) -> np.ndarray:
    at = list(CHAINS).index(chain) * 100
    return power[:, at : at + 100]


def _silence(seconds: int) -> np.ndarray:
    return np.zeros((len(CHANNELS), (seconds + 2) * SFREQ), np.float32)


def test_columns_are_the_competitions() -> None:
    names = spectrogram.column_names()
    assert len(set(names)) == 400
    assert names[:3] == ["LL_0.59", "LL_0.78", "LL_0.98"]
    assert names[-1] == "RP_19.92"
    assert "LL_4.1" in names
    assert [name[:2] for name in names[::100]] == ["LL", "RL", "LP", "RP"]


def test_white_noise_has_its_two_sided_density() -> None:
    noise = np.random.default_rng(0).standard_normal((19, 202 * SFREQ)).astype(np.float32) * 10
    power = spectrogram.compute(noise)
    assert power.shape == (100, 400)
    assert power.mean() == pytest.approx(2 * 10**2 / SFREQ, rel=0.03)  # a pair has twice an electrode's variance


def test_a_row_equals_the_mean_of_reference_periodograms() -> None:
    noise = np.random.default_rng(1).standard_normal((19, 12 * SFREQ)).astype(np.float32) * 20
    rows = noise[[index(name) for name in CHAINS["RP"]]]
    pairs = (rows[:-1] - rows[1:])[:, 4 * SFREQ : 8 * SFREQ]  # row 2 is centred on 5 s of the file, 6 s of the signal
    reference = [
        periodogram(pair, SFREQ, taper, 1024, "constant")[1][3:103] / 2 for pair in pairs for taper in dpss(800, 2, 3)
    ]
    row = _panel(spectrogram.compute(noise), "RP")[2]
    np.testing.assert_allclose(row, np.mean(reference, axis=0), rtol=1e-3, atol=0.006)


def test_spectrograms_are_averaged_and_not_waves() -> None:
    signal = _silence(20)
    signal[index("F7")] = 50 * np.sin(2 * np.pi * 10 * np.arange(signal.shape[1]) / SFREQ)
    power = spectrogram.compute(signal)
    hz = np.arange(3, 103) * SFREQ / 1024
    peak = _panel(power, "LL").mean(0)
    assert hz[peak.argmax()] == pytest.approx(10, abs=0.6)
    # Fp1-F7 and F7-T3 hold the wave with opposite signs: as waves they cancel, as spectrograms two of four remain
    assert 2 * peak.sum() * SFREQ / 1024 == pytest.approx(50**2 / 2 * 2 / 4, rel=0.02)
    assert not _panel(power, "RL").any()


def test_a_row_is_centred_on_its_time() -> None:
    signal = _silence(40)
    signal[index("C4"), (21 + spectrogram.EDGE_S) * SFREQ] = 1000
    energy = _panel(spectrogram.compute(signal), "RP").sum(1)
    assert energy.argmax() == 10  # time 21
    assert energy[10] > 5 * max(energy[9], energy[11])
    assert not np.delete(energy, [9, 10, 11]).any()


def test_the_real_spectrogram_follows_from_the_real_eeg(repository: Path) -> None:
    root = Path(os.environ.get("HMS_RAY_REAL", repository.parent / "shared" / "real")) / "hms_sample"
    if not root.is_dir():
        pytest.skip(f"no real sample at {root}; HMS_RAY_REAL may name its folder")
    for row in pd.read_csv(root / "train.csv").drop_duplicates("eeg_id").itertuples():
        eeg = pd.read_parquet(root / f"train_eegs/{row.eeg_id}.parquet")[list(CHANNELS)].to_numpy().T
        file = pd.read_parquet(root / f"train_spectrograms/{row.spectrogram_id}.parquet")
        assert file.columns[1:].tolist() == spectrogram.column_names()
        ours = spectrogram.compute(eeg)
        first = int(row.spectrogram_label_offset_seconds - row.eeg_label_offset_seconds + 276) // 2
        theirs = file.iloc[first : first + len(ours), 1:].to_numpy()
        assert np.corrcoef(np.log(ours + 0.01).ravel(), np.log(theirs + 0.01).ravel())[0, 1] > 0.97
        assert np.median(np.log((ours + 0.01) / (theirs + 0.01))) == pytest.approx(0, abs=0.05)
