"""Another sampling rate shows by where the mains hum lies; what has no such line is not accused."""

from pathlib import Path

import numpy as np
import pytest
from scipy.signal import resample_poly

from hms_ray.core import files
from hms_ray.core.recordings import EEG
from hms_ray.datasets import _rates

SECONDS = 20


def recording(rate_hz: int, mains_hz: float | None, seed: int = 0) -> np.ndarray:
    """Electrodes (19, steps) at that rate: noise that falls with frequency, a rhythm, and the mains."""
    rng, t = np.random.default_rng(seed), np.arange(SECONDS * rate_hz) / rate_hz
    x = np.cumsum(rng.standard_normal((19, len(t))), -1) + 3 * rng.standard_normal((19, len(t)))
    x += 20 * np.sin(2 * np.pi * 10.2 * t)
    return (x + (0 if mains_hz is None else 4 * np.sin(2 * np.pi * mains_hz * t))).astype(np.float32)


def several(rate_hz: int, mains_hz: float | None) -> dict[str, np.ndarray]:
    return {str(seed): recording(rate_hz, mains_hz, seed) for seed in range(3)}


@pytest.mark.parametrize("mains_hz", [50.0, 60.0])
@pytest.mark.parametrize("rate_hz", [125, 128, 250, 256, 400, 500, 512])
def test_the_hum_tells_the_rate(rate_hz: int, mains_hz: float) -> None:
    found = _rates.by_hum(EEG, several(rate_hz, mains_hz), {})
    assert found.names == ("0", "1", "2") and found.looked_at == 3
    assert found.line_hz == pytest.approx(mains_hz * 200 / rate_hz)
    assert found.rate_hz == rate_hz


@pytest.mark.parametrize("mains_hz", [50.0, 60.0, None, 76.0, 33.3])
def test_at_the_right_rate_nothing_is_found(mains_hz: float | None) -> None:
    assert _rates.by_hum(EEG, several(200, mains_hz), {}) is None


def test_a_line_is_nothing_where_the_mains_hum_or_the_length_is_right() -> None:
    odd = {"a": recording(200, 20.0), "b": recording(200, 20.0, 1)}
    assert _rates.by_hum(EEG, odd, {}).rate_hz == 500
    assert _rates.by_hum(EEG, odd, {"a": 1.0, "b": 2.5}).names == ("b",)
    mains = recording(200, 60.0, 2) - recording(200, None, 2)
    assert _rates.by_hum(EEG, {name: x + mains for name, x in odd.items()}, {}) is None


@pytest.mark.parametrize("value", [np.nan, 0.0, 5.0])
def test_what_holds_nothing_or_is_short_tells_nothing(value: float) -> None:
    assert (
        _rates.by_hum(EEG, {"a": np.full((19, 4000), value, np.float32), "b": recording(256, 50.0)[:, :900]}, {})
        is None
    )


@pytest.mark.parametrize(
    ("length", "rate_hz"),
    [
        ([1.28] * 9, 256),
        ([0.5] * 9 + [1.0], 100),
        ([1.0] * 9, None),
        ([1.28] * 2, None),
        ([1.28] * 5 + [1.0] * 5, None),
        ([12.0] * 9, None),
        ([1.1, 1.3, 2.0, 2.6], None),
    ],
)
def test_lengths_tell_where_they_agree(length: list[float], rate_hz: int | None) -> None:
    found = _rates.by_length(EEG, {str(i): one for i, one in enumerate(length)})
    assert (found and found.rate_hz) == rate_hz


def test_real_recordings_are_not_accused_but_resampled_ones_are(real_data: Path) -> None:
    paths = sorted((real_data / "iiic" / "segments").glob("*.parquet"))
    paths += sorted((real_data / "hms_sample").glob("*_eegs/*.parquet"))
    real = {path.stem: files.read_channels(path, EEG.channels[:-1]) for path in paths}
    found = _rates.by_hum(EEG, real, {})
    assert found is None or len(found.names) <= 1
    faster = {name: resample_poly(np.nan_to_num(x), 5, 4, axis=1) for name, x in real.items()}
    found = _rates.by_hum(EEG, faster, {})
    assert found.rate_hz == 250 and len(found.names) > len(real) / 2
