"""The wave of a heart against SciPy's filters and rates; where there is no sound, exact zeros."""

import numpy as np
import pytest
import torch
from scipy import signal

from hms_ray.core.errors import ConfigError
from hms_ray.core.params import parse
from hms_ray.features import _heart
from hms_ray.features import heart_wave as feature

RATE, STEPS = 4000, 80_000
OPEN = {"low_hz": None, "high_hz": None}


@pytest.fixture(scope="module")
def sound() -> torch.Tensor:
    """Two recordings (2, 1, 80000): noise that beats, with an offset; the second ends after 15 s."""
    rng, time_s = np.random.default_rng(0), np.arange(STEPS) / RATE
    x = 0.1 + 0.05 * rng.standard_normal((2, 1, STEPS)) * (1 + np.sin(2 * np.pi * 1.2 * time_s))
    x[1, :, 15 * RATE :] = np.nan
    return torch.from_numpy(x.astype(np.float32))


def _wave(sound: torch.Tensor, **params: object) -> torch.Tensor:
    return feature.compute({"heart_sound": sound}, parse(feature.Params, params, "feature"))[:, 0]


def _standardised(x: np.ndarray) -> np.ndarray:
    return (x - x.mean()) / x.std()


@pytest.mark.parametrize("rate_hz", [1000, 2000, 4000, 8000, 16000])
@pytest.mark.parametrize("steps", [STEPS, 60_001])
def test_another_rate_is_scipys(rate_hz: int, steps: int) -> None:
    x = torch.randn(2, steps, generator=torch.Generator().manual_seed(0))
    expected = signal.resample_poly(x.double().numpy(), rate_hz, RATE, axis=-1)
    found = _heart.resampled(x, rate_hz)
    assert found.shape == expected.shape == _heart.known_at(x > 0, rate_hz).shape
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-6)


@pytest.mark.parametrize(("low_hz", "high_hz"), [(25.0, 800.0), (None, 400.0), (60.0, None)])
@pytest.mark.parametrize("rate_hz", [2000, 16000])
def test_band_and_rate_are_scipys(
    sound: torch.Tensor, low_hz: float | None, high_hz: float | None, rate_hz: int
) -> None:
    """Without delay; both recordings to the end that they have."""
    given = [hz for hz in (low_hz, high_hz) if hz is not None]
    kind = "bandpass" if len(given) == 2 else "lowpass" if low_hz is None else "highpass"
    sos = signal.butter(2, given if len(given) == 2 else given[0], kind, fs=RATE, output="sos")
    found = _wave(sound, low_hz=low_hz, high_hz=high_hz, rate_hz=rate_hz).numpy()
    for row, steps in ((0, STEPS), (1, 15 * RATE)):
        filtered = signal.sosfiltfilt(sos, sound[row, 0, :steps].double().numpy(), padlen=2000)
        expected = _standardised(signal.resample_poly(filtered, rate_hz, RATE))
        off = np.abs(found[row, : len(expected)] - expected)
        inside = slice(rate_hz // 10, -rate_hz // 10)
        assert off[inside].max() < 2e-3, "the ends differ by how the filters start"
        assert not found[row, len(expected) :].any()


@pytest.mark.parametrize("rate_hz", [1000, 4000, 16000])
def test_zeros_at_the_end_are_what_a_recording_lacks(sound: torch.Tensor, rate_hz: int) -> None:
    wave = _wave(sound, rate_hz=rate_hz, high_hz=400.0)
    there = wave != 0
    assert there[0].all() and there[1, : 15 * rate_hz].all() and not there[1, 15 * rate_hz :].any()
    torch.testing.assert_close(wave[1, : 15 * rate_hz].mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(wave[1, : 15 * rate_hz].std(), torch.tensor(1.0), atol=1e-3, rtol=0)


def test_a_gap_inside_is_zeros_and_counts_for_nothing(sound: torch.Tensor) -> None:
    holed = sound[:1].clone()
    holed[..., 30_000:34_000] = torch.nan
    wave = _wave(holed, rate_hz=4000)[0]
    assert not wave[30_000:34_000].any() and wave[:30_000].all() and wave[34_000:].all()
    rest = torch.cat([wave[:30_000], wave[34_000:]])
    assert rest.mean().abs() < 1e-5 and rest.std().item() == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(rest[:29_000], _wave(sound[:1], rate_hz=4000)[0, :29_000], rtol=0.03, atol=0.03)


def test_a_recording_that_begins_late_is_moved_to_the_front(sound: torch.Tensor) -> None:
    late = torch.cat([torch.full((1, 1, 7000), torch.nan), sound[:1, :, : STEPS - 7000]], -1)
    early = torch.cat([sound[:1, :, : STEPS - 7000], torch.full((1, 1, 7000), torch.nan)], -1)
    torch.testing.assert_close(_wave(late), _wave(early), rtol=1e-4, atol=1e-4)


def test_the_middle_is_that_of_what_is_there(sound: torch.Tensor) -> None:
    wave = _wave(sound, seconds=5.0, rate_hz=4000, normalise="none")
    whole = _wave(sound, rate_hz=4000, normalise="none")
    assert wave.shape == (2, 20_000)
    torch.testing.assert_close(wave[0, 200:-200], whole[0, 30_200:49_800], rtol=0, atol=1e-5)
    torch.testing.assert_close(wave[1, 200:-200], whole[1, 20_200:39_800], rtol=0, atol=1e-5)


def test_without_a_band_and_at_its_own_rate_it_is_the_recording(sound: torch.Tensor) -> None:
    wave = _wave(sound, **OPEN, rate_hz=4000, normalise="none")
    assert torch.equal(wave, sound[:, 0].nan_to_num())


def test_loudness_is_kept_or_taken_out(sound: torch.Tensor) -> None:
    loud, quiet = _wave(sound, normalise="none"), _wave(0.1 * sound, normalise="none")
    torch.testing.assert_close(0.1 * loud, quiet, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(_wave(0.1 * sound), _wave(sound), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("value", [0.0, 0.3, torch.nan])
def test_what_is_flat_or_empty_is_not_made_loud(value: float) -> None:
    assert _wave(torch.full((1, 1, STEPS), value)).abs().max() < 0.1


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"rate_hz": 1000}, r"high_hz=800 must be below 500, the Nyquist frequency with rate_hz=1000"),
        ({"rate_hz": 1000, "high_hz": 500.0}, r"high_hz=500 must be below 500"),
        ({"low_hz": 300.0, "high_hz": 200.0}, r"low_hz=300 must be below high_hz=200"),
        ({"high_hz": 2000.0}, r"feature\.high_hz: Input should be less than 2000"),
        ({"seconds": 21.0}, r"feature\.seconds: Input should be less than or equal to 20"),
        ({"rate_hz": 44100}, r"feature\.rate_hz: Input should be 1000, 2000, 4000, 8000 or 16000"),
    ],
)
def test_what_cannot_be_is_said(params: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse(feature.Params, params, "feature")


@pytest.mark.parametrize("rate_hz", [1000, 4000, 16000])
@pytest.mark.parametrize("seconds", [1.0, 1.0001, 1.00013, 19.99999])
def test_any_length_has_the_shape_that_the_spec_says(sound: torch.Tensor, rate_hz: int, seconds: float) -> None:
    params = {"rate_hz": rate_hz, "seconds": seconds, "high_hz": 400.0}
    expected = feature.spec(parse(feature.Params, params, "feature")).shape
    assert _wave(sound, **params).shape == (2, expected[1]) and abs(expected[1] - seconds * rate_hz) < 5
