"""The mirrored brain: left panels where right ones were, and nothing else."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from hms_ray.augment import mirror_sides
from hms_ray.augment._compose import Batch
from hms_ray.core import seeds
from hms_ray.core.errors import ConfigError
from hms_ray.core.specs import InputSpec, Panels

ALWAYS = mirror_sides.Params(p=1)


@pytest.mark.parametrize("arrange", ["stack", "channels", "wave"])
def test_left_and_right_change_places(make_batch: Callable[..., Batch], arrange: str) -> None:
    batch = make_batch(arrange)
    axis = 2 if arrange == "stack" else 1
    ll, lp, rl, rp = batch.x.chunk(4, axis)
    mirrored = mirror_sides.apply(batch, seeds.stream(0), ALWAYS)
    torch.testing.assert_close(mirrored.x, torch.cat([rl, rp, ll, lp], axis), rtol=0, atol=0)
    assert mirrored.y is batch.y and mirrored.weight is batch.weight


@pytest.mark.parametrize("arrange", ["stack", "channels", "wave"])
def test_mirrored_twice_is_the_same(make_batch: Callable[..., Batch], arrange: str) -> None:
    batch = make_batch(arrange)
    twice = mirror_sides.apply(mirror_sides.apply(batch, seeds.stream(0), ALWAYS), seeds.stream(1), ALWAYS)
    assert torch.equal(twice.x, batch.x)


def test_another_order_of_panels_is_followed(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch("channels")
    batch = replace(batch, spec=replace(batch.spec, panels=Panels("C", ("LL", "Z", "RL", "ZP"))))
    mirrored = mirror_sides.apply(batch, seeds.stream(0), ALWAYS)
    assert torch.equal(mirrored.x, batch.x[:, [2, 1, 0, 3]])


def test_about_p_of_the_rows_and_each_of_them_whole(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch("channels", rows=2000)
    mirrored = mirror_sides.apply(batch, seeds.stream(0), mirror_sides.Params(p=0.3))
    kept = (mirrored.x == batch.x).flatten(1).all(1)
    swapped = (mirrored.x == batch.x[:, [2, 3, 0, 1]]).flatten(1).all(1)
    assert (kept ^ swapped).all()
    assert swapped.float().mean().item() == pytest.approx(0.3, abs=0.05)  # 5 standard errors


def test_pairs_keep_their_place_in_the_chain_and_the_midline_stays() -> None:
    spec = InputSpec("wave", (6, 5), 200.0, Panels("C", ("LL1", "LL2", "ZC1", "ZC2", "RL1", "RL2")))
    x = torch.arange(6.0).view(1, 6, 1).expand(3, 6, 5)
    assert mirror_sides.variant(x, spec)[:, :, 0].tolist() == [[4, 5, 2, 3, 0, 1]] * 3


def test_two_pictures_are_mirrored_alike(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch("stack")
    whole = mirror_sides.variant(batch.x, batch.spec)
    assert torch.equal(mirror_sides.variant(batch.x, replace(batch.spec, spans=(10, 20))), whole)


def test_an_image_that_is_its_own_mirror_image_stays_as_it_is(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch("channels")
    batch = replace(batch, spec=replace(batch.spec, panels=None, symmetric=True))
    assert mirror_sides.apply(batch, seeds.stream(0), ALWAYS) is batch
    assert mirror_sides.variant(batch.x, batch.spec) is batch.x


def test_a_feature_without_sides_is_refused() -> None:
    batch = Batch(torch.ones(2, 1, 8, 8), torch.ones(2, 6), torch.ones(2), InputSpec("image", (1, 8, 8), 1.0))
    with pytest.raises(ConfigError, match="mirror_sides needs a feature whose panels have sides"):
        mirror_sides.apply(batch, seeds.stream(0), ALWAYS)
