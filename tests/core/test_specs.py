"""What the axes of an example mean."""

import numpy as np
import pytest
import torch

from hms_ray.core.specs import InputSpec, Panels


@pytest.mark.parametrize(
    ("layout", "shape", "axes"), [("image", (4, 100, 300), {"C": 4, "F": 100, "T": 300}), ("wave", (18, 50), {"T": 50})]
)
def test_axis_finds_the_axis_of_a_batch(layout: str, shape: tuple[int, ...], axes: dict[str, int]) -> None:
    batch = np.zeros((2, *shape))
    spec = InputSpec(layout, shape, rate_hz=0.5)
    assert {letter: batch.shape[spec.axis(letter)] for letter in axes} == axes


def test_a_shape_of_another_layout_is_our_own_bug() -> None:
    with pytest.raises(AssertionError, match="image"):
        InputSpec("image", (4, 100), rate_hz=0.5)


@pytest.mark.parametrize(
    ("names", "twins"),
    [
        (("LL", "LP", "RL", "RP"), ("RL", "RP", "LL", "LP")),
        (("LL", "RL", "LP", "RP"), ("RL", "LL", "RP", "LP")),
        (("LL", "Z", "RL"), ("RL", "Z", "LL")),
    ],
)
def test_mirrored_swaps_sides_and_keeps_the_midline(names: tuple[str, ...], twins: tuple[str, ...]) -> None:
    assert tuple(names[i] for i in Panels("F", names).mirrored()) == twins


def test_mirrored_twice_is_where_it_began() -> None:
    order = np.array(Panels("C", ("LL", "RP", "Z", "RL", "LP")).mirrored())
    np.testing.assert_array_equal(order[order], np.arange(5))


@pytest.mark.parametrize(
    ("panels", "empty", "values"),
    [
        (None, (-2.0,), -2.0),
        (None, (-2.0, -2.0), -2.0),
        (None, (None,), [[[0, 0, 0, 3, 3]], [[10, 10, 10, 13, 13]]]),
        (Panels("F", ("LL", "RL")), (None,), [[[0, 0, 0, 3, 3]]]),
        (Panels("F", ("LL", "RL")), (None, -2.0), [[[0, 0, 0, -2, -2]]]),
    ],
)
def test_no_signal_is_a_value_of_each_picture_or_the_smallest_there(panels, empty, values) -> None:
    """Two channels of two rows, and two pictures side by side, three and two steps wide."""
    image = torch.arange(5.0) + torch.tensor([[[0.0], [5.0]], [[10.0], [15.0]]])
    spec = InputSpec("image", (2, 2, 5), rate_hz=0.5, panels=panels, spans=(3, 2), empty=empty)
    found = spec.empty_values(image[None])
    np.testing.assert_array_equal(found, values if isinstance(values, float) else np.array(values)[None])
