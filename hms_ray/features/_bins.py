"""Rows of frequency bins that several image features add."""

import torch


def pad_bins(image: torch.Tensor, bins: int) -> torch.Tensor:
    """Return images (..., F, T) with rows of zeros around them up to `bins` rows.

    The image stays in the middle; where the rows to add are odd, the low frequencies get one more.
    """
    missing = bins - image.shape[-2]
    above = missing // 2
    return torch.nn.functional.pad(image, (0, 0, missing - above, above))
