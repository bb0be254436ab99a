"""Bands as waves: the spectrogram's rows, one for one."""

from collections.abc import Callable

import torch

from hms_ray.features import heart_bands, heart_spectrogram


def test_channels_are_the_rows_of_the_spectrogram(made_up_recordings: Callable[..., dict[str, torch.Tensor]]) -> None:
    values = {"n_bins": 32, "frames": 200, "window": 512}
    batch = made_up_recordings(("heart_sound",), 3)
    image = heart_spectrogram.compute(batch, heart_spectrogram.Params(**values))
    params = heart_bands.Params(**values)
    spec, waves = heart_bands.spec(params), heart_bands.compute(batch, params)
    assert (spec.layout, spec.shape, spec.rate_hz) == ("wave", (32, 200), 10.0)
    torch.testing.assert_close(waves, image[:, 0], rtol=0, atol=0)
