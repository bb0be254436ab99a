"""The image against the recipe written out pixel by pixel from the competition's file."""

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from hms_ray.core.errors import ConfigError
from hms_ray.core.params import parse
from hms_ray.core.recordings import SPECTROGRAM
from hms_ray.features import kaggle_spectrogram as feature

HZ = [f"{np.floor(k * 20000 / 1024 + 0.5) / 100:g}" for k in range(3, 103)]
CHANNELS = {"arrange": "channels"}


def window(path: Path, start: int) -> pd.DataFrame:
    """300 rows of a file from `start`, those beyond its end empty."""
    return pd.read_parquet(path).iloc[start : start + 300].reset_index(drop=True).reindex(range(300))


def batch_of(table: pd.DataFrame) -> dict[str, torch.Tensor]:
    """A batch of one window."""
    return {"spectrogram": torch.tensor(table[list(SPECTROGRAM.channels)].to_numpy(np.float32).T[None])}


def recipe(table: pd.DataFrame) -> np.ndarray:
    """The public recipe: 4 panels, clip, log, standardise per image; but NaN to the smallest value, not to 0."""
    panels = [table[[f"{panel}_{hz}" for hz in HZ]].to_numpy(np.float64).T for panel in ("LL", "LP", "RL", "RP")]
    image = np.log(np.clip(np.stack(panels), math.exp(-4), math.exp(8)))
    image = (image - np.nanmean(image)) / np.nanstd(image)
    return np.nan_to_num(image, nan=np.nanmin(image))


def compute(power: np.ndarray, **params: object) -> np.ndarray:
    """The image of power (4, 100, 300)."""
    batch = torch.from_numpy(power.astype(np.float32)).reshape(1, 400, 300)
    return feature.compute({"spectrogram": batch}, feature.Params(**params))[0].numpy()


@pytest.fixture
def power() -> np.ndarray:
    """Four panels of made-up power, with a gap at the start and one in a panel."""
    power = np.exp(np.random.default_rng(0).normal(size=(4, 100, 300)) * 2 - 1)
    power[..., :6] = power[2, 40:50, 100:200] = np.nan
    return power


@pytest.mark.parametrize(("patient", "start"), [(0, 0), (1, 3), (2, 19), (3, 60)])
def test_the_image_is_the_recipes(hms_folder: Path, patient: int, start: int) -> None:
    table = window(sorted((hms_folder / "train_spectrograms").glob("*.parquet"))[patient], start)
    batch = batch_of(table)
    image = feature.compute(batch, feature.Params())
    np.testing.assert_allclose(image[0], recipe(table).reshape(1, 400, 300), atol=1e-4)
    channels = feature.compute(batch, feature.Params(arrange="channels"))
    np.testing.assert_allclose(channels[0], recipe(table), atol=1e-4)


def test_real_recordings_are_as_the_recipe_has_them(real_data: Path) -> None:
    for path in sorted((real_data / "hms_sample").glob("*_spectrograms/*.parquet")):
        table = window(path, 0)
        batch = batch_of(table)
        image = feature.compute(batch, feature.Params(arrange="channels"))
        np.testing.assert_allclose(image[0], recipe(table), atol=1e-4)


def test_the_fixed_mean_and_deviation_are_those_of_real_recordings(real_data: Path) -> None:
    files = sorted((real_data / "hms_sample").glob("*_spectrograms/*.parquet"))
    power = np.concatenate([pd.read_parquet(path).drop(columns="time").to_numpy(np.float64) for path in files])
    logs = np.log(np.clip(power, math.exp(-4), math.exp(8)))
    assert np.nanmean(logs) == pytest.approx(feature.Params().mean, abs=0.1)
    assert np.nanstd(logs) == pytest.approx(feature.Params().deviation, abs=0.1)


@pytest.mark.parametrize("standardise", ["image", "panel", "global", "none"])
def test_gaps_are_as_dark_as_a_region_without_power(power: np.ndarray, standardise: str) -> None:
    power[1] = 0
    image = compute(power, arrange="channels", standardise=standardise)
    (empty,) = feature.spec(feature.Params(standardise=standardise)).empty
    dark = image.min() if empty is None else empty
    assert image.min() == pytest.approx(dark, abs=1e-5)
    assert np.all(image[np.isnan(power)] == pytest.approx(dark, abs=1e-5))
    np.testing.assert_allclose(image[1], dark, atol=1e-5)
    assert image[~np.isnan(power) & (power > 0)].mean() > dark + 1


def test_each_panel_by_itself(power: np.ndarray) -> None:
    logs = np.log(np.clip(power, math.exp(-4), math.exp(8)))
    expected = np.stack([(panel - np.nanmean(panel)) / np.nanstd(panel) for panel in logs])
    expected = np.nan_to_num(expected, nan=np.nanmin(expected))
    np.testing.assert_allclose(compute(power, arrange="channels", standardise="panel"), expected, atol=1e-4)


def test_fixed_standardisation_is_the_same_for_every_recording() -> None:
    power = np.full((4, 100, 300), math.e**3)
    np.testing.assert_allclose(compute(power, standardise="global", mean=1.0, deviation=4.0), 0.5, rtol=1e-5)
    np.testing.assert_allclose(compute(power * math.e, standardise="global", mean=1.0, deviation=4.0), 0.75, rtol=1e-5)
    np.testing.assert_allclose(compute(power, standardise="none"), 3, rtol=1e-5)


