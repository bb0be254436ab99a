"""The four statistics against NumPy, pixel by pixel over the panels."""

import warnings

import numpy as np
import pytest
import torch

from hms_ray.core.errors import ConfigError
from hms_ray.core.params import parse
from hms_ray.features import global_stats as feature
from hms_ray.features import kaggle_spectrogram

EACH = [
    {},
    {"standardise": "panel"},
    {"standardise": "global"},
    {"standardise": "none", "columns": 250, "pool": 2},
    {"bins": 128, "columns": 256, "pool": 4},
]


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Two windows: the second has a gap in all panels, and one in two of them."""
    power = np.exp(np.random.default_rng(0).normal(size=(2, 4, 100, 300)) * 2 - 1)
    power[1, :, :, :30] = power[1, 1:3, 40:60, 100:200] = np.nan
    return {"spectrogram": torch.from_numpy(power.astype(np.float32)).reshape(2, 400, 300)}


@pytest.mark.parametrize("params", EACH)
def test_the_statistics_are_numpys(batch: dict[str, torch.Tensor], params: dict[str, object]) -> None:
    checked = feature.Params(**params)
    panels = kaggle_spectrogram.log_power(batch, checked).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of pixels without any panel
        low, high, mean = np.nanmin(panels, 1), np.nanmax(panels, 1), np.nanmean(panels, 1)
    image = np.stack([low, high, mean, high - low], 1)
    extra = (checked.bins - 100) // 2
    image = np.pad(image, ((0, 0), (0, 0), (extra, extra), (0, 0)), constant_values=np.nan)
    dark = np.nanmin(image, (2, 3), keepdims=True) if checked.empty is None else np.full((1, 4, 1, 1), checked.empty)
    dark[:, 3] = 0  # panels that agree
    image = np.where(np.isnan(image), dark, image)
    image = image.reshape(*image.shape[:2], checked.size[0], checked.pool, checked.size[1], checked.pool).mean((3, 5))
    np.testing.assert_allclose(feature.compute(batch, checked), image, atol=1e-5)


def test_a_known_answer() -> None:
    power = torch.exp(torch.tensor([1.0, 2.0, 3.0, 6.0])).repeat_interleave(100)[None, :, None].expand(1, 400, 300)
    image = feature.compute({"spectrogram": power}, feature.Params(standardise="none"))
    torch.testing.assert_close(image[0, :, 50, 150], torch.tensor([1.0, 6.0, 3.0, 5.0]))


def test_a_gap_is_left_out_of_the_statistics(batch: dict[str, torch.Tensor]) -> None:
    image = feature.compute(batch, feature.Params())
    assert (image[1, :3, :, :30] == image[1, :3].amin((1, 2), keepdim=True)).all()
    assert not image[1, 3, :, :30].any() and image[1, 3, 40:60, 100:200].any()
    panels = kaggle_spectrogram.compute(batch, kaggle_spectrogram.Params(arrange="channels"))[1, (0, 3), 50, 150]
    torch.testing.assert_close(image[1, :3, 50, 150], torch.stack([panels.min(), panels.max(), panels.mean()]))


def test_one_panel_is_all_there_is(batch: dict[str, torch.Tensor]) -> None:
    power = batch["spectrogram"][:1].clone()
    power[:, 100:] = torch.nan
    low, high, mean, spread = feature.compute({"spectrogram": power}, feature.Params())[0]
    assert torch.equal(low, high) and torch.equal(low, mean) and not spread.any() and low.any()


def test_a_recording_of_nothing_is_an_empty_image() -> None:
    nothing = {"spectrogram": torch.full((2, 400, 300), torch.nan)}
    for params in EACH:
        image, empty = feature.compute(nothing, feature.Params(**params)), feature.Params(**params).empty
        assert not image[:, 3].any() and (image[:, :3] == (empty or 0)).all()


def test_a_mirrored_brain_is_the_same_image(batch: dict[str, torch.Tensor]) -> None:
    mirrored = {"spectrogram": batch["spectrogram"].unflatten(1, (4, 100))[:, (2, 3, 0, 1)].flatten(1, 2)}
    params = feature.Params()
    torch.testing.assert_close(feature.compute(mirrored, params), feature.compute(batch, params), atol=1e-5, rtol=0)


def test_the_spec_tells_the_image() -> None:
    spec = feature.spec(feature.Params(bins=128, columns=256, pool=2))
    assert (spec.shape, spec.rate_hz, spec.kinds, spec.panels) == ((4, 64, 128), 0.25, ("spectrogram",), None)
    assert feature.spec(feature.Params()).shape == (4, 100, 300)
    assert spec.symmetric, "a mirrored brain is the same image"


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"pool": 4, "columns": 250}, r"feature\.pool: must divide columns \(250\), but got 4"),
        ({"arrange": "stack"}, r"feature\.arrange: unknown key \(value 'stack'\)"),
    ],
)
def test_what_does_not_fit_is_refused(params: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse(feature.Params, params, "feature")
