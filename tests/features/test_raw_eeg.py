"""The wave against SciPy's filters, forwards and backwards."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import signal

from hms_ray.core.errors import ConfigError
from hms_ray.core.params import parse
from hms_ray.core.recordings import EEG
from hms_ray.features import _montage
from hms_ray.features import raw_eeg as feature

RATE, STEPS = 200, 10_000
FP1, F7 = (EEG.channels.index(name) for name in ("Fp1", "F7"))
OPEN = {"low_hz": None, "high_hz": None}


@pytest.fixture(scope="module")
def eeg() -> torch.Tensor:
    """Two recordings (2, 20, 10000) in microvolts: a random walk and noise, with a gap and an outlier."""
    rng = np.random.default_rng(0)
    x = 3 * np.cumsum(rng.standard_normal((2, 20, STEPS)), -1) + 20 * rng.standard_normal((2, 20, STEPS))
    x[0, F7, 2000:3500] = np.nan
    x[1, F7, 5000:5010] = 20_000
    return torch.from_numpy(x.astype(np.float32))


@pytest.mark.parametrize(
    ("edges", "kind"),
    [((0.5, 20.0), "bandpass"), ((None, 20.0), "lowpass"), ((0.5, None), "highpass"), ((2.0, 70.0), "bandpass")],
)
def test_the_band_is_scipys_without_delay(
    eeg: torch.Tensor, levelled: Callable[..., np.ndarray], edges: tuple[float | None, float | None], kind: str
) -> None:
    given = [hz for hz in edges if hz is not None]
    sos = signal.butter(2, given if len(given) == 2 else given[0], kind, fs=RATE, output="sos")
    expected = signal.sosfiltfilt(sos, levelled(eeg), padlen=2000) / 32
    wave = feature.compute({"eeg": eeg}, feature.Params(low_hz=edges[0], high_hz=edges[1])).numpy()
    off = np.abs(wave - expected)
    assert off[..., 400:-400].max() < 1e-3 and off.max() < 2e-2, "the ends differ by how the filters start"


def test_the_mains_are_taken_out(eeg: torch.Tensor, levelled: Callable[..., np.ndarray]) -> None:
    hum = torch.sin(2 * torch.pi * 50 * torch.arange(STEPS) / RATE).expand(1, 20, STEPS).clone()
    hum *= torch.arange(20)[:, None] * 100.0
    wave = feature.compute({"eeg": hum}, feature.Params(**OPEN, notch_hz=50, montage="referential", clip_uv=50_000.0))
    assert wave[..., 1000:-1000].abs().max() < 1e-2 * 1800 / 32
    other = feature.compute({"eeg": hum}, feature.Params(**OPEN, notch_hz=60, montage="referential", clip_uv=50_000.0))
    assert other[0, 18, 1000:-1000].abs().max() > 0.95 * 1800 / 32
    b, a = signal.iirnotch(50, 30, fs=RATE)
    expected = signal.filtfilt(b, a, levelled(eeg), padlen=2000) / 32
    wave = feature.compute({"eeg": eeg}, feature.Params(**OPEN, notch_hz=50)).numpy()
    assert np.abs(wave - expected)[..., 400:-400].max() < 1e-2


@pytest.mark.parametrize("decimate", [2, 5])
def test_decimation_keeps_every_so_many_steps(eeg: torch.Tensor, decimate: int) -> None:
    whole = feature.compute({"eeg": eeg}, feature.Params())
    few = feature.compute({"eeg": eeg}, feature.Params(decimate=decimate))
    assert torch.equal(few, whole[..., ::decimate])
    spec = feature.spec(feature.Params(decimate=decimate))
    assert spec.rate_hz == RATE / decimate and spec.shape == (16, STEPS // decimate)


def test_the_middle_seconds(eeg: torch.Tensor) -> None:
    params = feature.Params(seconds=10)
    middle = feature.compute({"eeg": eeg}, params)
    assert feature.spec(params).shape == middle.shape[1:] == (16, 2000)
    assert torch.equal(middle, feature.compute({"eeg": eeg}, feature.Params())[..., 4000:6000])


@pytest.mark.parametrize("montage", ["banana_16", "referential", "average"])
def test_an_open_band_leaves_the_montage_clipped_and_scaled(
    eeg: torch.Tensor, levelled: Callable[..., np.ndarray], montage: _montage.Montage
) -> None:
    params = feature.Params(**OPEN, montage=montage, clip_uv=100.0, scale_uv=50.0)
    expected = levelled(eeg, montage, 100.0) / 50
    np.testing.assert_allclose(feature.compute({"eeg": eeg}, params), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("shift", ["offset", "drift"])
def test_an_electrodes_offset_erases_none_of_its_channels(shift: str) -> None:
    eeg = 30 * torch.randn(1, 20, STEPS, generator=torch.Generator().manual_seed(0))
    moved = eeg.clone()
    moved[0, F7] += 1500 if shift == "offset" else torch.linspace(-4000, 4000, STEPS)
    before, after = (feature.compute({"eeg": x}, feature.Params()) for x in (eeg, moved))
    assert (after - before).square().mean().sqrt() < 0.01 * before.std(), "the filter takes the offset out"


def test_an_artefact_stays_where_it_is() -> None:
    """Clipped after the filter instead, it would move the second around it by more than the EEG itself."""
    eeg = 30 * torch.randn(1, 20, STEPS, generator=torch.Generator().manual_seed(0))
    popped = eeg.clone()
    popped[0, F7, 5000:5020] += 8000
    before, after = (feature.compute({"eeg": x}, feature.Params())[0, 1] for x in (eeg, popped))  # F7-T3
    assert (after - before)[5000:5020].max() > 10
    away = (after - before)[[*range(4000, 4800), *range(5220, 6020)]]
    assert away.square().mean().sqrt() < before.std() / 2


def test_an_electrode_without_values_takes_only_its_pairs_along(eeg: torch.Tensor) -> None:
    without = eeg.clone()
    without[:, FP1] = torch.nan
    before, after = (feature.compute({"eeg": x}, feature.Params(montage="banana_18")) for x in (eeg, without))
    assert [i for i in range(18) if not torch.equal(before[:, i], after[:, i])] == [0, 4], "Fp1-F7 and Fp1-F3"
    assert (after[:, [0, 4]] == 0).all()


@pytest.mark.parametrize("montage", ["half_chains", "average"])
def test_a_mirrored_head_gives_the_mirrored_panels(
    eeg: torch.Tensor, montage: _montage.Montage, mirrored_head: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    params = feature.Params(montage=montage)
    mirrored = feature.compute({"eeg": eeg}, params)[:, list(feature.spec(params).panels.mirrored())]
    torch.testing.assert_close(feature.compute({"eeg": mirrored_head(eeg)}, params), mirrored, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"decimate": 8}, r"high_hz=20.0 must be at most 12.5, the Nyquist frequency with decimate=8"),
        ({"decimate": 2, "high_hz": None}, r"high_hz=None must be at most 50, the Nyquist frequency with decimate=2"),
        ({"low_hz": 30.0}, r"low_hz=30 must be below high_hz=20"),
        ({"decimate": 3}, r"feature\.decimate: Input should be 1, 2, 4, 5, 8 or 10, but got 3"),
        ({"high_hz": 100.0}, r"feature\.high_hz: .*less than 100"),
        ({"seconds": 60}, r"feature\.seconds: .*less than or equal to 50"),
    ],
)
def test_what_does_not_go_together_is_refused(values: dict[str, object], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        parse(feature.Params, values, "feature")
