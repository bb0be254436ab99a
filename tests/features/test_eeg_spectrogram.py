"""The picture against the notebooks' recipe written out with NumPy and SciPy as librosa defines it."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import signal

from hms_ray.core.errors import ConfigError
from hms_ray.core.params import parse
from hms_ray.core.recordings import EEG
from hms_ray.features import _filterbank
from hms_ray.features import eeg_spectrogram as feature

RATE, STEPS = 200, 10_000
FP1, F7, T3 = (EEG.channels.index(name) for name in ("Fp1", "F7", "T3"))


@pytest.fixture(scope="module")
def eeg() -> torch.Tensor:
    """Two recordings (2, 20, 10000) in microvolts: 1/f noise, spikes, and an electrode with a gap."""
    rng = np.random.default_rng(0)
    hz = np.maximum(np.fft.rfftfreq(STEPS, 1 / RATE), 0.3)
    x = np.fft.irfft(np.fft.rfft(rng.standard_normal((2, 20, STEPS))) / hz)
    x *= 30 / x.std(-1, keepdims=True)
    x[:, :, ::190] += rng.uniform(50, 300, (2, 20, 1))
    x[0, T3, 2000:3500] = np.nan
    return torch.from_numpy(x.astype(np.float32))


def hz_to_mel(hz: np.ndarray) -> np.ndarray:
    """Slaney's scale: linear to 1 kHz, logarithmic above."""
    return np.where(hz < 1000, 3 * hz / 200, 15 + np.log(np.maximum(hz, 1) / 1000) * 27 / np.log(6.4))


def mel_to_hz(mel: np.ndarray) -> np.ndarray:
    """The scale's inverse."""
    return np.where(mel < 15, 200 * mel / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))


def mel_filters(n_bins: int, n_fft: int, low: float, high: float) -> np.ndarray:
    """librosa.filters.mel(htk=False, norm="slaney"): (n_bins, 1 + n_fft / 2)."""
    edges = mel_to_hz(np.linspace(*hz_to_mel(np.array([low, high])), n_bins + 2))
    rise, bins = np.diff(edges), np.fft.rfftfreq(n_fft, 1 / RATE)
    ramps = edges[:, None] - bins
    triangles = np.maximum(0, np.minimum(-ramps[:-2] / rise[:-1, None], ramps[2:] / rise[1:, None]))
    return triangles * (2 / (edges[2:] - edges[:-2]))[:, None]


def power(wave: np.ndarray, hop: int, n_fft: int, window: int) -> np.ndarray:
    """|librosa.stft|^2 with center=True: (bins, columns)."""
    taper, before = np.zeros(n_fft), (n_fft - window) // 2
    taper[before : before + window] = signal.get_window("hann", window)
    padded = np.pad(wave, n_fft // 2)
    columns = 1 + len(wave) // hop
    frames = np.stack([padded[i * hop : i * hop + n_fft] * taper for i in range(columns)])
    return np.abs(np.fft.rfft(frames)).T ** 2


def decibels(power: np.ndarray) -> np.ndarray:
    """librosa.power_to_db(ref=np.max), shifted and scaled."""
    db = 10 * np.log10(np.maximum(power, 1e-10) / max(power.max(), 1e-10))
    return (np.maximum(db, -80) + 40) / 40


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"n_fft": 512, "n_bins": 64, "low_hz": 0.53, "high_hz": 30.0},
        {"window": 1000, "frames": 128},  # too near n_fft for fewer bins than the transform's
        {"window": 145, "frames": 250},
    ],
)
def test_the_mel_picture_is_the_notebooks(
    eeg: torch.Tensor, levelled: Callable[..., np.ndarray], values: dict[str, object]
) -> None:
    params = parse(feature.Params, values, "feature")
    bank = mel_filters(params.n_bins, params.n_fft, params.low_hz, params.high_hz)
    hop = STEPS // params.frames
    expected = np.stack(
        [decibels(bank @ power(w, hop, params.n_fft, params.window)) for row in levelled(eeg) for w in row]
    )
    expected = expected.reshape(2, 4, 4, params.n_bins, -1).mean(2)[..., : params.frames]
    image = feature.compute({"eeg": eeg}, params).numpy()
    assert image.shape == (2, 1, 4 * params.n_bins, params.frames)
    off = np.abs(image - expected.reshape(image.shape))
    assert np.quantile(off, 0.999) < 1e-3 and off.mean() < 1e-4


