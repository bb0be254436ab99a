"""Frequencies run the other way inside each panel, and panels keep their places; waves are refused."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from hms_ray.augment import flip_frequency
from hms_ray.augment._compose import Batch
from hms_ray.core import seeds
from hms_ray.core.errors import ConfigError
from hms_ray.core.specs import InputSpec, Panels


def test_each_panel_along_f_is_reversed_in_its_place() -> None:
    spec = InputSpec("image", (1, 6, 2), 1.0, Panels("F", ("LL", "RL")))
    x = torch.arange(6.0).view(1, 1, 6, 1).expand(2, 1, 6, 2)
    assert flip_frequency.variant(x, spec)[1, 0, :, 1].tolist() == [2, 1, 0, 5, 4, 3]


@pytest.mark.parametrize("panels", [None, Panels("C", ("LL", "RL"))])
def test_without_panels_along_f_the_axis_is_reversed_as_a_whole(panels: Panels | None) -> None:
    x = torch.rand(3, 2, 6, 4)
    assert torch.equal(flip_frequency.variant(x, InputSpec("image", (2, 6, 4), 1.0, panels)), x.flip(2))


def test_about_p_of_the_rows_and_each_of_them_whole(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch("channels", rows=1000)
    done = flip_frequency.apply(batch, seeds.stream(0), flip_frequency.Params(p=0.3))
    kept, flipped = ((done.x == x).flatten(1).all(1) for x in (batch.x, batch.x.flip(2)))
    assert (kept ^ flipped).all() and flipped.float().mean().item() == pytest.approx(0.3, abs=0.07)
    assert done.y is batch.y and done.weight is batch.weight


def test_pictures_side_by_side_are_turned_over_alike(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch("stack")
    whole = flip_frequency.variant(batch.x, batch.spec)
    assert torch.equal(flip_frequency.variant(batch.x, replace(batch.spec, spans=(10, 20))), whole)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_waves_are_refused(make_batch: Callable[..., Batch], p: float) -> None:
    batch = make_batch("wave")
    with pytest.raises(ConfigError, match=r"augment\.flip_frequency needs images"):
        flip_frequency.apply(batch, seeds.stream(0), flip_frequency.Params(p=p))
    with pytest.raises(ConfigError, match=r"augment\.flip_frequency needs images"):
        flip_frequency.variant(batch.x, batch.spec)