@pytest.mark.parametrize("value", [np.nan, 0.0, 1.0, 206_415.0, np.inf, -1.0])
@pytest.mark.parametrize("standardise", ["image", "panel"])
def test_a_recording_of_one_value_is_an_empty_image(value: float, standardise: str) -> None:
    image = compute(np.full((4, 100, 300), value), standardise=standardise)
    np.testing.assert_allclose(image, np.zeros((1, 400, 300)), atol=1e-2)


@pytest.mark.parametrize("standardise", ["global", "none"])
def test_a_recording_of_nothing_is_an_empty_image(standardise: str) -> None:
    (empty,) = feature.spec(feature.Params(standardise=standardise)).empty
    assert (compute(np.full((4, 100, 300), np.nan), standardise=standardise) == np.float32(empty)).all()


def test_extremes_are_clipped() -> None:
    power = np.ones((4, 100, 300))
    power[0] = 0  # as e^-4
    power[1] = 206_415  # as e^8
    logs = np.array([-4, 8, 0, 0])
    image = compute(power, arrange="channels")
    np.testing.assert_allclose(image[:, 50, 150], (logs - logs.mean()) / logs.std(), rtol=1e-4)


@pytest.mark.parametrize("side", [2, 4])
def test_pooling_is_the_mean_of_squares_within_a_panel(power: np.ndarray, side: int) -> None:
    whole = compute(power, arrange="channels")
    expected = sum(whole[:, i::side, j::side] for i in range(side) for j in range(side)) / side**2
    pooled = compute(power, arrange="channels", pool=side)
    np.testing.assert_allclose(pooled, expected, atol=1e-5)
    np.testing.assert_array_equal(compute(power, pool=side).reshape(pooled.shape), pooled)


def test_the_middle_columns_of_a_standardised_image(power: np.ndarray) -> None:
    whole = compute(power)
    np.testing.assert_array_equal(compute(power, columns=256), whole[..., 22:-22])
    np.testing.assert_array_equal(compute(power, columns=17), whole[..., 141:158])


def test_the_public_variant_of_128_by_256() -> None:
    power = np.exp(np.random.default_rng(1).normal(size=(4, 100, 300)))
    image = compute(power, arrange="channels", columns=256, bins=128)
    middle = compute(power, arrange="channels")[:, :, 22:-22]
    expected = np.full((4, 128, 256), middle.min())
    expected[:, 14:-14] = middle
    np.testing.assert_array_equal(image, expected)
    np.testing.assert_array_equal(compute(power, columns=256, bins=128), expected.reshape(1, 512, 256))


def test_of_odd_rows_the_low_frequencies_get_one_more(power: np.ndarray) -> None:
    image = compute(power, arrange="channels", bins=103)
    np.testing.assert_array_equal(image[:, 2:-1], compute(power, arrange="channels"))
    assert (image[:, :2] == image.min()).all() and (image[:, -1] == image.min()).all()


@pytest.mark.parametrize(
    ("params", "shape", "axis", "rate_hz"),
    [
        ({}, (1, 400, 300), "F", 0.5),
        (CHANNELS, (4, 100, 300), "C", 0.5),
        ({"pool": 2}, (1, 200, 150), "F", 0.25),
        (CHANNELS | {"pool": 4}, (4, 25, 75), "C", 0.125),
        (CHANNELS | {"bins": 128, "columns": 256, "pool": 4}, (4, 32, 64), "C", 0.125),
        ({"bins": 128, "columns": 17}, (1, 512, 17), "F", 0.5),
    ],
)
def test_the_spec_tells_the_image(params: dict[str, object], shape: tuple[int, ...], axis: str, rate_hz: float) -> None:
    spec = feature.spec(feature.Params(**params))
    assert (spec.layout, spec.shape, spec.rate_hz, spec.kinds) == ("image", shape, rate_hz, ("spectrogram",))
    assert spec.panels.axis == axis and spec.panels.names == ("LL", "LP", "RL", "RP")
    assert compute(np.ones((4, 100, 300)), **params).shape == shape


def test_the_time_axis_is_ten_minutes() -> None:
    for pool in (1, 2, 4):
        spec = feature.spec(feature.Params(pool=pool))
        assert spec.shape[2] / spec.rate_hz == 600


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"pool": 3}, "pool: Input should be 1, 2 or 4, but got 3"),
        ({"pool": 4, "columns": 250}, "pool: must divide columns (250), but got 4"),
        ({"pool": 2, "bins": 101}, "pool: must divide bins (101), but got 2"),
        ({"bins": 99}, "bins: Input should be greater than or equal to 100, but got 99"),
        ({"bins": 129, "pool": 2}, "bins: Input should be less than or equal to 128, but got 129"),
        ({"columns": 301}, "columns: Input should be less than or equal to 300, but got 301"),
        ({"deviation": 0}, "deviation: Input should be greater than or equal to 0.1, but got 0"),
        ({"standardise": "all"}, "standardise: Input should be 'image', 'panel', 'global' or 'none', but got 'all'"),
    ],
)
def test_what_does_not_fit_is_refused(params: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"^configuration: feature.{re.escape(sentence)}$"):
        parse(feature.Params, params, "feature")
