"""What tests of EEG features share."""

from collections.abc import Callable

import pytest
import torch

from hms_ray.recordings import EEG, LEFT, RIGHT


@pytest.fixture(scope="session")
def mirrored_head() -> Callable[[torch.Tensor], torch.Tensor]:
    """The function that shows recordings (B, 20, T) as a mirror does: each electrode has its homologue's values."""
    twin = dict(zip(LEFT + RIGHT, RIGHT + LEFT, strict=True))
    order = [EEG.channels.index(twin.get(name, name)) for name in EEG.channels]
    return lambda eeg: eeg[:, order]
