"""Spectrograms of heart sounds against SciPy's, in decibels of full scale."""

import math

import numpy as np
import pytest
import torch
from scipy import signal

from hms_ray.core.errors import ConfigError
from hms_ray.core.params import parse
from hms_ray.features import heart_spectrogram as feature

RATE, STEPS = 4000, 80_000
STFT = {"bank": "stft", "n_fft": 256, "window": 256, "frames": 400, "low_hz": 0.0, "high_hz": 2000.0}


@pytest.fixture(scope="module")
def sound() -> torch.Tensor:
    """Two recordings (2, 1, 80000): noise of deviation 0.01, and one twice as loud that ends after 15 s."""
    x = 0.01 * np.random.default_rng(0).standard_normal((2, 1, STEPS)).astype(np.float32)
    x[1] *= 2
    x[1, :, 15 * RATE :] = np.nan
    return torch.from_numpy(x)


def _image(sound: torch.Tensor, **params: object) -> torch.Tensor:
    return feature.compute({"heart_sound": sound}, parse(feature.Params, params, "feature"))[:, 0]


def _level(image: torch.Tensor) -> torch.Tensor:
    return 20 * image - 80


def test_the_bins_are_scipys(sound: torch.Tensor) -> None:
    x = sound[0, 0].double().numpy()
    found = _level(_image(sound, **STFT, standardise="none"))[0].numpy()
    ours = found[:, 16:400:25]  # the k-th frame is centred at 200 k
    frames = [x[200 * k - 128 : 200 * k + 128] - x.mean() for k in range(16, 400, 25)]
    taper = signal.get_window("hann", 256)
    expected = [signal.periodogram(f, RATE, taper, detrend=False)[1] for f in frames]
    middle = slice(1, -1)  # SciPy counts the first and last bins once
    np.testing.assert_allclose(ours[middle], 10 * np.log10(np.stack(expected, 1))[middle], atol=0.02)
    assert found.shape == (129, 400)


@pytest.mark.parametrize("bank", ["mel", "stft"])
def test_white_noise_is_at_its_density_wherever_one_looks(sound: torch.Tensor, bank: str) -> None:
    params = {"bank": bank, "standardise": "none", "high_hz": 1000.0}
    density = 10 ** (_level(_image(sound, **params)) / 10)
    expected = 1e-4 / (RATE / 2)
    assert density[0].mean().item() == pytest.approx(expected, rel=0.02)
    there = density[1, :, : 15 * 512 // 20 - 1]
    assert there.mean().item() == pytest.approx(4 * expected, rel=0.02), "twice as loud"


def test_a_tone_is_in_its_row(sound: torch.Tensor) -> None:
    tone = 0.2 * torch.sin(2 * math.pi * 300 * torch.arange(STEPS) / RATE).view(1, 1, -1)
    image = _image(tone, n_bins=64, low_hz=20.0, high_hz=800.0)[0]
    centres = torch.linspace(20, 800, 66)[1:-1]
    assert centres[image.mean(1).argmax()].item() == pytest.approx(300, abs=12)


@pytest.mark.parametrize("standardise", ["image", "band", "none"])
def test_beyond_the_end_is_the_smallest_value(sound: torch.Tensor, standardise: str) -> None:
    image = _image(sound, standardise=standardise)
    first = 15 * 512 // 20
    assert (image[1, :, first + 1 :] == image[1].min()).all() and image[1, :, : first - 1].std() > 0.1
    assert (image[0, :, -1] > image[0].min()).any()


def test_standardised_over_what_is_there(sound: torch.Tensor) -> None:
    there = _image(sound)[1, :, : 15 * 512 // 20]
    assert there.mean().abs() < 0.02 and there.std().item() == pytest.approx(1, abs=0.02)
    bands = _image(sound, standardise="band")[1, :, : 15 * 512 // 20]
    assert bands.mean(1).abs().max() < 0.03 and (bands.std(1) - 1).abs().max() < 0.03


def test_loudness_is_lost_but_for_none(sound: torch.Tensor) -> None:
    torch.testing.assert_close(_image(3 * sound), _image(sound), rtol=1e-2, atol=1e-3)
    louder = _image(3 * sound, standardise="none") - _image(sound, standardise="none")
    assert louder.mean().item() == pytest.approx(math.log10(9) / 2, abs=1e-3)


def test_silence_is_at_the_floor() -> None:
    image = _image(torch.zeros(1, 1, STEPS), standardise="none", floor_db=-110.0)
    torch.testing.assert_close(_level(image), torch.full_like(image, -110.0), rtol=0, atol=1e-3)
    assert not _image(torch.zeros(1, 1, STEPS)).any(), "what never changes has no deviation to be scaled by"
    assert not _image(torch.full((1, 1, STEPS), torch.nan)).any()


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"high_hz": 1500.0}, r"high_hz=1500 must be at most 1000 with bank=mel"),
        ({"low_hz": 800.0}, r"low_hz=800 must be below high_hz=800"),
        ({"window": 2048}, r"window=2048 must be at most n_fft=1024"),
        ({"seconds": 1.0, "frames": 4096}, r"frames=4096 must be at most the 4000 steps of seconds"),
        ({"seconds": 1.0, "window": 4096, "n_fft": 4096}, r"window=4096 must be at most the 4000 steps"),
        ({"bank": "stft", "n_bins": 64}, r"n_bins=64 must stay at 128 with bank=stft"),
        (
            {"bank": "stft", "low_hz": 21.0, "high_hz": 22.0},
            r"no bin of n_fft=1024 lies in 21 to 22 Hz; widen the band",
        ),
        ({"n_fft": 256, "n_bins": 128}, r"rows are empty; right would be n_bins of at most 98, or more n_fft"),
    ],
)
def test_what_cannot_be_is_said(params: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse(feature.Params, params, "feature")


def test_the_shape_and_the_rate() -> None:
    spec = feature.spec(feature.Params())
    assert spec.shape == (1, 128, 512) and spec.rate_hz == RATE / (STEPS // 512)
    assert feature.spec(parse(feature.Params, STFT, "feature")).shape == (1, 129, 400)


def test_bands_of_a_log_bank_are_wider_the_higher_they_are() -> None:
    params = {
        "bank": "log",
        "n_bins": 32,
        "n_fft": 2048,
        "window": 512,
        "frames": 100,
        "low_hz": 25.0,
        "high_hz": 800.0,
    }
    tones = torch.sin(2 * torch.pi * torch.tensor([50.0, 100, 200, 400])[:, None] * torch.arange(STEPS) / RATE)
    loudest = _image(0.5 * tones[:, None], **params).mean(-1).argmax(-1)
    octaves = loudest.diff()  # of 5 in the band
    assert ((octaves - 33 / 5).abs() < 1.5).all(), "an octave is as many rows wherever it lies"


def test_the_level_of_noise_does_not_depend_on_the_bank(sound: torch.Tensor) -> None:
    common = {"n_fft": 2048, "window": 512, "frames": 100, "low_hz": 100.0, "standardise": "none"}
    log, mel = (float(_image(sound[:1], bank=bank, n_bins=16, **common).mean()) for bank in ("log", "mel"))
    assert abs(log - mel) < 0.03


@pytest.mark.parametrize(
    ("values", "fault"),
    [({"low_hz": 0.0}, "low_hz=0 must be above 0 with bank=log"), ({"n_fft": 256, "window": 256}, "rows are empty")],
)
def test_a_log_bank_that_cannot_be_is_refused(values: dict[str, float], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        parse(feature.Params, {"bank": "log", **values}, "feature")
