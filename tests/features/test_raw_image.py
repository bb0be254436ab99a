"""The folded wave, step by step."""

import numpy as np
import pytest
import torch

from hms_ray.core.errors import ConfigError
from hms_ray.core.params import parse
from hms_ray.features import raw_eeg
from hms_ray.features import raw_image as feature


@pytest.fixture(scope="module")
def eeg() -> torch.Tensor:
    """Two recordings (2, 20, 10000) of noise in microvolts."""
    return 30 * torch.randn(2, 20, 10_000, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("values", "shape", "rate_hz"),
    [
        ({}, (1, 160, 1000), 20),
        ({"montage": "banana_18", "rows": 20}, (1, 360, 500), 10),
        ({"decimate": 5, "rows": 4, "seconds": 10}, (1, 64, 100), 10),
    ],
)
def test_step_t_is_at_row_t_modulo_rows(
    eeg: torch.Tensor, values: dict[str, object], shape: tuple[int, ...], rate_hz: float
) -> None:
    params = parse(feature.Params, values, "feature")
    image, spec = feature.compute({"eeg": eeg}, params).numpy(), feature.spec(params)
    assert spec.shape == image.shape[1:] == shape and spec.rate_hz == rate_hz
    assert spec.layout == "image" and spec.panels.axis == "F"
    wave = raw_eeg.compute({"eeg": eeg}, params).numpy()
    for channel, t in ((0, 0), (0, 7), (3, 41), (15, wave.shape[-1] - 1)):
        row, column = channel * params.rows + t % params.rows, t // params.rows
        np.testing.assert_array_equal(image[:, 0, row, column], wave[:, channel, t])


def test_its_panels_are_the_waves_channels() -> None:
    assert feature.spec(feature.Params()).panels.names == raw_eeg.spec(raw_eeg.Params()).panels.names


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"rows": 7}, r"rows=7 must divide the wave's 10000 steps, as 2, 4, 5, 8, 10, 16, 20, 25, 40, 50, 80, 100 do"),
        ({"decimate": 5, "rows": 32}, r"rows=32 must divide the wave's 2000 steps"),
        ({"decimate": 10}, r"high_hz=20.0 must be at most 10"),
        ({"rows": 1}, r"feature\.rows: .*greater than or equal to 2"),
    ],
)
def test_what_does_not_go_together_is_refused(values: dict[str, object], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        parse(feature.Params, values, "feature")
