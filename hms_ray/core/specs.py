"""What a feature hands to a model: the shape of one example and what its axes mean."""

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

    layout: "image" (C, F, T), "wave" (C, T), or "embedding" (L, T, D), what L layers of another network made of it
    shape: the sizes of those axes
    rate_hz: steps a second along T
    panels: blocks of scalp regions along an axis, where the feature has them
    kinds: the recordings that it is made of, keys of `recordings.KINDS`
    spans: where pictures of different time stand side by side along T, the width of each; empty: one picture
    folded: time runs down the rows as well, so that a step along T is several of a wave
    symmetric: exchanging the left and the right side of the head leaves every example as it is
    covariates: names of the numbers that are given beside it, such as the age; what is not known of them is NaN
    empty: the value that means "no signal here", for each picture or one for all: what a channel without contact has,
        a gap, and what an augmentation blanks. None: the smallest value of each example's picture, in an image
        without panels of each of its channels
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
        """Return the position of an axis letter in a batch (B first): axis("T") is -1 for images and waves."""
        return AXES[self.layout].index(letter) - len(self.shape)

    @property
    def pictures(self) -> tuple[slice, ...]:
        """Return where along T each picture lies."""
        widths = self.spans or self.shape[-1:]
        return tuple(slice(sum(widths[:i]), sum(widths[: i + 1])) for i in range(len(widths)))

    def empty_values(self, x: torch.Tensor) -> torch.Tensor | float:
        """Return what means "no signal here" in examples (B, *shape), as `empty` has it; it broadcasts to x."""
        values = self.empty * (len(self.pictures) // len(self.empty))
        if len(set(values)) == 1 and values[0] is not None:
            return values[0]
        alone = self.layout == "image" and self.panels is None  # channels that mean different things
        axes = tuple(range(2 if alone else 1, x.ndim))
        found = x.new_empty(len(x), x.shape[1] if alone else 1, *[1] * (x.ndim - 3), x.shape[-1])
        for picture, value in zip(self.pictures, values, strict=True):
            found[..., picture] = x[..., picture].amin(axes, keepdim=True) if value is None else value
        return found
