"""What tests of EEG features share."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from hms_ray.core.recordings import EEG, LEFT, RIGHT
from hms_ray.features import _montage


@pytest.fixture(scope="session")
def mirrored_head() -> Callable[[torch.Tensor], torch.Tensor]:
    """The function that shows recordings (B, 20, T) as a mirror does: each electrode has its homologue's values."""
    twin = dict(zip(LEFT + RIGHT, RIGHT + LEFT, strict=True))
    order = [EEG.channels.index(twin.get(name, name)) for name in EEG.channels]
    return lambda eeg: eeg[:, order]


@pytest.fixture(scope="session")
def levelled() -> Callable[..., np.ndarray]:
    """The function levelled(eeg, montage="banana_16", clip_uv=1024.0) -> (B, P, T) in float64: each channel by itself.

    Less its level, a line through the medians of every ten seconds; clipped; 0 where there is no value.
    """

    def one(wave: np.ndarray, clip_uv: float) -> np.ndarray:
        if np.isnan(wave).all():
            return np.zeros_like(wave)
        parts = max(1, len(wave) // 2000)
        size = len(wave) // parts
        medians = [_lower_median(wave[i * size : (i + 1) * size : 5]) for i in range(parts)]
        medians = np.where(np.isnan(medians), _lower_median(np.array(medians)), medians)
        middles, t = (np.arange(parts) + 0.5) * size - 0.5, np.arange(len(wave))
        level = np.interp(t, middles, medians)
        for ends, outside in (((0, 1), t < middles[0]), ((-2, -1), t > middles[-1])) if parts > 1 else ():
            line = np.polyfit(middles[list(ends)], medians[list(ends)], 1)
            level = np.where(outside, np.polyval(line, t), level)
        return np.nan_to_num(np.clip(wave - level, -clip_uv, clip_uv))

    def every(eeg: torch.Tensor, montage: _montage.Montage = "banana_16", clip_uv: float = 1024.0) -> np.ndarray:
        return np.apply_along_axis(one, -1, _montage.apply(eeg, montage).double().numpy(), clip_uv)

    return every


def _lower_median(values: np.ndarray) -> float:
    """Return the median of what is no NaN; of an even number the lower of the two in the middle."""
    known = np.sort(values[~np.isnan(values)])
    return known[(len(known) - 1) // 2] if len(known) else np.nan
