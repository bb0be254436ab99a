"""The scalogram against Morlet wavelets convolved in time, one by one."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from hms_ray.core.errors import ConfigError
from hms_ray.core.params import parse
from hms_ray.core.recordings import EEG
from hms_ray.features import eeg_cwt as feature

RATE, STEPS = 200, 10_000
FP1, F7 = (EEG.channels.index(name) for name in ("Fp1", "F7"))


@pytest.fixture(scope="module")
def eeg() -> torch.Tensor:
    """Two recordings (2, 20, 10000) in microvolts: a random walk and noise, with a gap."""
    rng = np.random.default_rng(0)
    x = np.cumsum(rng.standard_normal((2, 20, STEPS)), -1) + 10 * rng.standard_normal((2, 20, STEPS))
    x[0, F7, 2000:3500] = np.nan
    return torch.from_numpy(x.astype(np.float32))


def sine(hz: float, microvolts: float) -> torch.Tensor:
    """A recording (1, 20, 10000) where F7 alone has a sine."""
    eeg = torch.zeros(1, 20, STEPS)
    eeg[0, F7] = microvolts * torch.sin(2 * torch.pi * hz * torch.arange(STEPS) / RATE)
    return eeg


def morlet(wave: np.ndarray, hz: float, cycles: float) -> np.ndarray:
    """Convolve a wave, reflected at its ends, with a Morlet wavelet in time: its amplitude (T,)."""
    deviation = cycles / (2 * np.pi * hz)
    half = int(np.ceil(6 * deviation * RATE))
    t = np.arange(-half, half + 1) / RATE
    gauss = np.exp(-0.5 * (t / deviation) ** 2)
    wavelet = 2 * gauss / gauss.sum() * (np.exp(2j * np.pi * hz * t) - np.exp(-0.5 * cycles**2))
    return np.abs(np.convolve(np.pad(wave, half, mode="reflect"), wavelet, "valid"))


@pytest.mark.parametrize(
    "values", [{}, {"stride": 50, "cycles": 7.0, "low_hz": 2.0, "high_hz": 30.0, "scales": 9, "montage": "banana_16"}]
)
def test_it_is_the_convolution_in_time(
    eeg: torch.Tensor, levelled: Callable[..., np.ndarray], values: dict[str, object]
) -> None:
    params = parse(feature.Params, {**values, "arrange": "channels"}, "feature")
    image = feature.compute({"eeg": eeg}, params).numpy()
    wave = levelled(eeg, params.montage)[0, 1]
    for row in (0, params.scales // 2, params.scales - 1):
        hz = params.low_hz * (params.high_hz / params.low_hz) ** (row / (params.scales - 1))
        expected = np.log1p(morlet(wave, hz, params.cycles)[:: params.stride]) / 2
        np.testing.assert_allclose(image[0, 1, row], expected, atol=2e-3)


@pytest.mark.parametrize("row", [5, 20, 35])
def test_a_sine_shows_its_amplitude_in_its_row(row: int) -> None:
    hz = 0.5 * 80 ** (row / 39)
    image = feature.amplitude(sine(hz, 50.0), feature.Params())[0]
    assert image.shape == (18, 40, 625)
    middle = image[:, :, 200:425]
    assert middle[0].mean(-1).argmax() == row
    torch.testing.assert_close(middle[:2, row], torch.full((2, 225), 50.0), rtol=1e-2, atol=0.1)
    assert (middle[2:] == 0).all(), "only Fp1-F7 and F7-T3 see it"


def test_an_offset_is_not_seen() -> None:
    eeg = torch.zeros(1, 20, STEPS)
    eeg[0, F7] = 1000.0
    assert feature.amplitude(eeg, feature.Params(cycles=3.0)).max() < 0.01


def test_an_artefact_and_a_pair_without_signal() -> None:
    noise = 30 * torch.randn(1, 20, STEPS, generator=torch.Generator().manual_seed(0))
    params = feature.Params(arrange="channels", montage="banana_16")
    popped, dead = noise.clone(), noise.clone()
    popped[0, F7, 5000:5020] += 8000
    dead[0, F7], dead[0, FP1] = 0.1, -7.3  # an offset alone
    before, after = (feature.compute({"eeg": x}, params)[0, 0] for x in (noise, popped))
    unclipped = feature.compute({"eeg": popped}, params.model_copy(update={"clip_uv": 50_000.0}))[0, 0]
    assert 0 < (after - before).mean() < 0.6 * (unclipped - before).mean()
    assert (feature.compute({"eeg": dead}, params)[0, 0] == feature.spec(params).empty[0]).all()


def test_time_runs_along_the_columns() -> None:
    eeg = torch.zeros(1, 20, STEPS)
    eeg[0, F7, 4000] = 1000
    assert int(feature.amplitude(eeg, feature.Params())[0, 0, -1].argmax()) == 4000 // 16


def test_arrangements_and_spec(eeg: torch.Tensor) -> None:
    channels, stack = feature.Params(arrange="channels"), feature.Params()
    assert feature.spec(channels).shape == (18, 40, 625) and feature.spec(stack).shape == (1, 720, 625)
    assert feature.spec(stack).rate_hz == 12.5
    image = feature.compute({"eeg": eeg}, channels)
    torch.testing.assert_close(feature.compute({"eeg": eeg}, stack), image.reshape(2, 1, 720, 625))


def test_an_electrode_without_values_takes_only_its_pairs_along(eeg: torch.Tensor) -> None:
    params, without = feature.Params(arrange="channels", scales=5), eeg.clone()
    without[:, FP1] = torch.nan
    before, after = (feature.compute({"eeg": x}, params) for x in (eeg, without))
    changed = (before - after).abs().amax((0, 2, 3)) > 0
    assert [i for i in range(18) if changed[i]] == [0, 4], "Fp1-F7 and Fp1-F3"


def test_a_mirrored_head_gives_the_mirrored_panels(
    eeg: torch.Tensor, mirrored_head: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    params = feature.Params(arrange="channels", scales=5)
    mirrored = feature.compute({"eeg": eeg}, params)[:, list(feature.spec(params).panels.mirrored())]
    torch.testing.assert_close(feature.compute({"eeg": mirrored_head(eeg)}, params), mirrored)


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"stride": 17}, r"stride=17 must divide the 10000 steps of a window"),
        ({"low_hz": 50.0}, r"low_hz=50 must be below high_hz=40"),
        ({"high_hz": 95.0}, r"feature\.high_hz: .*less than or equal to 90"),
        ({"montage": "average"}, r"feature\.montage: .*'banana_16' or 'banana_18'"),
    ],
)
def test_what_does_not_go_together_is_refused(values: dict[str, object], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        parse(feature.Params, values, "feature")
