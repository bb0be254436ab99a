"""Heart sounds lie where a cardiologist would listen for them: in the beat, in frequency, and on the chest."""

import numpy as np
import pytest
from scipy.signal import butter, sosfilt

from hms_ray.simulate import heart_sound
from hms_ray.simulate.heart_sound import DISEASES, POSITIONS, RATE_HZ, Heart

STEPS = 10 * RATE_HZ
# Where in the beat each murmur is (0 at S1, 1 at S2), its band, and where it is loudest.
HOMES = {
    "AS": ((0.3, 0.8), (100, 400), "Aor"),
    "AR": ((1.08, 1.4), (200, 600), "Aor"),
    "MR": ((0.3, 0.8), (150, 500), "Mit"),
    "MS": ((1.4, 1.7), (40, 120), "Mit"),
}


def _heart(**grades: float) -> Heart:
    """A heart of middling numbers with murmurs of these grades."""
    plain = {"rate_bpm": 70.0, "systole_s": 0.3, "s1_hz": 60.0, "s2_hz": 85.0, "split_s": 0.02, "snap_s": 0.07}
    return Heart(**plain, breath_hz=0.25, loudness=1.0, grades=grades)


def _listen(heart: Heart, position: str, posture: str = "sup") -> tuple[np.ndarray, np.ndarray]:
    """Return the sound (T,), and where in the beat each sample is (T,)."""
    knots_s = heart_sound.beats(np.random.default_rng(1), heart, STEPS / RATE_HZ)
    sound = heart_sound.render(np.random.default_rng(0), heart, knots_s, posture, position, STEPS)
    return sound, np.interp(np.arange(STEPS) / RATE_HZ, knots_s, np.arange(len(knots_s))) % 2


def _power(
    heart: Heart, position: str, span: tuple[float, float], band_hz: tuple[float, float], posture: str = "sup"
) -> float:
    """Return the mean power in a band, over one span of all beats."""
    sound, cycle = _listen(heart, position, posture)
    wave = sosfilt(butter(4, band_hz, "bandpass", fs=RATE_HZ, output="sos"), sound)
    return float(np.mean(wave[(cycle >= span[0]) & (cycle < span[1])] ** 2))


@pytest.mark.parametrize("name", DISEASES)
def test_a_murmur_is_in_its_place_of_the_beat_and_of_the_chest(name: str) -> None:
    span, band_hz, best = HOMES[name]
    other_span = (1.4, 1.8) if span[1] < 1 else (0.4, 0.8)
    normal, ill = _heart(), _heart(**{name: 4.0})
    assert _power(ill, best, span, band_hz) > 4 * _power(normal, best, span, band_hz)
    assert _power(ill, best, other_span, band_hz) < 1.2 * _power(normal, best, other_span, band_hz)
    levels = {position: _power(ill, position, span, band_hz) for position in POSITIONS}
    assert max(levels, key=levels.get) == best


@pytest.mark.parametrize("name", DISEASES)
def test_a_murmur_holds_its_band_and_grows_with_its_grade(name: str) -> None:
    span, (low_hz, high_hz), best = HOMES[name]
    ill = _heart(**{name: 5.0})
    assert _power(ill, best, span, (low_hz, high_hz)) > 10 * _power(ill, best, span, (1.6 * high_hz, 1900))
    levels = [_power(_heart(**{name: grade}), best, span, (low_hz, high_hz)) for grade in (2.0, 3.0, 4.0, 5.0)]
    assert (np.diff(levels) > 0).all()


def test_murmurs_have_their_shapes() -> None:
    def course(name: str, *spans: tuple[float, float]) -> list[float]:
        return [_power(_heart(**{name: 5.0}), HOMES[name][2], span, HOMES[name][1]) for span in spans]

    early, middle, late = course("AS", (0.18, 0.3), (0.45, 0.6), (0.8, 0.92))
    assert middle > 3 * max(early, late)  # crescendo and decrescendo
    early, middle, late = course("AR", (1.08, 1.2), (1.25, 1.4), (1.5, 1.65))
    assert early > 2 * middle > 4 * late  # decrescendo
    early, middle, late = course("MR", (0.2, 0.4), (0.4, 0.6), (0.6, 0.85))
    assert max(early, middle, late) < 1.5 * min(early, middle, late)  # a plateau


def test_posture_matters() -> None:
    for name, louder, softer in (("AR", "sit", "sup"), ("MS", "sup", "sit")):
        span, band_hz, best = HOMES[name]
        ill = _heart(**{name: 4.0})
        assert _power(ill, best, span, band_hz, louder) > 1.5 * _power(ill, best, span, band_hz, softer)


def test_the_sounds_are_low_and_their_balance_tells_apex_from_base() -> None:
    ratios = {}
    for position in ("Mit", "Aor"):
        s1, s2 = (_power(_heart(), position, span, (40, 120)) for span in ((0, 0.25), (1, 1.15)))
        ratios[position] = s1 / s2
        assert min(s1, s2) > 20 * _power(_heart(), position, (1.6, 1.9), (40, 120))
        assert s1 > 20 * _power(_heart(), position, (0, 0.25), (240, 1000))
    assert ratios["Mit"] > 2 * ratios["Aor"]


def test_a_narrow_mitral_valve_snaps_open_and_shuts_loudly() -> None:
    normal, ill = _heart(), _heart(MS=4.0)
    assert _power(ill, "Mit", (0, 0.25), (40, 120)) > 1.5 * _power(normal, "Mit", (0, 0.25), (40, 120))
    snap = (1 + 0.068 / 0.557, 1 + 0.09 / 0.557)  # before the rumble begins
    assert _power(ill, "Mit", snap, (60, 180)) > 1.5 * _power(normal, "Mit", snap, (60, 180))


@pytest.mark.parametrize("seed", range(5))
def test_beats_cover_the_recording_at_the_hearts_rate(seed: int) -> None:
    heart = heart_sound.draw(np.random.default_rng(seed), ())
    knots_s = heart_sound.beats(np.random.default_rng(seed), heart, 20.0)
    intervals = np.diff(knots_s[::2])
    assert knots_s[0] < 0
    assert knots_s[-1] > 20
    assert (np.diff(knots_s) > 0.12).all()  # S1 and S2 by turns
    assert 55 <= heart.rate_bpm <= 110
    assert 60 / intervals.mean() == pytest.approx(heart.rate_bpm, rel=0.04)
    assert 0.01 < intervals.std() / intervals.mean() < 0.1


def test_drawn_hearts_have_their_diseases_at_various_grades() -> None:
    hearts = [heart_sound.draw(np.random.default_rng(seed), ("AS", "MR")) for seed in range(40)]
    assert {frozenset(heart.grades) - {"innocent"} for heart in hearts} == {frozenset(("AS", "MR"))}
    assert 5 < sum("innocent" in heart.grades for heart in hearts) < 25
    grades = [heart.grades["AS"] for heart in hearts]
    assert 1 <= min(grades) < 2
    assert 4 < max(grades) <= 5


def test_recordings_are_16_bit_and_differ_in_gain() -> None:
    def record(seed: int) -> np.ndarray:
        return heart_sound.record(np.random.default_rng(seed), _heart(), "sup", "Mit", 5.0)

    sounds = [record(seed) for seed in range(8)]
    assert {(sound.dtype, sound.shape) for sound in sounds} == {(np.dtype(np.int16), (5 * RATE_HZ,))}
    loudness = [float(np.sqrt(np.mean(sound.astype(float) ** 2))) for sound in sounds]
    assert max(loudness) > 1.5 * min(loudness) > 150
    np.testing.assert_array_equal(record(3), sounds[3])
