"""Strips of time from a row of the same class: whole columns, shares as told, and targets to match."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from hms_ray.augment import same_class_cutmix
from hms_ray.augment._compose import Batch
from hms_ray.core import seeds
from hms_ray.core.errors import ConfigError
from hms_ray.core.params import parse
from hms_ray.core.specs import InputSpec

ALWAYS = same_class_cutmix.Params(p=1)
SPECS = {
    "image": InputSpec("image", (2, 5, 300), 0.5),
    "wave": InputSpec("wave", (3, 300), 200.0),
    "two pictures": InputSpec("image", (1, 5, 500), 0.5, spans=(300, 200)),
}


def _numbered(spec: InputSpec, classes: list[int], clear: float = 0.7) -> Batch:
    """Row i is i everywhere in x, weighs 10 i, and has the share `clear` of its class; the others share the rest."""
    number = torch.arange(float(len(classes)))
    x = number.view(-1, *[1] * len(spec.shape)).expand(-1, *spec.shape).contiguous()
    y = torch.full((len(classes), 6), (1 - clear) / 5)
    y[torch.arange(len(classes)), torch.tensor(classes)] = clear
    return Batch(x, y, 10 * number, spec)


def _columns(batch: Batch) -> np.ndarray:
    """Return (B, T), the one number that each column of time holds over all channels and frequencies."""
    x = batch.x.flatten(1, -2)
    assert (x == x[:, :1]).all(), "strips have all channels and all frequencies"
    return x[:, 0].numpy()


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_strips_are_of_one_partner_of_the_same_class_and_all_is_blended_by_their_share(spec: InputSpec) -> None:
    classes = [i % 4 for i in range(48)]
    batch = _numbered(spec, classes)
    batch = replace(batch, y=0.9 * batch.y + 0.1 * torch.rand((48, 6)).softmax(1))  # rows of a class differ
    mixed = same_class_cutmix.apply(batch, seeds.stream(0), ALWAYS)
    for i, row in enumerate(_columns(mixed)):
        pasted = row != i
        (partner,) = set(row[pasted].astype(int))
        assert classes[partner] == classes[i]
        share = float(pasted.mean())
        for old, new in ((batch.y, mixed.y), (batch.weight, mixed.weight)):
            torch.testing.assert_close(new[i], (1 - share) * old[i] + share * old[partner], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_one_strip_a_picture_between_low_and_high(spec: InputSpec) -> None:
    params, widths = same_class_cutmix.Params(p=1, low=0.1, high=0.3), []
    mixed = _columns(same_class_cutmix.apply(_numbered(spec, [0] * 600), seeds.stream(0), params))
    for picture in spec.pictures:
        pasted = mixed[:, picture] != np.arange(600)[:, None]
        assert (np.abs(np.diff(pasted, prepend=0, append=0, axis=1)).sum(1) == 2).all(), "one run of columns"
        assert pasted.any(0).all(), "every place can be pasted over"
        widths.append(pasted.mean(1))
        assert widths[-1].min() == pytest.approx(0.1, abs=0.01) and widths[-1].max() == pytest.approx(0.3, abs=0.01)
    np.testing.assert_allclose(widths[0], widths[-1], atol=0.005)  # the same share in each picture


def test_everyone_gives_once() -> None:
    mixed = _columns(same_class_cutmix.apply(_numbered(SPECS["wave"], [0, 1, 2] * 20), seeds.stream(0), ALWAYS))
    partners = [next(iter(set(row.astype(int)) - {i})) for i, row in enumerate(mixed)]
    assert sorted(partners) == list(range(60))


def test_partners_differ_from_batch_to_batch() -> None:
    batch = _numbered(SPECS["wave"], [0] * 20)
    first, second = (_columns(same_class_cutmix.apply(batch, seeds.stream(i), ALWAYS)).max(1) for i in (0, 1))
    assert (first != second).any()


@pytest.mark.parametrize(("clear", "changes"), [(0.49, False), (0.5, True)])
def test_only_rows_with_half_of_the_target_in_a_class_take_part(clear: float, changes: bool) -> None:
    batch = _numbered(SPECS["wave"], [0] * 10, clear)
    mixed = same_class_cutmix.apply(batch, seeds.stream(0), ALWAYS)
    assert (mixed.x != batch.x).flatten(1).any(1).tolist() == [changes] * 10
    assert torch.equal(mixed.weight, batch.weight) != changes


def test_rows_without_a_partner_stay() -> None:
    batch = _numbered(SPECS["image"], [0, 1, 2, 2, 3])
    mixed = same_class_cutmix.apply(batch, seeds.stream(0), ALWAYS)
    assert (mixed.x != batch.x).flatten(1).any(1).tolist() == [False, False, True, True, False]
    alone = [0, 1, 4]
    assert torch.equal(mixed.y[alone], batch.y[alone]) and torch.equal(mixed.weight[alone], batch.weight[alone])


def test_p_is_the_share_of_batches(make_batch: Callable[..., Batch]) -> None:
    batch, rng = _numbered(SPECS["wave"], [0] * 4), seeds.stream(0)
    done = [same_class_cutmix.apply(batch, rng, same_class_cutmix.Params(p=0.4)) for _ in range(1000)]
    assert np.mean([new is not batch for new in done]) == pytest.approx(0.4, abs=0.07)
    assert all((new.x != batch.x).flatten(1).any(1).all() for new in done if new is not batch), "all rows or none"


def test_the_narrowest_must_not_be_wider_than_the_widest() -> None:
    with pytest.raises(ConfigError, match=r"augment\.same_class_cutmix: low must not be above high"):
        parse(same_class_cutmix.Params, {"low": 0.3}, "augment.same_class_cutmix")


def test_of_a_single_class_nobody_else_would_find_a_partner() -> None:
    batch = _numbered(SPECS["wave"], [0, 1, 0, 1])
    with pytest.raises(ConfigError, match=r"augment\.same_class_cutmix needs several classes"):
        same_class_cutmix.apply(replace(batch, y=batch.y[:, :1]), seeds.stream(0), ALWAYS)
