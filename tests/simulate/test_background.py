"""The background's spectrum is the one that was asked for."""

from dataclasses import replace

import numpy as np
import pytest

from hms_ray.simulate import background, spectrogram
from hms_ray.simulate._scalp import SFREQ, index

PLAIN = background.Background(
    level=2.0, slope=2.5, floor=0.01, slowing=0.0, alpha_uv=0.0, alpha_hz=10.0, asymmetry=0.0, suppression=0.0
)
N = 122 * SFREQ


def _spectrum(style: background.Background) -> np.ndarray:
    """Return the median power at each chain's 100 frequencies, (4, 100)."""
    signal = background.render(np.random.default_rng(0), N, style)
    return np.median(spectrogram.compute(signal), axis=0).reshape(4, 100)


def test_power_falls_with_the_slope() -> None:
    hz = np.arange(3, 103) * SFREQ / 1024
    mean = _spectrum(replace(PLAIN, level=50.0, floor=0.0)).mean(0)
    band = (hz > 8) & (hz < 19)  # above, the cap on slow power bends the line
    slope = np.polyfit(np.log(hz[band]), np.log(mean[band]), 1)[0]
    assert slope == pytest.approx(-2.5, abs=0.5)


def test_alpha_is_a_posterior_line() -> None:
    style = replace(PLAIN, alpha_uv=10.0)
    power = _spectrum(style)[0]
    assert power[48] > 5 * power[75]  # 9.96 against 15.2 Hz
    signal = background.render(np.random.default_rng(0), N, style)
    assert signal[index("O1")].std() > 1.3 * signal[index("Fp1")].std()


def test_asymmetry_raises_the_right_side() -> None:
    left, right, *_ = _spectrum(replace(PLAIN, asymmetry=0.5)).mean(1)
    assert np.log(right / left) == pytest.approx(1.0, abs=0.25)  # twice in power


def test_suppression_leaves_pauses() -> None:
    def quietest(style: background.Background) -> float:
        signal = background.render(np.random.default_rng(0), N, style)
        seconds = signal.reshape(len(signal), -1, SFREQ).std(-1).mean(0)
        return float(np.quantile(seconds, 0.1) / np.quantile(seconds, 0.9))

    assert quietest(replace(PLAIN, suppression=0.5)) < 0.3 < quietest(PLAIN)


def test_drift_is_slow_and_mostly_common() -> None:
    drift = background.drift(np.random.default_rng(0), N)
    pairs = spectrogram.compute(drift)
    assert np.median(pairs) < 0.05
    assert drift.std(1).min() > 2


def test_a_quiet_recording_is_quieter() -> None:
    levels = {quiet: [background.draw(np.random.default_rng(s), quiet).level for s in range(20)] for quiet in (0, 1)}
    np.testing.assert_allclose(np.array(levels[1]) / levels[0], 0.06)
