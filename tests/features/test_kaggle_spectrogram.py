"""The image against the recipe written out pixel by pixel from the competition's file."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_ray.datasets import hms
from hms_ray.errors import ConfigError
from hms_ray.features import kaggle_spectrogram as feature
from hms_ray.params import parse

HZ = sorted({float(name[3:]) for name in hms.COLUMNS})


@pytest.fixture(scope="module")
def dataset(hms_folder: Path) -> hms.HmsDataset:
    """One unit an EEG; the last two are patient 0's, whose recording begins with a gap."""
    return hms.load(hms_folder, hms.Params(rows="eeg"))


def reference(path: Path, offset_s: float) -> np.ndarray:
    """The public recipe: 300 rows from offset // 2, 4 panels, clip, log, standardise per image, NaN to 0."""
    table = pd.read_parquet(path)
    start = int(offset_s // 2)
    panels = []
    for panel in ("LL", "LP", "RL", "RP"):
        power = table[[f"{panel}_{hz:g}" for hz in HZ]].to_numpy()[start : start + 300].T.astype(np.float64)
        power = np.pad(power, ((0, 0), (0, 300 - power.shape[1])), constant_values=np.nan)
        panels.append(np.log(np.clip(power, math.exp(-4), math.exp(8))))
    image = np.stack(panels)
    image = (image - np.nanmean(image)) / (np.nanstd(image) + 1e-6)
    return np.nan_to_num(image, nan=0.0)


@pytest.mark.parametrize("unit", [0, 2, 11])
def test_the_image_is_the_recipes(dataset: hms.HmsDataset, unit: int) -> None:
    expected = reference(dataset.files("spectrogram")[unit], dataset.units["spectrogram_offset_s"].iat[unit])
    image = feature.compute(dataset, unit, feature.Params())
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, expected.reshape(1, 400, 300), atol=1e-4)
    channels = feature.compute(dataset, unit, feature.Params(arrange="channels"))
    np.testing.assert_allclose(channels, expected, atol=1e-4)


def test_gaps_are_the_mean(dataset: hms.HmsDataset) -> None:
    image = feature.compute(dataset, 11, feature.Params())
    assert (image[:, :, :6] == 0).all() and not (image[:, :, 6:] == 0).any()


@pytest.mark.parametrize("unit", [0, 11])
def test_each_panel_by_itself(dataset: hms.HmsDataset, unit: int) -> None:
    logs = np.log(np.clip(dataset.recording("spectrogram", unit).astype(np.float64), math.exp(-4), math.exp(8)))
    expected = [np.nan_to_num((panel - np.nanmean(panel)) / (np.nanstd(panel) + 1e-6)) for panel in logs]
    image = feature.compute(dataset, unit, feature.Params(arrange="channels", standardise="panel"))
    np.testing.assert_allclose(image, expected, atol=1e-4)


@pytest.mark.parametrize("side", [2, 4])
def test_pooling_is_the_mean_of_squares_within_a_panel(dataset: hms.HmsDataset, side: int) -> None:
    whole = feature.compute(dataset, 0, feature.Params(arrange="channels"))
    expected = sum(whole[:, i::side, j::side] for i in range(side) for j in range(side)) / side**2
    pooled = feature.compute(dataset, 0, feature.Params(arrange="channels", pool=side))
    np.testing.assert_allclose(pooled, expected, atol=1e-5)
    stacked = feature.compute(dataset, 0, feature.Params(pool=side))
    np.testing.assert_array_equal(stacked.reshape(pooled.shape), pooled)


class Recording:
    """A dataset of one recording, made up."""

    def __init__(self, power: np.ndarray) -> None:
        self.power = power.astype(np.float32)

    def recording(self, kind: str, i: int) -> np.ndarray:
        """The power, whichever unit."""
        return self.power


@pytest.mark.parametrize("value", [np.nan, 0.0, 1.0, 206_415.0, np.inf, -1.0])
def test_a_recording_of_one_value_is_an_empty_image(value: float) -> None:
    for standardise in ("image", "panel"):
        params = feature.Params(standardise=standardise)
        image = feature.compute(Recording(np.full((4, 100, 300), value)), 0, params)
        np.testing.assert_allclose(image, np.zeros((1, 400, 300)), atol=1e-2)


def test_extremes_are_clipped() -> None:
    power = np.ones((4, 100, 300))
    power[0] = 0  # as e^-4
    power[1] = 206_415  # as e^8
    image = feature.compute(Recording(power), 0, feature.Params(arrange="channels"))
    logs = np.array([-4, 8, 0, 0])
    np.testing.assert_allclose(image[:, 50, 150], (logs - logs.mean()) / logs.std(), rtol=1e-4)


@pytest.mark.parametrize(
    ("params", "shape", "axis", "rate_hz"),
    [
        ({}, (1, 400, 300), "F", 0.5),
        ({"arrange": "channels"}, (4, 100, 300), "C", 0.5),
        ({"pool": 2}, (1, 200, 150), "F", 0.25),
        ({"arrange": "channels", "pool": 4}, (4, 25, 75), "C", 0.125),
    ],
)
def test_the_spec_tells_the_image(params: dict[str, object], shape: tuple[int, ...], axis: str, rate_hz: float) -> None:
    spec = feature.spec(feature.Params(**params))
    assert (spec.layout, spec.shape, spec.rate_hz) == ("image", shape, rate_hz)
    assert spec.panels.axis == axis and spec.panels.names == ("LL", "LP", "RL", "RP")


def test_the_time_axis_is_ten_minutes() -> None:
    for pool in (1, 2, 4):
        spec = feature.spec(feature.Params(pool=pool))
        assert spec.shape[2] / spec.rate_hz == 600


def test_a_pool_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"feature\.pool: Input should be 1, 2 or 4, but got 3"):
        parse(feature.Params, {"pool": 3}, "feature")