def test_fewer_bins_than_the_transforms_serve() -> None:
    bank = _filterbank.Bank("mel", 200.0, 1024, 128, 128, 0.0, 20.0)
    basis, weights = _filterbank.constants(bank, torch.device("cpu"))
    assert weights.shape[0] == 128 and basis.shape == (128, 2 * weights.shape[1])
    assert weights.shape[1] < len(bank.bins_hz) / 2 == 103 / 2


@pytest.mark.parametrize("amplitude", ["db", "log1p"])
def test_the_transforms_own_bins(eeg: torch.Tensor, levelled: Callable[..., np.ndarray], amplitude: str) -> None:
    params = feature.Params(bank="stft", montage="banana_16", low_hz=0.5, amplitude=amplitude, arrange="channels")
    image = feature.compute({"eeg": eeg}, params).numpy()
    bins = np.fft.rfftfreq(1024, 1 / RATE)
    raw = power(levelled(eeg)[1, 5], 39, 1024, 128)[(bins >= 0.5) & (bins <= 20)]
    density = raw * 2 / (RATE * (signal.get_window("hann", 128) ** 2).sum())
    expected = decibels(raw) if amplitude == "db" else np.log1p(density) / 4
    assert image.shape == (2, 16, 100, 256)
    assert np.quantile(np.abs(image[1, 5] - expected[:, :256]), 0.999) < 1e-3


def test_a_sine_is_brightest_in_its_row() -> None:
    eeg = torch.zeros(1, 20, STEPS)
    eeg[0, F7] = 50 * torch.sin(2 * torch.pi * 10 * torch.arange(STEPS) / RATE)
    image = feature.compute({"eeg": eeg}, feature.Params(montage="banana_16", arrange="channels"))[0]
    edges = np.linspace(0, 20, 130)
    row = int(image[0].mean(-1).argmax())
    assert abs(edges[row + 1] - 10) < 200 / 1024 + edges[1], "within a bin and a row"
    assert image[0].max() == 1 and image[:2].var() > 0, "Fp1-F7 and F7-T3 see it"
    assert (image[2:] == -1).all(), "the other pairs are silent"


@pytest.mark.parametrize("amplitude", ["db", "log1p"])
@pytest.mark.parametrize("montage", ["banana_16", "chains"])
def test_what_holds_no_signal_is_dark_and_the_spec_says_so(amplitude: str, montage: str) -> None:
    eeg = 30 * torch.randn(1, 20, STEPS, generator=torch.Generator().manual_seed(0))
    for i, name in enumerate(("Fp1", "F7", "T3", "T5", "O1")):
        eeg[0, EEG.channels.index(name)] = torch.nan if name == "T3" else 200.0 * i  # no contact, or an offset alone
    params = feature.Params(amplitude=amplitude, montage=montage, arrange="channels")
    image, (empty,) = feature.compute({"eeg": eeg}, params)[0], feature.spec(params).empty
    assert empty == {"db": -1, "log1p": 0}[amplitude] == image.min()
    lateral = 1 if montage == "chains" else 4
    assert (image[:lateral] == empty).all() and (image[lateral:] > empty).float().mean() > 0.99


@pytest.mark.parametrize("size", [1500, 8000, -30_000])
def test_an_artefact_does_not_darken_its_pair(eeg: torch.Tensor, size: float) -> None:
    params, popped = feature.Params(montage="banana_16", arrange="channels"), eeg.clone()
    popped[1, F7, 5000:5020] += size
    before, after = (feature.compute({"eeg": x}, params)[1, :2] for x in (eeg, popped))
    frames = [i for i in range(256) if not 5000 - 64 <= i * 39 < 5020 + 64]
    assert (after - before)[..., frames].abs().mean() < 2e-3
    assert (after.amax((1, 2)) == 1).all(), "the artefact itself is as bright as can be"


def test_where_every_frame_is_clipped_the_largest_is_the_reference() -> None:
    eeg = torch.zeros(1, 20, STEPS)
    eeg[0, F7] = 3000 * torch.sin(2 * torch.pi * 10 * torch.arange(STEPS) / RATE)
    image = feature.compute({"eeg": eeg}, feature.Params(montage="banana_16", arrange="channels"))[0, 0]
    assert image.max() == 1 and image.mean() < 0.2


