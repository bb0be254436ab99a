"""Rows of frequency bins that several image features add, and the value of what holds no signal."""

import torch

from hms_ray.specs import InputSpec


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


def empty_values(x: torch.Tensor, spec: InputSpec) -> torch.Tensor | float:
    """Return what means "no signal here" in examples (B, *spec.shape), as `spec.empty` has it; it broadcasts to x."""
    pictures = spec.pictures
    values = spec.empty * (len(pictures) // len(spec.empty))
    if len(set(values)) == 1 and values[0] is not None:
        return values[0]
    alone = spec.layout == "image" and spec.panels is None  # channels that mean different things
    axes = tuple(range(2 if alone else 1, x.ndim))
    each = []
    for picture, value in zip(pictures, values, strict=True):
        own = x[..., picture]
        low = own.amin(axes, keepdim=True) if value is None else own.new_full((1,) * x.ndim, value)
        each.append(low.expand(len(x), x.shape[1] if alone else 1, *[1] * (x.ndim - 3), own.shape[-1]))
    return torch.cat(each, -1)
