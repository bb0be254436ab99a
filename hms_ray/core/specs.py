"""The interface between features and models: the shape of one example, the meaning of its axes, and a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Layout = Literal["image", "wave", "embedding"]
AXES = {"image": ("C", "F", "T"), "wave": ("C", "T"), "embedding": ("L", "T", "D")}


@dataclass(frozen=True)
class Panels:
    """Equal blocks along one axis, named by scalp region; the first letter is the side (L, R, or Z for midline)."""

    axis: str
    names: tuple[str, ...]

    def mirrored(self) -> tuple[int, ...]:
        """Return, for each block, the index of the block that a left/right mirror puts in its place."""
        swap = {"L": "R", "R": "L"}
        return tuple(self.names.index(swap.get(name[0], name[0]) + name[1:]) for name in self.names)


@dataclass(frozen=True)
class InputSpec:
    """One example without its batch axis.

    layout: "image" (C, F, T), "wave" (C, T), or "embedding" (L, T, D), the output of L layers of another network
    shape: the sizes of those axes
    rate_hz: steps a second along T
    panels: blocks of scalp regions along an axis, if the feature has them
    kinds: kinds of recordings that it is computed from, keys of `recordings.KINDS`
    spans: widths of pictures of different time ranges side by side along T; empty: one picture
    folded: time also runs along the rows, so that a step along T is several steps of a wave
    symmetric: exchanging the left and the right side of the head does not change any example
    covariates: names of numbers beside the example, such as the age; unknown values are NaN
    empty: the value that means "no signal", for each picture or one for all: of a channel without contact, of a gap,
        and of masking augmentations. None: the smallest value of each example's picture, in an image without panels
        of each of its channels
    """

    layout: Layout
    shape: tuple[int, ...]
    rate_hz: float
    panels: Panels | None = None
    kinds: tuple[str, ...] = ()
    spans: tuple[int, ...] = ()
    folded: bool = False
    symmetric: bool = False
    covariates: tuple[str, ...] = ()
    empty: tuple[float | None, ...] = (0.0,)

    def __post_init__(self) -> None:
        assert len(self.shape) == len(AXES[self.layout]), f"{self.layout=} does not fit {self.shape=}"
        assert len(self.empty) in (1, len(self.pictures)), f"{self.empty=} does not fit {self.spans=}"
        assert not self.spans or sum(self.spans) == self.shape[-1], f"{self.spans=} do not fill {self.shape=}"

    def axis(self, letter: str) -> int:
        """Return the index of an axis in a batch (B first): axis("T") is -1 for images and waves."""
        return AXES[self.layout].index(letter) - len(self.shape)

    @property
    def pictures(self) -> tuple[slice, ...]:
        """Return the slice of T of each picture."""
        widths = self.spans or self.shape[-1:]
        return tuple(slice(sum(widths[:i]), sum(widths[: i + 1])) for i in range(len(widths)))

    def empty_values(self, x: torch.Tensor) -> torch.Tensor | float:
        """Return the values that mean "no signal" in examples (B, *shape), defined by `empty`; they broadcast to x."""
        values = self.empty * (len(self.pictures) // len(self.empty))
        if len(set(values)) == 1 and values[0] is not None:
            return values[0]
        by_channel = self.layout == "image" and self.panels is None  # channels of different quantities
        axes = tuple(range(2 if by_channel else 1, x.ndim))
        empty = x.new_empty(len(x), x.shape[1] if by_channel else 1, *[1] * (x.ndim - 3), x.shape[-1])
        for picture, value in zip(self.pictures, values, strict=True):
            empty[..., picture] = x[..., picture].amin(axes, keepdim=True) if value is None else value
        return empty


@dataclass(frozen=True)
class Batch:
    """x (B, *spec.shape), y (B, K) targets, weight (B,) loss weights; covariates (B, S): the numbers beside x, if any.

    owned: nobody else holds x, so that an augmentation may write to it; else it makes a copy first
    """

    x: torch.Tensor
    y: torch.Tensor
    weight: torch.Tensor
    spec: InputSpec
    owned: bool = False
    covariates: torch.Tensor | None = None

    @property
    def inputs(self) -> tuple[torch.Tensor, ...]:
        """What a network is called with."""
        return (self.x,) if self.covariates is None else (self.x, self.covariates)
