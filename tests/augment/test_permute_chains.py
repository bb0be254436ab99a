"""Chains change places whole: their panels keep their order, and the midline its place."""

from itertools import permutations

import numpy as np
import pytest
import torch

from hms_ray.augment import permute_chains
from hms_ray.augment._compose import Batch
from hms_ray.core import seeds
from hms_ray.core.errors import ConfigError
from hms_ray.core.specs import InputSpec, Panels
from hms_ray.features import _montage

REGIONS = ("LL", "LP", "RP", "RL")
PAIRS = (*(f"{chain}{i}" for chain in REGIONS for i in range(1, 5)), "ZC1", "ZC2")
ALWAYS = permute_chains.Params(p=1)


def _numbered(axis: str, names: tuple[str, ...], rows: int = 500, size: int = 3) -> Batch:
    """Every panel holds its own number; a panel along F has `size` frequencies."""
    n = len(names)
    spec = InputSpec(
        *{
            "wave": ("wave", (n, 4)),
            "C": ("image", (n, size, 4)),
            "F": ("image", (2, n * size, 4)),
        }[axis],
        1.0,
        Panels("F" if axis == "F" else "C", names),
    )
    number = torch.arange(float(n)).repeat_interleave(size if axis == "F" else 1)
    shape = (1, 1, -1, 1) if axis == "F" else (1, -1, *[1] * (len(spec.shape) - 1))
    x = number.view(shape).expand(rows, *spec.shape).contiguous()
    return Batch(x, torch.ones(rows, 6) / 6, torch.ones(rows), spec)


def _orders(batch: Batch) -> np.ndarray:
    """Return (B, panels), the number in each panel, and check that it is the only one there."""
    spec = batch.spec
    blocks = batch.x.movedim(spec.axis(spec.panels.axis), 1).flatten(2).unflatten(1, (len(spec.panels.names), -1))
    blocks = blocks.flatten(2)
    assert (blocks == blocks[..., :1]).all()
    return blocks[..., 0].int().numpy()


@pytest.mark.parametrize("axis", ["wave", "C", "F"])
def test_chains_move_whole_and_the_midline_stays(axis: str) -> None:
    orders = _orders(permute_chains.apply(_numbered(axis, PAIRS), seeds.stream(0), ALWAYS))
    chains = orders[:, :16].reshape(-1, 4, 4)
    np.testing.assert_array_equal(chains - chains[:, :, :1], np.broadcast_to(np.arange(4), chains.shape))
    np.testing.assert_array_equal(orders[:, 16:], np.broadcast_to([16, 17], (len(orders), 2)))
    assert {tuple(row) for row in chains[:, :, 0] // 4} == set(permutations(range(4))), "every order comes up"


def test_regions_are_chains_of_one_panel() -> None:
    orders = _orders(permute_chains.apply(_numbered("F", REGIONS), seeds.stream(0), ALWAYS))
    assert {tuple(row) for row in orders} == set(permutations(range(4)))


def test_chains_need_not_be_neighbours() -> None:
    names = ("LL1", "RL1", "ZC1", "LL2", "RL2")
    orders = _orders(permute_chains.apply(_numbered("wave", names), seeds.stream(0), ALWAYS))
    assert {tuple(row) for row in orders} == {(0, 1, 2, 3, 4), (1, 0, 2, 4, 3)}


def test_about_p_of_the_rows_and_what_a_panel_holds_is_kept() -> None:
    spec = InputSpec("wave", (4, 5), 1.0, Panels("C", REGIONS))
    batch = Batch(torch.rand(4000, 4, 5), torch.ones(4000, 6) / 6, torch.ones(4000), spec)
    done = permute_chains.apply(batch, seeds.stream(0), permute_chains.Params(p=0.3))
    torch.testing.assert_close(done.x.sum(1), batch.x.sum(1))
    changed = (done.x != batch.x).flatten(1).any(1).float().mean().item()
    assert changed == pytest.approx(0.3 * 23 / 24, abs=0.04), "one shuffle of 24 changes nothing"
    assert done.y is batch.y and done.weight is batch.weight


@pytest.mark.parametrize(
    ("panels", "sentence"),
    [
        (None, "permute_chains needs a feature whose panels form chains"),
        (Panels("C", ("LL1", "LL2", "RL1", "ZC1")), "permute_chains needs chains of equal length"),
        (Panels("C", _montage.names("referential")), "permute_chains needs chains of equal length"),
        (Panels("C", ("LL1", "ZA1", "ZB1", "ZC1")), "permute_chains needs chains of equal length"),
    ],
)
def test_nothing_to_shuffle_is_refused(panels: Panels | None, sentence: str) -> None:
    spec = InputSpec("wave", (4, 5), 1.0, panels)
    with pytest.raises(ConfigError, match=sentence):
        permute_chains.apply(Batch(torch.rand(2, 4, 5), torch.ones(2, 6), torch.ones(2), spec), seeds.stream(0), ALWAYS)
