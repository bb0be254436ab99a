"""Rows of frequency bins that several image features add, and what gaps are filled with."""

import torch


def pad_bins(image: torch.Tensor, bins: int) -> torch.Tensor:
    """Return images (..., F, T) with rows of NaN around them up to `bins` rows, to be filled as gaps are.

    The image stays in the middle; where the rows to add are odd, the low frequencies get one more.
    """
    missing = bins - image.shape[-2]
    above = missing // 2
    return torch.nn.functional.pad(image, (0, 0, missing - above, above), value=torch.nan) if missing else image


def fill_gaps(image: torch.Tensor, value: float | None, axes: tuple[int, ...]) -> torch.Tensor:
    """Return images with a value where they are NaN; None: the smallest over those axes, and 0 where there is none."""
    if value is not None:
        return image.nan_to_num(value)
    if not image.isnan().any():
        return image
    lowest = image.nan_to_num(torch.inf).amin(axes, keepdim=True)
    return torch.where(image.isnan(), lowest, image).nan_to_num(posinf=0.0)
