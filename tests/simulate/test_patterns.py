"""Waveforms have the rates, forms and evolutions that their names promise."""

import numpy as np
import pytest
from scipy.signal import welch

from hms_ray.simulate import patterns
from hms_ray.simulate._scalp import SFREQ

MINUTE = 60 * SFREQ


def _peak_hz(wave: np.ndarray, low_hz: float = 0.3) -> float:
    hz, power = welch(wave, SFREQ, nperseg=min(len(wave), 16 * SFREQ))
    return float(hz[hz >= low_hz][power[hz >= low_hz].argmax()])


def _power(wave: np.ndarray, low_hz: float, high_hz: float) -> float:
    hz, power = welch(wave, SFREQ, nperseg=4 * SFREQ)
    return float(power[(hz >= low_hz) & (hz < high_hz)].sum())


@pytest.mark.parametrize("rate_hz", [0.5, 1.0, 2.5])
def test_periodic_discharges_come_at_their_rate(rate_hz: float) -> None:
    wave = patterns.periodic(np.random.default_rng(0), 5 * MINUTE, rate_hz, sharpness=0.9)[0]
    peaks = np.flatnonzero((wave[1:-1] < wave[:-2]) & (wave[1:-1] < wave[2:]) & (wave[1:-1] < -0.4))
    assert len(peaks) == pytest.approx(300 * rate_hz, rel=0.1)
    intervals = np.diff(peaks) / SFREQ
    assert np.median(intervals) == pytest.approx(1 / rate_hz, rel=0.1)
    assert intervals.std() / intervals.mean() < 0.25  # regular: a Poisson process would have 1


def test_a_sharper_discharge_holds_more_fast_activity() -> None:
    shares = []
    for sharpness in (0.1, 0.5, 0.9):
        wave = patterns.periodic(np.random.default_rng(1), MINUTE, 1.0, sharpness).sum(0)
        shares.append(_power(wave, 6, 40) / _power(wave, 0.5, 40))
    assert shares[0] < shares[1] < shares[2]


@pytest.mark.parametrize("rate_hz", [0.8, 1.7, 3.5])
def test_rhythmic_delta_is_one_narrow_line(rate_hz: float) -> None:
    wave = patterns.rhythmic(np.random.default_rng(2), 3 * MINUTE, rate_hz, sharpness=0.1)[0]
    assert _peak_hz(wave) == pytest.approx(rate_hz, rel=0.12)
    assert _power(wave, 0.6 * rate_hz, 1.5 * rate_hz) > 0.8 * _power(wave, 0.3, 40)


def test_a_seizure_evolves_in_frequency_and_spreads() -> None:
    rng = np.random.default_rng(3)
    n, start, stop = 3 * MINUTE, 40, 140
    focal, wide = patterns.seizure(rng, n, [(start, stop)])
    assert not focal[: start * SFREQ].any()
    assert not wide[stop * SFREQ :].any()
    tenths = np.split(focal[start * SFREQ : stop * SFREQ], 10)
    rates = [_peak_hz(tenth, low_hz=0.8) for tenth in tenths]
    top = int(np.argmax(rates))
    assert 0 < top < 9
    assert rates[top] > 1.5 * rates[0]
    assert rates[top] > 1.5 * rates[-1]
    early, late = (slice((start + a) * SFREQ, (start + b) * SFREQ) for a, b in ((0, 25), (55, 90)))
    assert wide[late].std() / focal[late].std() > 3 * wide[early].std() / focal[early].std()


def test_a_course_climbs_to_its_top_and_slows() -> None:
    course = patterns.Course(first_hz=2, top_hz=8, final_hz=1.5, top_at=0.4)
    rates = course.rates_hz(1001)
    assert (rates[0], rates[400], rates[-1]) == pytest.approx((2, 8, 1.5))
    assert (np.diff(rates[:401]) > 0).all()
    assert (np.diff(rates[401:]) < 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_drawn_courses_rise_first(seed: int) -> None:
    course = patterns.draw_course(np.random.default_rng(seed))
    assert course.top_hz > max(course.first_hz, course.final_hz)