@pytest.mark.parametrize("bank", ["mel", "stft"])
def test_density_is_that_of_white_noise(bank: str) -> None:
    deviation = 20.0
    noise = deviation * torch.randn(2, 20, STEPS, generator=torch.Generator().manual_seed(0))
    params = feature.Params(bank=bank, amplitude="log1p", low_hz=5.0)
    density = torch.expm1(4 * feature.compute({"eeg": noise}, params))
    # A pair's variance is twice an electrode's, spread over 100 Hz; the mean of logs lies below the log of the mean.
    assert 0.4 < float(density.mean()) / (2 * deviation**2 / 100) < 0.8


def test_a_chain_is_the_mean_of_its_pairs(eeg: torch.Tensor) -> None:
    for amplitude in ("db", "log1p"):
        chains = feature.Params(amplitude=amplitude, arrange="channels")
        single = chains.model_copy(update={"montage": "banana_16"})
        expected = feature.compute({"eeg": eeg}, single).unflatten(1, (4, 4)).mean(2)
        torch.testing.assert_close(feature.compute({"eeg": eeg}, chains), expected, rtol=1e-4, atol=1e-4)


def test_windows_stand_side_by_side(eeg: torch.Tensor) -> None:
    params = feature.Params(windows_s=(50.0, 10.0), frames=200)
    spec = feature.spec(params)
    assert spec.shape == (1, 512, 400) and spec.spans == (200, 200) and spec.rate_hz == 4
    image = feature.compute({"eeg": eeg}, params)
    for seconds, picture in zip((50.0, 10.0), spec.pictures, strict=True):
        alone = feature.compute({"eeg": eeg}, feature.Params(windows_s=(seconds,), frames=200))
        torch.testing.assert_close(image[..., picture], alone)
    outside = eeg.clone()
    outside[:, :, :4000], outside[:, :, 6000:] = 0, 0
    torch.testing.assert_close(feature.compute({"eeg": outside}, params)[..., 200:], image[..., 200:])


def test_an_electrode_without_values_takes_only_its_pairs_along(eeg: torch.Tensor) -> None:
    params, without = feature.Params(montage="banana_18", arrange="channels"), eeg.clone()
    without[:, FP1] = torch.nan
    before, after = (feature.compute({"eeg": x}, params) for x in (eeg, without))
    changed = (before - after).abs().amax((0, 2, 3)) > 0
    assert [i for i in range(18) if changed[i]] == [0, 4], "Fp1-F7 and Fp1-F3"


def test_a_mirrored_head_gives_the_mirrored_panels(
    eeg: torch.Tensor, mirrored_head: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    for montage in ("chains", "banana_18"):
        params = feature.Params(montage=montage, arrange="channels")
        order = list(feature.spec(params).panels.mirrored())
        mirrored = feature.compute({"eeg": eeg}, params)[:, order]
        torch.testing.assert_close(feature.compute({"eeg": mirrored_head(eeg)}, params), mirrored)


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"high_hz": 120.0}, r"high_hz=120 must be at most the Nyquist frequency 100"),
        ({"low_hz": 30.0}, r"low_hz=30 must be below high_hz=20"),
        ({"window": 1200}, r"window=1200 must be at most n_fft=1024"),
        ({"window": 1024, "windows_s": [50.0, 5.0]}, r"window=1024 must be at most the 1000 steps of the shortest"),
        ({"frames": 300, "windows_s": [1.0]}, r"frames=300 must be at most the 200 steps of the shortest"),
        ({"windows_s": [60.0]}, r"windows_s=\(60.0,\) must be above 0 and at most 50"),
        ({"windows_s": [0.0]}, r"windows_s=\(0.0,\) must be above 0 and at most 50"),
        ({"windows_s": []}, r"feature\.windows_s: .*at least 1"),
        ({"n_fft": 256}, r"78 of the n_bins=128 rows are empty; right would be n_bins of at most 50, or more n_fft"),
        ({"low_hz": 19.99}, r"rows are empty; right would be a wider band, or more n_fft|no bin of n_fft=1024"),
        ({"bank": "stft", "n_bins": 64}, r"n_bins=64 must stay at 128 with bank=stft"),
        ({"bank": "stft", "low_hz": 10.01, "high_hz": 10.02}, r"no bin of n_fft=1024 lies in 10.01 to 10.02 Hz"),
    ],
)
def test_what_does_not_go_together_is_refused(values: dict[str, object], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        parse(feature.Params, values, "feature")
