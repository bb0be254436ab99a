"""Examples of units: which they are, and what a unit's mean over them is."""

import numpy as np
import pandas as pd
import pytest

from hms_ray.datasets import Examples

UNIT = np.array([0, 0, 0, 1, 2, 2])
EXAMPLES = Examples(UNIT, pd.DataFrame({"age": [30.0, 30, 30, np.nan, 50, 50], "sitting": [0, 1, 1, 0, 1, 0]}))


def test_the_examples_of_units_come_unit_by_unit_in_the_order_asked() -> None:
    assert EXAMPLES.of(np.array([2, 0])).tolist() == [4, 5, 0, 1, 2]
    assert EXAMPLES.of(np.array([], dtype=int)).tolist() == []


def test_a_unit_has_the_mean_of_its_examples() -> None:
    values = np.random.default_rng(0).random((5, 3))
    found = EXAMPLES.mean(np.array([2, 0]), values)
    np.testing.assert_allclose(found, [values[:2].mean(0), values[2:].mean(0)], rtol=1e-15)


def test_of_units_with_one_example_each_the_mean_is_the_example_itself() -> None:
    one_each, units, values = Examples.one_each(4), np.array([3, 0, 1]), np.random.default_rng(0).random((3, 2))
    assert one_each.of(units).tolist() == units.tolist()
    np.testing.assert_array_equal(one_each.mean(units, values), values)
    assert EXAMPLES.mean(np.array([], dtype=int), np.empty((0, 3))).shape == (0, 3)


def test_numbers_beside_the_examples_come_in_the_order_asked() -> None:
    found = EXAMPLES.beside(["sitting", "age"])
    assert found.dtype == np.float32 and found[1].tolist() == [1, 30] and np.isnan(found[3, 1])


@pytest.mark.parametrize("unit", [[1, 0], [0, 2], [1, 1]])
def test_units_are_in_their_order_and_each_has_an_example(unit: list[int]) -> None:
    with pytest.raises(AssertionError):
        Examples(np.array(unit), pd.DataFrame(index=range(2)))
